"""Local slaves that are added to a run and taken from it: the same bits, and nobody is replaced."""

from __future__ import annotations

import signal

import pytest

import veloflow
from veloflow.core import EpochDone, Message
from veloflow.errors import Interrupted, OptionError
from veloflow.protocol.events import Want

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EPOCHS = 60


class Scaled:
    """A run whose number of slaves is changed: 3 at its 10th epoch, 1 at its 45th."""

    def __init__(self):
        self.said = []
        self.step = 0

    def watch(self, session):
        """Follow a session."""
        self.session = session
        session.events.subscribe(Message, lambda one: self.said.append(one.text))
        session.events.subscribe(EpochDone, lambda one: self.look())

    def look(self):
        """Change the number when it is time."""
        crew = self.session.farm.crew
        self.step += 1
        if self.step == 10:
            crew._perform([Want(3)])
        elif self.step == 45:
            crew._perform([Want(1)])

    @property
    def joined(self):
        """How many slaves have come."""
        return sum("joined" in one for one in self.said)

    @property
    def left(self):
        """How many slaves have gone in good order."""
        return sum("is left" in one for one in self.said)


def test_slaves_are_added_and_taken_away_and_the_bits_are_the_same():
    options = {"device": "numpy", "sharing": "sync:shards=4", "hidden": 20, "epochs": EPOCHS}
    alone = veloflow.run("digits_mlp", **options)
    scaled = Scaled()
    run = veloflow.run("digits_mlp", slaves="1:3", watch=scaled.watch, **options)
    assert run.parameters_sha256 == alone.parameters_sha256
    assert not any("died" in one or "ended before" in one for one in scaled.said), scaled.said
    # on a busy machine the run may be over before they have come: then there are fewer to leave
    assert scaled.joined - scaled.left == 1


def test_a_run_asks_for_slaves_while_its_work_waits():
    """A layer that a slave is long at; the run goes on until it has asked."""
    scaled = Scaled()
    asked = "2 slaves are wanted, not 1: work waits"

    def look():
        if any(asked in one for one in scaled.said):
            signal.raise_signal(signal.SIGINT)

    scaled.look = look
    with pytest.raises(Interrupted):
        veloflow.run(
            "digits_mlp", device="numpy", slaves="1:2", patience=0.3, epochs=90, hidden=3000,
            watch=scaled.watch,
        )  # fmt: skip


def test_bounds_that_are_none_are_refused():
    with pytest.raises(OptionError, match="MIN:MAX"):
        veloflow.run("digits_mlp", slaves="3:x")
