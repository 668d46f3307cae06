"""How many slaves a run should have: bounds, growth, shrinking, and whole runs with losses."""

from __future__ import annotations

import random

import pytest

from tests.protocol.test_master import hello, pieces
from veloflow.errors import OptionError
from veloflow.protocol.elasticity import Bounds, Elasticity, Scaling
from veloflow.protocol.events import STAND_IN, Say, Want
from veloflow.protocol.ledger import Ledger
from veloflow.protocol.messages import LeaseId
from veloflow.protocol.slaves import Crowd, Slave
from veloflow.testing import FaultPlan, Simulation


@pytest.mark.parametrize(
    ("text", "least", "most"), [("3", 3, 3), (3, 3, 3), ("0", 0, 0), ("2:8", 2, 8), ("1:1", 1, 1),
     ("1:999999", 1, 999999)],
)  # fmt: skip
def test_bounds_are_read(text, least, most):
    assert Bounds.parse(text) == Bounds(least, most)
    assert Bounds.parse(text).is_elastic == (least < most)


@pytest.mark.parametrize(
    "text", ["", "x", "2:", ":2", "8:2", "0:4", "-1", "1:2:3", "1.5", "²", "1000000", "1:1000000"]
)
def test_what_are_no_bounds_is_refused(text):
    with pytest.raises(OptionError, match="--slaves"):
        Bounds.parse(text)


class Market:
    """A queue whose pieces take a second, and slaves that come some seconds after they are wanted.

    It is stepped in tenths of a second, and keeps what the machine wanted.
    """

    def __init__(self, least, most, *, start=2.0):
        self.machine = Elasticity(Bounds(least, most))
        self.now, self.start = 0.0, start
        self.coming = [start] * least
        self.changes = []

    def run(self, seconds, demand):
        """Let time pass; ``demand`` is how many slaves have work at a time, of the time."""
        until = self.now + seconds
        while self.now < until:
            here = sum(at <= self.now for at in self.coming)
            needed = demand(self.now)
            wanted = self.machine.look(
                self.now, behind=max(0, needed - here), idle=max(0, here - needed), present=here
            )
            if wanted is not None:
                self.changes.append((self.now, wanted))
                self.coming = self.coming[:wanted]
                self.coming += [self.now + self.start] * (wanted - len(self.coming))
            self.now += 0.1


def test_it_grows_to_what_waits_and_no_further():
    market = Market(1, 8)
    market.run(60, lambda now: 4)
    assert market.changes[-1][1] == 4
    assert market.changes[-1][0] < 15
    market.run(600, lambda now: 4)
    assert market.machine.wanted == 4, "it goes up and down where nothing changes"


def test_it_waits_for_those_that_were_asked_for():
    market = Market(1, 64, start=10.0)
    market.run(30, lambda now: 4)
    assert [wanted for _, wanted in market.changes] == [2, 4]


def test_where_none_come_it_asks_again_after_a_while_and_keeps_to_the_most():
    market = Market(1, 4, start=1e9)
    market.run(120, lambda now: 100)
    assert [wanted for _, wanted in market.changes] == [2, 4]
    assert market.changes[1][0] - market.changes[0][0] >= 14


def test_only_who_was_idle_at_every_moment_goes():
    market = Market(1, 8)
    market.run(60, lambda now: 6)
    market.run(120, lambda now: 6 if int(now) % 20 == 0 else 1)  # a second of need every 20
    assert market.machine.wanted == 6
    market.run(120, lambda now: 2)
    assert market.machine.wanted == 2
    market.run(300, lambda now: 0)
    assert market.machine.wanted == 1


def test_short_bursts_start_nobody():
    market = Market(2, 8)
    market.run(60, lambda now: 5 if now % 5 < 0.3 else 2)
    assert market.changes == []


@pytest.mark.parametrize("seed", range(20))
def test_any_load_keeps_within_bounds_and_is_followed(seed):
    chance = random.Random(seed)
    least = chance.randint(1, 4)
    most = least + chance.randint(1, 12)
    market = Market(least, most, start=chance.uniform(0.1, 5.0))
    for _ in range(10):
        need = chance.randint(0, 20)
        market.run(240, lambda now, need=need: need)
        assert market.machine.wanted == min(most, max(least, need))
    assert all(least <= wanted <= most for _, wanted in market.changes)


def changes(machine, until, patience=1.0, **seen):
    """Show the same to a machine every quarter of a second; return when it wanted what."""
    looks = ((step / 4, machine.look(step / 4 * patience, **seen)) for step in range(4 * until))
    return [(at, wanted) for at, wanted in looks if wanted is not None]


@pytest.mark.parametrize("patience", [1.0, 2.0, 0.5])
def test_one_knob_scales_all_waiting(patience):
    machine = Elasticity(Bounds(1, 4), patience)
    # 15 s for those that were asked for, 3 s to see what waits, and again
    asked = changes(machine, 60, patience, behind=10, idle=0, present=0)
    assert asked == [(18.0, 2), (36.0, 4)]

    machine = Elasticity(Bounds(1, 4), patience)
    assert changes(machine, 4, patience, behind=10, idle=0, present=1) == [(3.0, 2)]


def test_who_was_idle_for_half_a_minute_goes():
    machine = Elasticity(Bounds(1, 4), 2.0)
    machine.look(0.0, behind=1, idle=0, present=1)
    assert machine.look(6.0, behind=0, idle=0, present=1) == 2
    for now in (6.25, 36.0, 65.75):
        assert machine.look(now, behind=0, idle=1, present=2) is None
    assert machine.deadline == 66.0
    assert machine.look(66.0, behind=0, idle=1, present=2) == 1


def test_half_a_piece_that_waits_is_worth_a_slave():
    for until, wanted in ((1.5, 2), (1.25, None)):
        machine = Elasticity(Bounds(1, 4))
        machine.look(0.0, behind=1, idle=0, present=1)
        machine.look(until, behind=0, idle=0, present=1)
        assert machine.look(3.0, behind=0, idle=0, present=1) == wanted


def test_no_more_come_than_pieces_wait():
    machine = Elasticity(Bounds(4, 16))
    assert changes(machine, 4, behind=1, idle=0, present=4) == [(3.0, 5)]


def test_nothing_is_decided_where_all_are_here_and_at_work():
    machine = Elasticity(Bounds(1, 2))
    assert machine.deadline is None
    assert changes(machine, 4, behind=9, idle=0, present=1) == [(3.0, 2)]
    changes(machine, 8, behind=9, idle=0, present=2)
    machine.look(20.0, behind=9, idle=0, present=2)
    assert machine.deadline is None


class Masters:
    """The ledger and the crowd of a master, and what their sizes make it want."""

    def __init__(self, bounds, waiting, patience=1.0):
        self.ledger, self.crowd = Ledger(), Crowd()
        if waiting:
            self.ledger.add(pieces(waiting).pieces)
        self.scaling = Scaling(self.ledger, self.crowd, bounds, patience)

    def joins(self, name, *, owes=False, client=None):
        client = client or name.encode()
        slave = Slave(name, client, hello(name), False, 1, 0.0, 0.0)
        slave.owed = {LeaseId(0, 0): (0, 10)} if owes else {}
        self.crowd.add(slave)


@pytest.mark.parametrize("bounds", [None, Bounds(2, 2)])
def test_a_fixed_number_of_slaves_is_left_alone(bounds):
    master = Masters(bounds, 9)
    for now in (0.0, 3.0, 30.0):
        assert master.scaling.watch(now) == []
        assert master.scaling.deadline is None


def test_who_is_to_come_and_to_go_is_said_with_the_reason():
    master = Masters(Bounds(1, 4), 2)
    master.joins("a", owes=True)
    assert master.scaling.watch(0.0) == []
    assert master.scaling.deadline == 3.0
    more = Say("info", "2 slaves are wanted, not 1: work waits")
    assert master.scaling.watch(3.0) == [more, Want(2)]
    master.joins("b")
    master.crowd.remove(master.crowd.by_id["a"])
    master.joins("c")
    for number in (0, 1):
        master.ledger.lease("c")
        master.ledger.complete(LeaseId(number, 0), "c")
        master.ledger.forget(number)
    assert not len(master.ledger)
    assert master.scaling.watch(4.0) == []
    fewer = Say("info", "1 slaves are wanted, not 2: 1 had nothing to do for long")
    assert master.scaling.watch(33.0) == [fewer, Want(1)]


@pytest.mark.parametrize(("count", "wanted"), [(0, []), (1, []), (2, [4]), (4, [6]), (5, [6])])
def test_each_piece_without_a_slave_of_its_own_counts(count, wanted):
    master = Masters(Bounds(3, 8), count)
    master.joins("a", owes=True)
    master.joins("b")
    master.joins("c")
    said = [one for now in (0.0, 3.0) for one in master.scaling.watch(now)]
    assert [one.count for one in said if isinstance(one, Want)] == wanted


def test_the_master_that_computes_itself_is_no_slave():
    master = Masters(Bounds(1, 2), 9)
    master.joins("a", client=STAND_IN)
    for now in (0.0, 3.0, 15.0):
        assert master.scaling.watch(now) == [], "the first one may still come"
    assert master.scaling.watch(18.0)[-1] == Want(2)


def test_the_patience_of_a_run_is_that_of_its_scaling():
    master = Masters(Bounds(1, 2), 9, patience=2.0)
    master.joins("a", owes=True)
    master.scaling.watch(0.0)
    assert master.scaling.deadline == 6.0


@pytest.mark.parametrize("seed", range(4))
def test_a_run_grows_while_work_waits_and_loses_none(seed):
    plan = FaultPlan.parse("kill=0.02,leave=0.01,hang=0.005")
    outcome = Simulation(
        seed, plan=plan, slaves=1, most=6, epochs=2, samples=600, audit=0.0, works=False,
        work=(0.1, 0.3),
    ).run()  # fmt: skip
    assert outcome.events["grown"] >= 2


def test_a_run_gives_slaves_up_that_it_does_not_need():
    # many pieces at first; then epochs of one piece, for which all but one slave are idle
    outcome = Simulation(
        0, plan=FaultPlan(), slaves=1, most=4, epochs=12, samples=10, size=10, audit=0.0,
        works=False, work=(20.0, 21.0), patience=0.5, limit=1e5,
    ).run()  # fmt: skip
    assert outcome.events["grown"] == 0, "one piece at a time needs one slave"


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(300))
def test_many_runs_that_grow_and_shrink(seed):
    Simulation(seed, slaves=1 + seed % 3, most=4 + seed % 5, samples=400, work=(0.05, 0.3)).run()
