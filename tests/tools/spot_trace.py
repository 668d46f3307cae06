"""A recorded spot market: which slots have a machine, and when it comes and is taken away."""

from __future__ import annotations

import random
from pathlib import Path

from veloflow.testing import Visit

TRACE = Path(__file__).parents[1] / "data" / "spot-market.csv"
#: the seconds of the trace that are played: 3 hours from its first machine on
BEGINS, SECONDS = 21529, 3 * 3600


def counts():
    """Return the seconds since the beginning, and how many machines there were from then on."""
    lines = TRACE.read_text().splitlines()
    rows = [tuple(map(int, one.split(","))) for one in lines if not one.startswith("#")]
    inside = [(at - BEGINS, count) for at, count in rows if 0 <= at - BEGINS < SECONDS]
    return list(dict(inside).items())  # of two lines for one second, the later holds


def visits(*, slots=12, seconds=SECONDS, pace=1.0, notice=0.0, seed=0):
    """Return the visits of the machines.

    The trace counts machines; which of them goes when there are fewer is by chance.

    Args:
        slots: the market of so many of the recorded twelve places.
        seconds: how much of the trace, in its own time.
        pace: how many times as quick as it was recorded.
        notice: seconds of warning before one is taken away.
        seed: of the choice.
    """
    chance = random.Random(seed)
    present, found = {}, []

    def take_away(slot, now):
        found.append((slot, present.pop(slot), now))

    for at, count in [*((at, count) for at, count in counts() if at < seconds), (seconds, 0)]:
        while len(present) > count:
            take_away(chance.choice(sorted(present)), at)
        while len(present) < count:
            present[chance.choice([one for one in range(12) if one not in present])] = at
    return [
        Visit(begins / pace, ends / pace, notice)
        for slot, begins, ends in sorted(found, key=lambda one: one[1])
        if slot < slots and ends > begins
    ]
