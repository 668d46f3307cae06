"""What a hop between two empty units costs, and what graphs of 10,000 units cost to start."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from veloflow.core import Bool, Repeater, Unit, Workflow

pytestmark = pytest.mark.bench

_ROUNDS = 7


class Nothing(Unit):
    """A unit without work."""

    def run(self) -> None:
        """Do nothing."""


class Counter(Unit):
    """Ends a loop after a number of rounds."""

    def __init__(self, workflow: Workflow, rounds: int) -> None:
        super().__init__(workflow)
        self.rounds = rounds
        self.left = rounds
        self.done = Bool()

    def run(self) -> None:
        """Count down."""
        self.left -= 1
        if not self.left:
            self.done.set(True)


def _chain(length: int) -> Workflow:
    wf = Workflow()
    wf.clock = time.perf_counter_ns
    last: Unit = wf.start
    for _ in range(length):
        last = last >> Nothing(wf)
    last >> wf.end
    return wf


def _alternating(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float]:
    """Return the median seconds of both, measured in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for contestant, found in zip((first, second), times, strict=True):
            start = time.perf_counter()
            contestant()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _report(what: str, hops: int, ours: float, bare: float) -> None:
    print(
        f"\n{what}: {ours / hops * 1e6:.3f} us a hop with gates and times, "
        f"{bare / hops * 1e6:.3f} us for a bare loop that calls the same methods; "
        f"ratio {ours / bare:.2f}"
    )


def test_a_hop_in_a_chain_costs_at_most_a_microsecond() -> None:
    wf = _chain(10_000)
    wf.set_up()
    runs = [unit.run for unit in wf]

    def bare() -> None:
        for run in runs:
            run()

    ours, plain = _alternating(wf.run, bare)
    _report("chain of 10,000 units", 10_000, ours, plain)
    assert ours / 10_000 <= 1e-6


def test_a_hop_in_a_loop_costs_at_most_a_microsecond() -> None:
    rounds = 100_000
    wf = Workflow()
    wf.clock = time.perf_counter_ns
    repeater = Repeater(wf)
    last = wf.start >> repeater
    for _ in range(8):
        last = last >> Nothing(wf)
    counter = Counter(wf, rounds)
    last >> counter >> repeater
    counter >> wf.end
    repeater.gate_block = counter.done
    wf.end.gate_block = ~counter.done
    wf.set_up()
    runs = [unit.run for unit in wf if isinstance(unit, Nothing)] + [repeater.run, wf.start.run]

    def ours() -> None:
        counter.left = rounds
        counter.done.set(False)
        wf.run()

    def bare() -> None:
        for _ in range(rounds):
            for run in runs:
                run()

    found, plain = _alternating(ours, bare)
    _report("loop of 10 units, 100,000 rounds", 10 * rounds, found, plain)
    assert found / (10 * rounds) <= 1e-6


def test_10_000_units_build_check_and_start_within_two_seconds() -> None:
    start = time.perf_counter()
    wf = _chain(10_000)
    built = time.perf_counter()
    wf.set_up()
    wf.flow.start()
    seconds = time.perf_counter() - start
    print(f"\n10,000 units: built in {built - start:.2f} s, running after {seconds:.2f} s")
    assert seconds <= 2
