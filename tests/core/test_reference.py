"""The run loop against a naive interpreter of its rules, on thousands of random graphs."""

from __future__ import annotations

from collections import Counter

import pytest
from random_graphs import ending, interpret, make_world

CHUNK = 250


def compare(seed: int, *, surgery: bool) -> str:
    """Run the world of a seed both ways; return how it ended."""
    expected = make_world(seed, surgery=surgery)
    end = ending(lambda: interpret(expected.workflow))
    if end == "endless":  # a loop in which every unit is skipped
        return end
    world = make_world(seed, surgery=surgery)
    flow = world.workflow.flow
    flow.start()
    assert ending(flow.run) == end, f"seed {seed}"
    assert world.trace == expected.trace, f"seed {seed}"
    runs = {path: time.runs for path, time in flow.times().items() if path not in ("start", "end")}
    counted = Counter(expected.trace[:-1] if end == "enough" else expected.trace)
    assert runs == {actor.name: counted[actor.name] for actor in world.actors}, f"seed {seed}"
    return end


@pytest.mark.slow
@pytest.mark.parametrize("surgery", [False, True], ids=["fixed", "changing"])
@pytest.mark.parametrize("first", range(0, 8 * CHUNK, CHUNK))
def test_units_run_in_the_order_that_the_rules_say(first, surgery):
    ends = Counter(compare(seed, surgery=surgery) for seed in range(first, first + CHUNK))
    assert ends["endless"] < CHUNK // 10
    for end in ("stalled", "finished", "enough"):  # else the graphs say nothing
        assert ends[end] > CHUNK // 50
