"""Back to the best parameters, and slower rates on a plateau; also after a resumption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness import ready, workflow_on
from networks import Given

import veloflow
from veloflow.devices.parameters import Parameters
from veloflow.errors import GraphError, InputError
from veloflow.units import (
    All2AllTanh,
    DigitsLoader,
    GDTanh,
    OnPlateau,
    Rollback,
    softmax,
    standard_workflow,
    tanh,
)


def watched(make):
    """Return a watcher of a gradient unit with rates 0.5 and 0.25, in a workflow that is ready."""
    wf = workflow_on(dtype="float64")
    given = Given(
        wf, x=np.ones((2, 4)), err=np.zeros((2, 3)), epoch_ended=True, improved=True, complete=False
    )
    layer = All2AllTanh(wf, 3).link_data(given, input="x")
    unit = GDTanh(wf, layer, learning_rate=0.5, learning_rate_bias=0.25, gradient_moment=0.5)
    unit.link_data(given, err_output="err")
    watcher = make(wf).link_data(given, "epoch_ended", "improved")
    watcher.add(unit)
    return given, layer, unit, watcher


def scales(unit):
    """Return what multiplies the rates."""
    return unit.weights_numbers.scale, unit.bias_numbers.scale


def test_plateau_is_torchs():
    given, layer, unit, watcher = watched(
        lambda wf: OnPlateau(wf, factor=0.5, patience=3, smallest=0.1)
    )
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    judge = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0, min_lr=0.1
    )
    best = np.inf
    with ready(given, layer, unit, watcher):
        for loss in [3, 2, 2.5, 2.2, 2, 1.9, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]:
            given.give(improved=bool(loss < best))
            best = min(best, loss)
            watcher.run()
            judge.step(loss)
            assert scales(unit)[0] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert scales(unit) == (0.1, 0.1)


def test_rollback_goes_back_with_all_that_solvers_keep():
    given, layer, unit, watcher = watched(lambda wf: Rollback(wf, patience=2, plus=2.0, minus=0.25))
    watcher.link_data(given, "complete")
    with ready(given, layer, unit, watcher) as wf:
        parameters = wf.find_service(Parameters)
        layer.weights.slots["velocity"].write(7.0)
        watcher.run()
        kept = parameters.save()
        assert scales(unit) == (2.0, 2.0)
        layer.weights.value.write(5.0)
        layer.weights.slots["velocity"].write(1.0)
        given.give(improved=False)
        watcher.run()
        assert layer.weights.value.read()[0, 0] == 5.0
        watcher.run()
        for name, values in parameters.save().items():
            np.testing.assert_array_equal(values, kept[name])
        assert scales(unit) == (0.5, 0.5)
        assert watcher.results() == {"rollbacks": 1}
        layer.weights.value.write(5.0)
        given.give(complete=True)
        watcher.run()
        np.testing.assert_array_equal(layer.weights.value.read(), kept["All2AllTanh/weights"])
        state = watcher.state()
        other = Rollback(wf, patience=2)
        other.restore(state)
        assert (other.waited, other.rollbacks) == (watcher.waited, 1)
        assert other.state()["best"].keys() == kept.keys()


def build(wf, *, epochs: int = 6, rate: float = 3.0):
    """Train with rates that are much too high, so that epochs get worse."""
    standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=100),
        layers=[tanh(20), softmax(10)],
        solver="momentum",
        gradient_moment=0.5,
        learning_rate=rate,
        max_epochs=epochs,
        watchers=[Rollback(wf, patience=1, minus=0.3)],
    )


@pytest.mark.slow
def test_a_resumed_run_goes_back_as_one_that_was_never_stopped(tmp_path):
    whole = veloflow.run(build, device="numpy")
    assert whole.more["rollbacks"] >= 1
    options = {"device": "numpy", "checkpoint": tmp_path / "run"}
    veloflow.run(build, epochs=3, **options)
    resumed = veloflow.run(build, epochs=6, resume=True, **options)
    assert resumed.epochs == whole.epochs


@pytest.mark.parametrize(
    "make",
    [
        lambda wf: OnPlateau(wf, factor=1.0),
        lambda wf: OnPlateau(wf, patience=0),
        lambda wf: OnPlateau(wf, smallest=2),
        lambda wf: Rollback(wf, plus=0.9),
        lambda wf: Rollback(wf, minus=0.0),
    ],
)
def test_options_without_sense(make):
    with pytest.raises(InputError):
        make(workflow_on())


def test_watcher_of_nothing():
    with pytest.raises(GraphError, match=r"scales nothing; tell it what: \.add"):
        OnPlateau(workflow_on()).initialize()
