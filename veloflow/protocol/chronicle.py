"""What happened to slaves and pieces, and when: the story of each, on demand."""

from __future__ import annotations

from collections import deque

from veloflow.protocol.messages import LeaseId

__all__ = ["Chronicle", "Told"]

#: when, which slave, what happened, and the lease that it is about
Told = tuple[float, str, str, LeaseId | None]

_LENGTH = 4096


class Chronicle:
    """The last things that were told; older ones are forgotten."""

    def __init__(self) -> None:
        self._told: deque[Told] = deque(maxlen=_LENGTH)
        self._untold = 0  # how many of these news() has not returned

    def tell(self, when: float, what: str, slave: str, lease: LeaseId | None = None) -> None:
        """Remember what happened."""
        self._told.append((when, slave, what, lease))
        self._untold += 1

    def about(self, of: str | int) -> list[str]:
        """Return what happened to a slave (by id) or to a piece (by number), the oldest first."""
        return [
            f"{when:.3f} {slave}: {what}" + (f" {lease.number}.{lease.attempt}" if lease else "")
            for when, slave, what, lease in self._told
            if of == slave or (lease is not None and of == lease.number)
        ]

    def news(self) -> list[Told]:
        """Return what was told since this was called last."""
        count, self._untold = min(self._untold, len(self._told)), 0
        return [self._told[place] for place in range(-count, 0)]
