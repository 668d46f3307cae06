"""How many slaves a run should have: bounds, growth, shrinking, and whole runs with losses."""

from __future__ import annotations

import random

import pytest

from veloflow.errors import OptionError
from veloflow.protocol.elasticity import Bounds, Elasticity
from veloflow.testing import FaultPlan, Simulation


@pytest.mark.parametrize(
    ("text", "least", "most"), [("3", 3, 3), (3, 3, 3), ("0", 0, 0), ("2:8", 2, 8), ("1:1", 1, 1)]
)
def test_bounds_are_read(text, least, most):
    assert Bounds.parse(text) == Bounds(least, most)
    assert Bounds.parse(text).is_elastic == (least < most)


@pytest.mark.parametrize("text", ["", "x", "2:", ":2", "8:2", "0:4", "-1", "1:2:3", "1.5", "²"])
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
