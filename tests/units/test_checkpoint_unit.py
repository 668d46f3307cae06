"""The checkpoint unit: when it asks, and that it asks at the end of a run too."""

from __future__ import annotations

import pytest
from harness import trained, workflow_on
from networks import Given

from veloflow.core import CheckpointWanted, Events
from veloflow.errors import InputError
from veloflow.units import Checkpoint, WineLoader, softmax, standard_workflow, tanh


def asked(*rounds: dict[str, object], state=None, **options):
    """Return the reasons given in rounds of a loop, '' for none, and the unit."""
    wf = workflow_on()
    given = Given(wf, improved=False, epoch_ended=False, epoch_number=0)
    unit = Checkpoint(wf, **options)
    unit.link_data(given, "improved", "epoch_ended", "epoch_number")
    if state is not None:
        unit.restore(state)
    reasons, events = [], []
    wf.find_service(Events).subscribe(CheckpointWanted, events.append)
    for values in rounds:
        events.clear()
        given.give(**{"improved": False, "epoch_ended": False, **values})
        unit.run()
        reasons.append("".join(event.reason for event in events))
    return reasons, unit


BETTER = {"improved": True, "epoch_ended": True}
WORSE = {"epoch_ended": True}


def test_improvement_is_a_reason():
    assert asked(BETTER, {}, WORSE)[0] == ["improved", "", ""]
    assert asked(BETTER, {}, WORSE, on_improvement=False)[0] == ["", "", ""]


def test_every_so_many_epochs():
    rounds = [{**WORSE, "epoch_number": n} for n in range(5)]
    assert asked(*rounds, every_epochs=2)[0] == ["interval", "", "interval", "", "interval"]
    assert asked({"epoch_number": 2}, every_epochs=2)[0] == [""]


def test_every_so_many_minibatches():
    assert asked(*[{}] * 5, every_minibatches=2)[0] == ["", "interval", "", "interval", ""]


def test_one_round_asks_once():
    assert asked(BETTER, every_epochs=1, every_minibatches=1)[0] == ["improved"]


def test_restored_unit_goes_on_counting():
    _, unit = asked({}, every_minibatches=3)
    assert asked({}, {}, every_minibatches=3, state=unit.state())[0] == ["", "interval"]


@pytest.mark.parametrize("options", [{"every_epochs": 0}, {"every_minibatches": -1}])
def test_intervals_without_sense_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Checkpoint(workflow_on(), **options)


def test_run_asks_for_its_last_epoch_too():
    wanted = []

    def build(wf):
        loader = WineLoader(wf, minibatch_size=60)
        units = standard_workflow(
            wf, loader=loader, layers=[tanh(4), softmax(3)], max_epochs=3, checkpoint_epochs=3
        )
        units.checkpoint.on_improvement = False
        wf.find_service(Events).subscribe(CheckpointWanted, wanted.append)

    trained(build)
    assert wanted == [CheckpointWanted("interval")]
