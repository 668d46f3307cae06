"""Work and nobody to do it: what is said, once each, and who computes in the end."""

from __future__ import annotations

import pytest

from tests.protocol.test_master import hello, pieces
from veloflow.protocol.events import STAND_IN, Recruit, Say, StandDown, StandIn
from veloflow.protocol.hunger import Hunger
from veloflow.protocol.ledger import Ledger
from veloflow.protocol.slaves import Crowd, Slave


class Judges:
    """The audit and the dealer as far as they are asked: what is disputed, and who could judge."""

    def __init__(self):
        self.disputed = {}
        self.others = set()

    def kind_of(self, number):
        return ("cpu", "x86") if number in self.disputed else None

    def has_other(self, number):
        return number in self.others


class Stage:
    """A master's parts that hunger looks at."""

    def __init__(self, count=1, *, works=True, patience=1.0):
        self.ledger, self.crowd, self.judges = Ledger(), Crowd(), Judges()
        if count:
            self.ledger.add(pieces(count).pieces)
        self.hunger = Hunger(
            self.ledger, self.crowd, self.judges, self.judges, works=works, patience=patience
        )
        self.watch = self.hunger.watch

    def joins(self, name, client=b"c"):
        slave = Slave(name, client, hello(name), False, 1, 0.0, 0.0)
        self.crowd.add(slave)
        return slave


@pytest.mark.parametrize("patience", [1.0, 4.0])
def test_the_master_computes_itself_after_a_while_and_until_a_slave_joins(patience):
    stage = Stage(patience=patience)
    assert stage.hunger.deadline is None
    warning = "no slaves yet; the master computes itself until one joins"
    assert stage.watch(1.0) == [Say("warning", warning)]
    due = 1.0 + 2.0 * patience
    assert stage.hunger.deadline == due
    assert stage.watch(due - 0.5) == []
    assert stage.watch(due) == [StandIn()]
    stage.joins("s1", STAND_IN)
    assert stage.hunger.deadline is None, "it computes already"
    assert stage.watch(due + 1) == []
    slave = stage.joins("s2")
    there = Say("info", "there is a slave; the run goes on")
    assert stage.watch(due + 2) == [there, StandDown()]
    assert stage.watch(due + 3) == []
    stage.crowd.remove(slave)
    stage.crowd.remove(stage.crowd.by_id["s1"])
    warning = "no slaves left; the master computes itself until one joins"
    assert stage.watch(due + 4) == [Say("warning", warning)]
    stage.joins("s3")
    assert stage.watch(due + 5) == [there], "the master does not compute: nothing to put down"


def test_a_master_that_does_not_compute_waits():
    stage = Stage(works=False)
    assert stage.watch(1.0) == [Say("warning", "no slaves yet; the run waits until one joins")]
    assert stage.hunger.deadline is None
    assert stage.watch(100.0) == []


def test_nobody_is_missed_where_there_is_no_work():
    stage = Stage(0)
    assert stage.watch(1.0) == []
    assert stage.hunger.deadline is None
    stage.joins("s1")
    assert stage.watch(2.0) == []


def test_one_slave_more_is_asked_for_once_where_nobody_can_judge():
    stage = Stage(3)
    slave = stage.joins("s1")
    stage.judges.disputed = {1: None, 2: None}
    stage.judges.others = {1}
    asked = [Say("warning", "nobody can judge: piece 2 waits for one more (cpu on x86)"), Recruit()]
    assert stage.watch(1.0) == asked
    assert stage.watch(2.0) == []
    stage.judges.others = {1, 2}  # one has come
    assert stage.watch(3.0) == []
    stage.judges.others = {1}  # and gone
    assert stage.watch(4.0) == asked
    stage.judges.disputed = {}  # it is settled, without anybody else
    assert stage.watch(5.0) == []
    stage.judges.disputed = {2: None}
    assert stage.watch(6.0) == asked
    stage.ledger.lease_this(2, slave.id)  # somebody judges
    assert stage.watch(7.0) == []
