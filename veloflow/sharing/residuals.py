"""Residuals whose slaves are gone: who is to send what these have left out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from numpy.typing import NDArray

__all__ = ["Orphans"]


class Orphans:
    """What codecs with error feedback have left out of updates, and nobody is about to send.

    A residual belongs to whoever sends updates. When that one leaves, or a run is resumed, another
    adds it to its own, so that it comes later and not never (Seide et al., 2014). Each sender gets
    one; a second one only when there are more residuals than senders.
    """

    def __init__(self) -> None:
        self._waiting: deque[NDArray[np.floating]] = deque()
        self._served: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, residuals: Iterable[NDArray[np.floating]]) -> None:
        """Keep residuals (n,); those that are not finite, or zero, are of no use to anybody."""
        for one in residuals:
            if np.isfinite(one.sum()) and one.any():
                self._waiting.append(one)

    def take(self, sender: Hashable, expected: int) -> NDArray[np.floating] | None:
        """Return what a sender is to add to its residual, if anything.

        Args:
            sender: who is about to compute.
            expected: how many senders there are, or will be soon.
        """
        is_first = sender not in self._served
        if not self._waiting or not (is_first or len(self._served) >= expected):
            return None
        self._served.add(sender)
        return self._waiting.popleft()

    def gone(self, sender: Hashable) -> None:
        """Expect nothing more of a sender."""
        self._served.discard(sender)

    def all(self) -> list[NDArray[np.floating]]:
        """Return all that wait."""
        return list(self._waiting)
