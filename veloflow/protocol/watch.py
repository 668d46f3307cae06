"""When to look whether all is well with a slave, and what is seen: silence, or no progress."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from veloflow.protocol.slaves import State

if TYPE_CHECKING:
    from veloflow.protocol.pace import Pace
    from veloflow.protocol.slaves import Crowd, Slave

__all__ = ["Finding", "Watch"]

#: silent for so many beats: what it holds goes to others; for so many more: it is put out
_SILENT, _GONE = 6, 40
#: a slave that beats but whose work has not advanced for so many seconds is put out
_STUCK = 60.0


class Finding(Enum):
    """What a look at a slave finds, if not that all is well."""

    SILENT = "silent"  #: it was not heard of for some beats
    GONE = "gone"  #: it has been silent for long
    STUCK = "stuck"  #: it beats, but its work does not advance
    STILL_HERE = "still here"  #: it gave a job back, and has not left


class Watch:
    """Whom to look at, and when. Each slave that is here is looked at some time.

    Args:
        crowd: the slaves.
        pace: how long pieces take.
        beat_every: seconds between the signs of life of a slave.
        patience: scales every wait.
    """

    def __init__(self, crowd: Crowd, pace: Pace, beat_every: float, patience: float) -> None:
        self._crowd = crowd
        self._pace = pace
        self._beat = beat_every
        self._stuck = _STUCK * patience
        self._plan: list[tuple[float, str]] = []
        self._absent_until = -math.inf

    @property
    def deadline(self) -> float | None:
        """When to look next; None for never."""
        return self._plan[0][0] if self._plan else None

    def heard(self, slave: Slave, now: float) -> None:
        """Look at a slave when it might be silent, for it was heard now."""
        self._look_later(slave, now + _SILENT * self._beat)

    def gave_back(self, slave: Slave, now: float) -> None:
        """Look soon whether a slave leaves."""
        self._look_later(slave, now + self._beat)

    def _look_later(self, slave: Slave, when: float) -> None:
        slave.look_at = when
        heapq.heappush(self._plan, (when, slave.id))

    def was_away(self, now: float) -> None:
        """Begin anew to count silence, for nobody has listened."""
        self._absent_until = now + _SILENT * self._beat

    def pass_time(self, now: float) -> Iterator[tuple[Slave, Finding]]:
        """Yield what is found; whoever asks may let slaves go meanwhile."""
        while self._plan and now >= self._plan[0][0]:
            when, id_ = heapq.heappop(self._plan)
            slave = self._crowd.by_id[id_]
            if slave.is_gone or slave.look_at != when:
                continue
            finding, due = self._look_at(slave, now)
            if due is not None:
                self._look_later(slave, due)
            if finding is not None:
                yield slave, finding

    def _look_at(self, slave: Slave, now: float) -> tuple[Finding | None, float | None]:
        """Return what is found, and when to look again."""
        if slave.state is State.SUSPECT:
            due = max(slave.suspected + _GONE * self._beat, self._absent_until)
            return (Finding.GONE, None) if now >= due else (None, due)
        due = max(slave.heard + _SILENT * self._beat, self._absent_until)
        if now >= due:
            return Finding.SILENT, now + _GONE * self._beat
        if self._is_stuck(slave, now):
            return Finding.STUCK, None
        return (Finding.STILL_HERE if slave.state is State.DRAINING else None), due

    def _is_stuck(self, slave: Slave, now: float) -> bool:
        if not slave.owed:
            return False
        limit = 20 * self._pace.limit(next(iter(slave.owed.values())))
        since = max(slave.started, slave.progressed, self._absent_until)
        return now - since >= max(self._stuck, limit)

    def validate(self) -> None:
        """Check that each slave is looked at some time.

        Raises:
            AssertionError: one is not.
        """
        planned = set(self._plan)
        for slave in self._crowd:
            assert (slave.look_at, slave.id) in planned, f"nobody watches {slave}"
