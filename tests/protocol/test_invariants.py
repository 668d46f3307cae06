"""The invariants: a state that is broken on purpose is seen, and named."""

from __future__ import annotations

import pytest

from tests.protocol.test_master import Stage, hello, pieces
from tests.protocol.test_slave import Stage as SlaveStage
from tests.protocol.test_slave import job
from veloflow.protocol.events import Heard, StopAsked
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import Failure, LeaseId
from veloflow.protocol.slave import State as SlaveState
from veloflow.protocol.slaves import State


def at_work():
    stage = Stage(b"a", b"b")
    stage(pieces(6))
    return stage.master


def _forget_debts(master):
    slave = master.crowd.by_client[b"a"]
    slave.owed.clear()
    master.crowd.place(slave)


def _forget_when_late(master):
    master._dealer._due.clear()


def _let_one_wait(master):
    for slave in master.crowd:
        slave.capacity = 5
        master.crowd.place(slave)


def _bar_what_is_done(master):
    master._dealer.bar(77, "s1")


def _wish_what_is_done(master):
    master._dealer.wishes[78] = "s1"


def _share_what_is_done(master):
    master._dealer.shared.add(79)


def _watch_nobody(master):
    master._watch._plan.clear()


def _lose_a_place(master):
    master.crowd.by_client[b"a"].capacity = 5


def _place_a_ghost(master):
    master.crowd._placed["ghost"] = 0


def _be_free_twice(master):
    master.crowd._free[0]["s1"] = None


def _steal_from_who_has_nothing(master):
    master.crowd.by_client[b"a"].state = State.SUSPECT


def _be_late_and_wait(master):
    master._dealer._late[4] = None


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (_forget_debts, "s1 does not owe"),
        (_forget_when_late, "nobody sees when"),
        (_let_one_wait, r"piece 4 waits, and so do \['s1', 's2'\]"),
        (_bar_what_is_done, "piece 77 is done and not forgotten"),
        (_wish_what_is_done, "piece 78 is done and not forgotten"),
        (_share_what_is_done, "piece 79 is done and not forgotten"),
        (_watch_nobody, "nobody watches"),
        (_lose_a_place, "misplaced"),
        (_place_a_ghost, "somebody who is gone may get work"),
        (_be_free_twice, "somebody is free twice"),
        (_steal_from_who_has_nothing, "nothing to take from"),
        (_be_late_and_wait, "piece 4 is late and waits"),
    ],
)
def test_a_broken_master_is_seen(breaking, words):
    master = at_work()
    master.validate()
    breaking(master)
    with pytest.raises(AssertionError, match=words):
        master.validate()


def test_a_broken_slave_is_seen():
    stage = SlaveStage()
    stage.gets(0, 1)
    stage.slave.begin()
    stage.slave._queue[LeaseId(0, 0)] = job(0)
    with pytest.raises(AssertionError, match=r"^a job computed waits too"):
        stage.slave.validate()
    del stage.slave._queue[LeaseId(0, 0)]
    stage.slave.validate()
    stage.slave.state = SlaveState.DRAINING
    with pytest.raises(AssertionError, match=r"^it leaves and keeps jobs"):
        stage.slave.validate()


def test_the_last_word_is_the_second_failure():
    stage = Stage(b"a", b"b")
    stage(pieces(1))
    lease = LeaseId(0, 0)
    assert not stage.master.is_last_word(b"a", lease)
    assert not stage.master.is_last_word(b"nobody", lease)
    assert not stage.master.is_last_word(b"a", LeaseId(9, 0))
    stage.says(b"a", Failure(lease, "unit", "why"))
    assert stage.master.is_last_word(b"b", LeaseId(0, 1))
    assert stage.master.is_last_word(b"a", LeaseId(0, 1))


def test_only_what_is_audited_needs_a_digest():
    for share, is_audited in ((0.0, False), (1.0, True)):
        master = Master(MasterSettings("run", "same", audit=share))
        master.handle(Heard(b"a", hello(), is_local=True), 0.0)
        master.handle(pieces(1), 0.0)
        assert master.is_audited(0) is is_audited


def test_the_story_is_not_endless():
    stage = Stage()
    for n in range(3000):
        stage.master.handle(Heard(b"%d" % n, hello(), is_local=True), 0.0)
        stage.master.handle(Heard(b"%d" % n, hello(former="x"), is_local=True), 0.0)
    assert len(stage.master._chronicle._told) == 4096
    stage(StopAsked(""))
