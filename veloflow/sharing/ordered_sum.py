"""Sums whose order is fixed, whoever comes first: so they are the same to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OrderedSum"]


class OrderedSum:
    """Adds vectors in the order of their numbers 0, 1, 2 …; early ones are kept aside.

    Args:
        total: (n,) float, where the sum is formed; what it held before is overwritten.
    """

    def __init__(self, total: NDArray[np.floating]) -> None:
        self.total = total
        self._next = 0
        self._early: dict[int, NDArray[np.floating]] = {}

    def restart(self) -> None:
        """Begin a new sum."""
        self._next = 0
        self._early.clear()

    def add(self, number: int, vector: NDArray[np.floating]) -> None:
        """Take in a vector (n,); it may change after the call.

        Raises:
            ValueError: this number was added already.
        """
        if number < self._next or number in self._early:
            raise ValueError(f"vector {number} is in the sum already")
        if number > self._next:
            self._early[number] = vector.copy()
            return
        self._add_next(vector)
        while self._next in self._early:
            self._add_next(self._early.pop(self._next))

    def _add_next(self, vector: NDArray[np.floating]) -> None:
        if self._next == 0:
            np.copyto(self.total, vector)
        else:
            np.add(self.total, vector, out=self.total)
        self._next += 1

    @property
    def count(self) -> int:
        """How many vectors are added so far, without the early ones."""
        return self._next
