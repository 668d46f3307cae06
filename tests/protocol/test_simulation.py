"""Whole clusters from a seed: whatever goes wrong, each sample is applied exactly once."""

from __future__ import annotations

import os

import pytest

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


def test_a_seed_replays():
    one, two = Simulation(7).run(), Simulation(7).run()
    assert one == two
    assert Simulation(8).run() != one


def test_without_faults_nothing_is_wasted_but_what_idle_slaves_take():
    outcome = Simulation(1, plan=FaultPlan(), slaves=2).run()
    assert outcome.counters["accepted"] == 20
    assert outcome.counters["late"] <= 2
    assert not outcome.events
