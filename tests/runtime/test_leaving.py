"""Slaves that are asked to leave, as engines ask before they take a node away: all comes back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter

import numpy as np
import pytest

import veloflow
from tests.runtime import slaves
from veloflow.core import EpochDone, Message
from veloflow.runtime.transport.left_out import LeftOut

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

#: no run is longer; it is over when all was seen
_MOST_EPOCHS = 4000
#: in which others send what those have left out
_MORE_EPOCHS = 20
#: who has done so many has trained, and has left something out
_JOBS = 20


class Leavers:
    """Asks two slaves that have worked to leave, one after the other; then ends the run.

    Those that join over TCP it starts itself.
    """

    def __init__(self, story):
        self.started = []
        self.story, self.epoch = story, 0
        self.names, self.left, self.asked = {}, [], []

    def watch(self, session):
        self.decision = session.workflow["DecisionGD"]
        session.events.subscribe(Message, self.hear)
        session.events.subscribe(EpochDone, self.ask)

    def hear(self, message):
        words = message.text.split()
        if "slaves join with: " in message.text:
            self.started = [
                subprocess.Popen(
                    [*slaves.VELOFLOW, "slave", words[-1], "-q", "--name", f"tcp{one}"]
                )
                for one in range(3)
            ]
        if " joined: " in message.text:
            self.names[words[1]] = words[3]
        if " is left: " in message.text:
            self.left.append(words[1])
            if len(self.left) == 2:
                self.decision.max_epochs = self.epoch + _MORE_EPOCHS

    def ask(self, event):
        self.epoch = event.record["epoch"]
        if len(self.asked) == 2 or len(self.left) < len(self.asked):
            return
        told = [line.split() for line in self.story.read_text().splitlines()]
        done = Counter(who.rstrip(":") for _, who, what, *_ in told if what == "did")
        ready = [one for one, jobs in done.items() if jobs >= _JOBS and one not in self.asked]
        if len(self.names) >= 3 and ready:
            (pid,) = slaves.children(self.names[ready[0]])
            os.kill(pid, signal.SIGTERM)
            self.asked.append(ready[0])


@pytest.fixture
def handed(monkeypatch):
    """Note what slaves that are gone have left out, and what others are given of it or will be."""
    gone, given, everywhere = [], [], set()
    inherit, take = LeftOut.inherit, LeftOut.take

    def note_gone(self, client):
        everywhere.add(self)
        gone.extend(self._known(client))
        inherit(self, client)

    def note_given(self, client, lease, expected):
        residual = take(self, client, lease, expected)
        if residual is not None:
            given.append(residual.copy())
        return residual

    monkeypatch.setattr(LeftOut, "inherit", note_gone)
    monkeypatch.setattr(LeftOut, "take", note_given)
    return gone, lambda: given + [one for each in everywhere for one in each.orphans.all()]


@pytest.mark.parametrize("way", ["shared memory", "messages", "tcp"])
@pytest.mark.parametrize("mode", ["async", "average:4", "elastic:0.3,4"])
def test_who_is_asked_to_leave_hands_back_what_it_has(mode, way, handed, tmp_path, monkeypatch):
    """Its pieces, and what its codec has left out of what it has learnt by itself."""
    if way != "shared memory":
        monkeypatch.setenv("VELOFLOW_NO_SHARED_MEMORY", "1")
    story = tmp_path / "story"
    leavers = Leavers(story)
    result = veloflow.run(
        "digits_mlp", device="numpy", epochs=_MOST_EPOCHS, hidden=20, sharing=mode, codec="onebit",
        story=story, watch=leavers.watch,
        **({"listen": ["tcp://127.0.0.1:0"]} if way == "tcp" else {"slaves": 3}),
    )  # fmt: skip
    assert [one.wait(20) for one in leavers.started] == [0] * len(leavers.started)
    assert leavers.left == leavers.asked
    assert len(leavers.left) == 2
    assert len(result.epochs) < _MOST_EPOCHS

    # nothing is done twice or lost
    assert {one["train"]["samples"] for one in result.epochs[1:]} == {1437}
    assert result.epochs[-1]["validation"]["error_percent"] < 40
    told = [line.split() for line in story.read_text().splitlines()]
    leases = [(who, what, lease) for _, who, what, *rest in told for lease in rest[:1]]
    done = {lease.partition(".")[0] for _, what, lease in leases if what == "did"}
    for slave in leavers.left:
        assert {
            lease.partition(".")[0]
            for who, what, lease in leases
            if who == f"{slave}:" and what == "got"
        } <= done
        assert f"{slave}: left: it leaves in good order;" in story.read_text()

    # what they have left out is sent by others, at once or when there are three slaves again
    gone, given = handed
    assert len(gone) == 2
    assert all(one.any() for one in gone)
    for one in gone:
        assert any(np.array_equal(one, other) for other in given())
