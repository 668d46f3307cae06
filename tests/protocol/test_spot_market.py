"""A recorded spot market in virtual time: how much of what slaves offer is work that counts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from spot_trace import SECONDS, counts, visits

from veloflow.sharing.policies import parse_sharing
from veloflow.testing import FaultPlan, Simulation


def market(seconds=SECONDS, *, sharing=None, pieces=1000, work=(5.0, 10.0), notice=0.0, seed=0):
    """Run the market; return the outcome.

    Each round of ``pieces`` ends before the next begins. With a mode of ``sharing`` only as many
    are under way as it allows, otherwise all of them.
    """
    return Simulation(
        seed, plan=FaultPlan(), slaves=0, visits=visits(seconds=seconds, notice=notice, seed=seed),
        epochs=10**6, samples=pieces, size=1, audit=0.0, works=False, work=work, until=seconds,
        policy=parse_sharing(sharing) if sharing else None, patience=4.0, limit=1e6,
        is_checked=False,
    ).run()  # fmt: skip


def test_the_trace_is_lively():
    there = visits()
    assert len(there) == 62
    assert max(count for _, count in counts()) == 12
    assert sum(one.ends - one.begins < 600 for one in there) > 20
    assert sum(one.ends < SECONDS for one in there) == 50, "so many are taken away"


def test_visits_add_up_to_the_trace():
    steps = [*counts(), (SECONDS, 0)]
    total = sum((then - at) * count for (at, count), (then, _) in pairwise(steps))
    assert sum(one.ends - one.begins for one in visits()) == total


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [None, "async"])
def test_half_an_hour_of_the_market_is_useful_work(sharing):
    outcome = market(1800, sharing=sharing)
    assert outcome.offered > 4 * 3600
    assert outcome.useful >= 0.95 * outcome.offered


@pytest.mark.stress
@pytest.mark.parametrize(
    ("least", "settings"),
    [
        (0.95, {}),
        (0.95, {"sharing": "async"}),
        (0.95, {"notice": 30.0}),
        (0.95, {"work": (30.0, 60.0)}),
        (0.95, {"pieces": 200}),
        (0.85, {"pieces": 48}),  # four pieces a slave between two barriers
    ],
)
def test_three_hours_of_the_market(least, settings):
    outcome = market(**settings)
    share = outcome.useful / outcome.offered
    print(f"\n{settings}: {share:.4f} of {outcome.offered / 3600:.2f} slave hours, "
          f"{len(outcome.applied)} pieces, {outcome.counters['lost']} slaves lost")  # fmt: skip
    assert share >= least
