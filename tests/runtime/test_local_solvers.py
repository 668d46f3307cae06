"""Solvers with a state where slaves take the steps: what is averaged, and what each keeps."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from veloflow.runtime.master.simulated_crew import VirtualCluster
from veloflow.runtime.storage.checkpoint import read_checkpoint

OWN = """
from veloflow.units import *
def build(wf, *, solver: str = "adam", rate: float = 0.002, epochs: int = 1) -> None:
    standard_workflow(wf, loader=DigitsLoader(wf, minibatch_size=60),
        layers=[tanh(20), softmax(10)], learning_rate=rate, solver=solver, max_epochs=epochs)
"""

#: solver -> a rate at which it learns the digits
RATES = {"adam": 0.002, "adamw": 0.002, "rmsprop": 0.002, "adagrad": 0.03, "adadelta": 1.0}


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def run(own, sharing, **options):
    return veloflow.run(own, device="numpy", sharing=sharing, **options)


def losses(result):
    return [one["validation"]["loss"] for one in result.epochs]


@pytest.mark.parametrize("solver", RATES)
def test_one_stretch_after_another_is_plain_training(own, solver):
    """Slots and step numbers go on from stretch to stretch, whatever their length."""
    options = {"solver": solver, "rate": RATES[solver]}
    alone = losses(run(own, "sync:shards=1", **options))
    assert alone[-1] < 0.95 * alone[0]
    for every in (1, 7):
        averaged = run(own, f"average:every={every},parts=1", **options)
        assert losses(averaged) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("solver", RATES)
@pytest.mark.parametrize(
    "mode", ["average:4,parts=3", "average:4,parts=3,momentum=reset", "elastic:0.9,4,parts=3"]
)
def test_three_that_train_by_themselves_learn(own, mode, solver):
    found = losses(run(own, mode, solver=solver, rate=RATES[solver], epochs=3))
    assert np.isfinite(found).all()
    assert found[-1] < 0.9 * found[0]


def slots(folder):
    return {
        name: array
        for name, array in read_checkpoint(folder / "last.safetensors").parameters.items()
        if "@" in name
    }


def test_means_of_squares_are_averaged_with_the_parameters(own, tmp_path):
    run(own, "average:4,parts=3", checkpoint=tmp_path / "c")
    found = slots(tmp_path / "c")
    assert {name.partition("@")[2] for name in found} == {"mean", "squares"}
    squares = [array for name, array in found.items() if name.endswith("@squares")]
    assert all(array.min() >= 0 for array in squares)
    assert any(array.max() > 0 for array in squares)


def test_of_elastic_replicas_each_keeps_its_own(own, tmp_path):
    run(own, "elastic:0.9,4,parts=2", checkpoint=tmp_path / "c")
    assert not any(array.any() for array in slots(tmp_path / "c").values())  # of the centre
    saved = read_checkpoint(tmp_path / "c" / "last.safetensors").units["|sharing"]
    one, other = saved["replicas"]
    size = one.size // 3  # parameters, means, means of squares
    assert one[size:].any()
    assert (one[2 * size :] >= 0).all()
    assert not np.array_equal(one[size:], other[size:])


def test_steps_count_from_the_zeros_that_a_replica_begins_with(own, tmp_path):
    """Otherwise Adam takes its mean of squares for an old one, and leaps."""
    run(own, "elastic:0.9,4", checkpoint=tmp_path / "c", cluster=VirtualCluster(2), epochs=2)
    more = run(
        own, "elastic:0.9,4", checkpoint=tmp_path / "c", resume=True, epochs=3,
        cluster=VirtualCluster(4),
    )  # fmt: skip
    saved = read_checkpoint(tmp_path / "c" / "last.safetensors").units["|sharing"]
    lengths = saved["lengths"]
    assert len(lengths) == 4
    assert max(lengths[2:]) < min(lengths[:2])
    assert losses(more)[-1] < losses(more)[-2]


def test_a_stretch_that_begins_with_zeros_takes_adam_s_first_step(own):
    """At a period of 1 each step is a first one: as long as the rate."""
    result = run(own, "average:every=1,parts=1,momentum=reset", rate=1e-3)
    alone = run(own, "sync:shards=1", rate=1e-3)
    # when steps were counted through, these were half as long: 9 % more loss than alone
    assert losses(result)[-1] < losses(alone)[-1]
