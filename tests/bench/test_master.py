"""The master's own cost: of an event with few and with many slaves, and 100 real processes."""

from __future__ import annotations

import statistics
import time

import pytest

import veloflow
from tests.bench.test_cluster import EMPTY
from veloflow.protocol.events import Grant, Heard, WorkAdded
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import PROTOCOL, Hello, Piece, Update

pytestmark = [pytest.mark.bench, pytest.mark.cluster]

EVENTS = 20_000


def event_cost(slaves: int) -> float:
    """Seconds for an update with its next grant and the new piece, with so many slaves."""
    master = Master(MasterSettings("run", "same"))
    for number in range(slaves):
        name = str(number).encode()
        master.handle(Heard(name, Hello(PROTOCOL, "same", "n", "null", "cpu", "h", number)), 0.0)
    pieces = iter(range(10**9))
    waiting: list[Grant] = []

    def add(count: int) -> None:
        work = WorkAdded(tuple(Piece(next(pieces), 0, 2, 0, 1) for _ in range(count)))
        waiting.extend(one for one in master.handle(work, 0.0) if isinstance(one, Grant))

    add(3 * slaves)
    began = time.perf_counter()
    for turn in range(EVENTS):
        grant = waiting[turn]
        update = Update(grant.lease, {}, (), 0.001)
        actions = master.handle(Heard(grant.client, update), 1e-3 * turn / slaves)
        waiting.extend(one for one in actions if isinstance(one, Grant))
        add(1)
    return (time.perf_counter() - began) / EVENTS


def test_an_event_costs_the_same_with_many_slaves(capsys):
    costs = {
        slaves: statistics.median(event_cost(slaves) for _ in range(3))
        for slaves in (10, 100, 1000)
    }
    with capsys.disabled():
        words = [f"{1e6 * cost:.1f} us with {n} slaves" for n, cost in costs.items()]
        print("\nan update and a new piece in the pure master:", ", ".join(words))


def test_a_hundred_real_slaves(tmp_path, capsys):
    own = tmp_path / "empty.py"
    own.write_text(EMPTY)
    began = time.perf_counter()
    result = veloflow.run(str(own), slaves=100, device="numpy", patience=3)
    jobs = [one["jobs"] for one in result.more["slaves"]]
    with capsys.disabled():
        print(
            f"\n{len(jobs)} slaves, {sum(one > 0 for one in jobs)} did jobs, "
            f"{result.more['rate']:.0f} empty jobs/s, {time.perf_counter() - began:.0f} s in all, "
            f"{result.more['jobs']}"
        )
