"""A slave's part of a block of rounds: its shards, the sum over all shards, the step."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from veloflow.protocol.messages import Data, FrameHeader
from veloflow.runtime.jobs.round_log import MOST_WORDS, LogShape, RoundLog
from veloflow.runtime.jobs.round_order import LOG, ORDER, STEP, SUM, Order, named
from veloflow.runtime.transport.payloads import pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.runtime.slaves.job_form import Workers
    from veloflow.runtime.slaves.mischief import Mischief
    from veloflow.runtime.slaves.replica import Replica

__all__ = ["Rounds", "by_part"]

_TRAIN = 2
#: While all members have a core each, who waits has nothing better to do than to compute what
#: another has not ended in so many times as long as one's own part took, or has not begun with so
#: many seconds later. The master and others use the same cores, so this is no rarity.
_HELPS_AFTER, _HELPS_AT_ONCE = 1.0, 5e-5
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
#: Where they have not, to compute would take a core from who does just that: another is waited for
#: so many times as long, and so many seconds besides, and not again before it has come back.
_SLOWER, _SECONDS = 4, 0.03
#: seconds to look for a shard without a rest, then between two looks
_AWAKE, _NAP = 3e-4, 1e-4
_Words = tuple[dict[str, Data], tuple[FrameHeader, ...], tuple[bytes, ...]]
_DECODER: msgspec.msgpack.Decoder[_Words] = msgspec.msgpack.Decoder(_Words)


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
        self._took = 0.0  # seconds for the last shard that was computed here
        self._absent: set[int] = set()  # members that were waited for in vain

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
        self._absent.clear()
        began = time.perf_counter()
        parts = by_part(jobs)
        found: dict[str, Payload] = {}
        for at, shards in enumerate(order.shards):
            number, own = order.number(at), order.own(at)
            for shard in own:
                self._own.begin(number, shard)
                recalled = self._recall(number, shard)
                said = recalled or self._compute(number, shard, parts[f"{at}.{shard}"])
                if at == len(order.shards) - 1 and shard == own[-1]:
                    spoilt = [] if recalled else [self._own.gradient(number, shard)]
                    mischief.after(time.perf_counter() - began, spoilt)
                if not recalled:
                    self._own.mark(number, shard, _words_of(said))
                found.update({named(at, shard, path): one for path, one in said.items()})
            for shard in range(shards):
                if not self._is_waited_for(number, shard, order):
                    said = self._compute(number, shard, parts[f"{at}.{shard}"])
                    self._own.mark(number, shard, _words_of(said))
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
        self._look_for_logs()

    def _recall(self, number: int, shard: int) -> dict[str, Payload] | None:
        """Return what units said of a shard that somebody has left; None if nobody has."""
        log = self._find(number, shard)
        words = b"" if log is None else log.words(number, shard)
        if log is None or not words or not log.has(number, shard):  # or it is written anew
            return None
        return {**unpack(*_DECODER.decode(words))}

    def _compute(self, number: int, shard: int, jobs: Mapping[str, Payload]) -> dict[str, Payload]:
        began = time.perf_counter()
        said = self._worker.compute(_TRAIN, jobs)
        np.copyto(self._own.gradient(number, shard), self._worker.found)
        self._took = time.perf_counter() - began
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

    def _is_waited_for(self, number: int, shard: int, order: Order) -> bool:
        """Wait for another's shard; return whether it came."""
        if self._find(number, shard) is not None:
            return True
        began = time.perf_counter()
        while True:
            if self._missing:
                self._look_for_logs()
            for _ in range(8):
                if self._find(number, shard) is not None:
                    return True
                os.sched_yield()
            waited = time.perf_counter() - began
            if waited > order.patience * self._most(number, shard, order):
                self._absent.add(shard % order.members)
                return False
            if waited > _AWAKE:
                time.sleep(_NAP)

    def _most(self, number: int, shard: int, order: Order) -> float:
        """Return how many seconds another's shard is waited for."""
        took = self._took * len(order.own(number - order.number(0)))
        logs = (log for log in self._logs.values() if log is not self._own)
        is_begun = any(log.has_begun(number, shard) for log in logs)
        if order.members <= _CORES:
            return _HELPS_AFTER * took if is_begun else _HELPS_AT_ONCE
        if shard % order.members in self._absent and not is_begun:
            return 0.0
        return _SLOWER * took + _SECONDS

    def _look_for_logs(self) -> None:
        """Open logs that were not there before: a slave makes its own when it begins."""
        assert self._shape is not None
        for name in list(self._missing):
            try:
                self._logs[name] = RoundLog(self._folder / f"{name}{LOG}", self._shape)
            except FileNotFoundError:
                continue
            self._missing.remove(name)


def _words_of(said: Mapping[str, Payload]) -> bytes:
    """Return what units say of a shard as bytes; none if that is much."""
    data, headers, arrays = pack(said)
    if sum(array.nbytes for array in arrays) > MOST_WORDS:
        return b""
    return msgspec.msgpack.encode((data, headers, [array.tobytes() for array in arrays]))


def by_part(jobs: Mapping[str, Payload]) -> dict[str, dict[str, Payload]]:
    """Return payloads by path, by what stands before it: ``round.shard``."""
    parts: dict[str, dict[str, Payload]] = {}
    for name, payload in jobs.items():
        head, _, path = name.partition("/")
        parts.setdefault(head, {})[path] = payload
    return parts
