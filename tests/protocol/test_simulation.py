"""Whole clusters from a seed: whatever goes wrong, each sample is applied exactly once."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from veloflow.protocol.clocks import Clocks
from veloflow.protocol.ledger import Ledger
from veloflow.protocol.messages import Piece
from veloflow.sharing.policies import Auto
from veloflow.testing import FaultPlan, Simulation

#: how many seeds the stress environment runs
MANY = int(os.environ.get("VELOFLOW_SIMULATIONS", "2000"))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, 100))
def test_each_sample_exactly_once(first):
    for seed in range(first, first + 100):
        Simulation(seed).run()


@pytest.mark.stress
@pytest.mark.parametrize("first", range(1000, 1000 + MANY, 500))
def test_each_sample_exactly_once_with_many_seeds(first):
    for seed in range(first, min(first + 500, 1000 + MANY)):
        Simulation(seed).run()


@pytest.mark.parametrize(
    "fault",
    ["kill", "hang", "leave", "fail", "lie", "spoil", "damage", "double", "late", "restart"],
)
def test_one_sort_of_fault_often(fault):
    happened = 0
    for seed in range(20):
        outcome = Simulation(seed, plan=FaultPlan(**{fault: 0.1}), slaves=3).run()
        happened += outcome.events[fault]
    assert happened > 20


@pytest.mark.slow
def test_modes_follow_each_other_while_slaves_are_lost():
    """As ``--sharing auto`` does it; bounds of staleness are checked after each event."""
    happened = Counter()
    for seed in range(60):
        outcome = Simulation(seed, policy=Auto(), audit=0.0, epochs=4, samples=60).run()
        happened.update(outcome.events)
        assert outcome.events["changed"] >= 3
    assert happened["kill"] > 20
    assert happened["restart"] > 5


def test_a_bound_does_not_change_while_pieces_are_under_way():
    ledger = Ledger()
    clocks = Clocks(ledger, 1)
    ledger.add([Piece(0, 0, 2, 0, 1)])
    clocks.granted("a", 0, again=False)
    lease = ledger.lease_this(0, "a")
    with pytest.raises(ValueError, match="while pieces are under way"):
        clocks.change(None)
    ledger.complete(lease.id, "a")
    clocks.change(0)  # its update may not be seen yet
    assert clocks.may_begin("a")


def test_a_seed_replays():
    one, two = Simulation(7).run(), Simulation(7).run()
    assert one == two
    assert Simulation(8).run() != one


def test_without_faults_nothing_is_wasted_but_what_idle_slaves_take():
    outcome = Simulation(1, plan=FaultPlan(), slaves=2).run()
    assert outcome.counters["accepted"] == 20
    assert outcome.counters["late"] <= 2
    assert not outcome.events
