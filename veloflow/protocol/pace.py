"""How long pieces take, by experience, and when one is late."""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["Pace"]

#: how many recent durations are remembered for each sort of piece
_MEMORY = 64
#: as good as no time at all, in seconds: nobody is late by less
_FLOOR = 0.02
#: seconds that the first piece of a sort may take before it is late
_UNKNOWN = 30.0


class Pace:
    """The durations of pieces by sort: (kind, number of samples).

    A piece is late after patience * (m + max(6 * d, m, 0.02 s)), where m is the median of the
    recent durations of its sort and d the median of their distances from it.

    Args:
        patience: scales all waiting.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self.patience = patience
        self._recent: dict[tuple[int, int], deque[float]] = {}
        self._limits: dict[tuple[int, int], tuple[int, float]] = {}

    def add(self, sort: tuple[int, int], seconds: float) -> None:
        """Remember how long a piece took."""
        recent = self._recent.get(sort)
        if recent is None:
            recent = self._recent[sort] = deque(maxlen=_MEMORY)
        recent.append(seconds)
        count, limit = self._limits.get(sort, (0, 0.0))
        # the limit moves slowly: measure it anew now and then only
        if count < 8 or count % 16 == 0:
            limit = self._measure(recent)
        self._limits[sort] = count + 1, limit

    def _measure(self, recent: deque[float]) -> float:
        middle = median(recent)
        spread = median(abs(one - middle) for one in recent)
        return self.patience * (middle + max(6 * spread, middle, _FLOOR))

    def limit(self, sort: tuple[int, int]) -> float:
        """Return after how many seconds a piece of this sort is late."""
        known = self._limits.get(sort)
        return self.patience * _UNKNOWN if known is None else known[1]
