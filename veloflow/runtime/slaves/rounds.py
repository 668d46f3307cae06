"""A slave's part of a block of rounds: its shards, the sum over all shards, the step."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.runtime.jobs.round_log import LogShape, RoundLog
from veloflow.runtime.jobs.round_order import LOG, ORDER, STEP, SUM, Order, named

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.runtime.slaves.job_form import Workers
    from veloflow.runtime.slaves.mischief import Mischief
    from veloflow.runtime.slaves.replica import Replica

__all__ = ["Rounds", "by_part"]

_TRAIN = 2
#: a member that has left its shard for so many times as long as one's own took, and so many seconds
#: besides, is not waited for any more in this block: its shards are computed here as well
_SLOWER, _SECONDS = 4, 0.03
#: seconds to look for a shard without a rest, then between two looks
_AWAKE, _NAP = 3e-4, 1e-4


class Rounds:
    """Computes blocks, with a log of its own and a look into those of others.

    Args:
        worker: what computes.
        folder: the run's, of shared memory.
        name: of this slave's log.
    """

    def __init__(self, worker: Workers, folder: Path, name: str) -> None:
        self._worker = worker
        self._folder = folder
        self._name = name
        self._shape: LogShape | None = None
        self._own: RoundLog
        self._logs: dict[str, RoundLog] = {}

    def compute(
        self, order: Order, jobs: Mapping[str, Payload], replica: Replica, mischief: Mischief
    ) -> dict[str, Payload]:
        """Compute a member's part of a block, from the state that the replica has.

        Args:
            order: what the part is.
            jobs: payloads by names (see :func:`named`), of all shards of all rounds.
            replica: the parameters that the worker computes with.
            mischief: faults on purpose.
        """
        self._open(order)
        began = time.perf_counter()
        parts = by_part(jobs)
        found: dict[str, Payload] = {}
        absent: set[int] = set()  # members that are not waited for any more
        for at, shards in enumerate(order.shards):
            number, start = order.number(at), time.perf_counter()
            for shard in order.own(at):
                said = self._compute(number, shard, parts[f"{at}.{shard}"])
                found.update({named(at, shard, path): one for path, one in said.items()})
                if at == len(order.shards) - 1 and shard == order.own(at)[-1]:
                    seconds = time.perf_counter() - began
                    mischief.after(seconds, [self._own.gradient(number, shard)])
                self._own.mark(number, shard)
            patience = _SLOWER * (time.perf_counter() - start) + _SECONDS
            for shard in range(shards):
                member = shard % order.members
                if self._find(number, shard) is not None:
                    continue
                if member in absent or not self._wait(number, shard, order.patience * patience):
                    absent.add(member)
                    self._compute(number, shard, parts[f"{at}.{shard}"])
                    self._own.mark(number, shard)
            replica.move([self._gradient(number, shard) for shard in range(shards)])
        state = self._own.state(order.block)
        steps = replica.save(state)
        found[ORDER] = {SUM: float(np.add.reduce(state, dtype=np.float64))}
        if order.member == 0:
            found.update({f"{STEP}/{path}": one for path, one in steps.items()})
        return found

    def _open(self, order: Order) -> None:
        """Have one's own log, and those of others that are there."""
        if self._shape != order.shape:
            self._shape = order.shape
            self._own = RoundLog(self._folder / f"{self._name}{LOG}", order.shape, create=True)
            self._logs = {self._name: self._own}
        self._logs = {name: one for name, one in self._logs.items() if name in order.logs}
        self._logs[self._name] = self._own
        self._missing = [name for name in order.logs if name not in self._logs]

    def _compute(self, number: int, shard: int, jobs: Mapping[str, Payload]) -> dict[str, Payload]:
        said = self._worker.compute(_TRAIN, jobs)
        np.copyto(self._own.gradient(number, shard), self._worker.found)
        return said

    def _find(self, number: int, shard: int) -> RoundLog | None:
        for log in self._logs.values():
            if log.has(number, shard):
                return log
        return None

    def _gradient(self, number: int, shard: int) -> NDArray[Any]:
        log = self._find(number, shard)
        assert log is not None
        return log.gradient(number, shard)

    def _wait(self, number: int, shard: int, patience: float) -> bool:
        """Wait for another's shard; return whether it came."""
        began = time.perf_counter()
        while (waited := time.perf_counter() - began) < patience:
            if self._missing:
                self._look_for_logs()
            for _ in range(8):
                if self._find(number, shard) is not None:
                    return True
                os.sched_yield()
            if waited > _AWAKE:
                time.sleep(_NAP)
        return False

    def _look_for_logs(self) -> None:
        """Open logs that were not there before: a slave makes its own when it begins."""
        assert self._shape is not None
        for name in list(self._missing):
            try:
                self._logs[name] = RoundLog(self._folder / f"{name}{LOG}", self._shape)
            except FileNotFoundError:
                continue
            self._missing.remove(name)


def by_part(jobs: Mapping[str, Payload]) -> dict[str, dict[str, Payload]]:
    """Return payloads by path, by what stands before it: ``round.shard``."""
    parts: dict[str, dict[str, Payload]] = {}
    for name, payload in jobs.items():
        head, _, path = name.partition("/")
        parts.setdefault(head, {})[path] = payload
    return parts
