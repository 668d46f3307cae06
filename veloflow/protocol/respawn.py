"""When a local slave that died is started again, and when not any more."""

from __future__ import annotations

from collections import deque

__all__ = ["Respawn"]

_DELAYS = (0.0, 0.1, 0.5, 2.0, 5.0)


class Respawn:
    """The deaths of the slaves in one place.

    Args:
        limit: so many deaths within a minute (times patience), and no other is started.
        patience: scales all waiting.
    """

    def __init__(self, limit: int = 4, patience: float = 1.0) -> None:
        self._deaths: deque[float] = deque(maxlen=limit)
        self._limit = limit
        self._patience = patience

    def died(self, now: float) -> float | None:
        """Return when to start another; None for never."""
        self._deaths.append(now)
        recent = sum(now - one < 60 * self._patience for one in self._deaths)
        if recent >= self._limit:
            return None
        return now + self._patience * _DELAYS[min(recent - 1, len(_DELAYS) - 1)]
