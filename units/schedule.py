"""The order of minibatches: class after class in a pass over the data set, pass after pass.

Within a pass the classes come in Veles's order TEST, VALIDATION, TRAIN, and no minibatch spans two
of them. What a loader serves next is decided here; nothing here touches samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Order = NDArray[np.int64]

__all__ = ["CLASS_NAMES", "TEST", "TRAIN", "VALIDATION", "Minibatch", "Schedule"]

TEST, VALIDATION, TRAIN = 0, 1, 2
CLASS_NAMES = ("test", "validation", "train")


@dataclass(frozen=True, eq=False)
class Minibatch:
    """A minibatch to be served.

    Attributes:
        kind: TEST, VALIDATION or TRAIN.
        indices: int64 (size,), the samples in it.
        position: the place of the first of them in the pass.
        number: the number of the pass.
        ends_class: whether no more of its class follow in this pass.
        ends_pass: whether no more at all follow in this pass.
    """

    kind: int
    indices: Order
    position: int
    number: int
    ends_class: bool
    ends_pass: bool


class Schedule:
    """Where a loader is in which pass, and in what order.

    Args:
        order: int64 (n,), all samples: TEST first, then VALIDATION, then TRAIN.
        lengths: how many of each class are served; a class at the end may be left out.
        size: the largest size of a minibatch.
        reorder: returns the order of a pass, given that of the pass before and the number; it is
            called once for each pass, in turn, the first time at once.
    """

    def __init__(
        self,
        order: Order,
        lengths: Sequence[int],
        size: int,
        reorder: Callable[[Order, int], Order],
    ) -> None:
        self._size = size
        self._reorder = reorder
        self._ends = [sum(lengths[: kind + 1]) for kind in (TEST, VALIDATION, TRAIN)]
        self.number = 0
        self.offset = 0
        self.order = reorder(order, 0)
        self._next: Minibatch | None = None
        self._next_order = self.order

    @property
    def total(self) -> int:
        """How many samples a pass serves."""
        return self._ends[-1]

    def peek(self) -> Minibatch:
        """Return the minibatch that :meth:`advance` will return, the very same object."""
        if self._next is None:
            number, offset, self._next_order = self.number, self.offset, self.order
            if offset >= self.total:
                number, offset = number + 1, 0
                self._next_order = self._reorder(self.order, number)
            self._next = self._cut(self._next_order, number, offset)
        return self._next

    def advance(self) -> Minibatch:
        """Go on by a minibatch and return it."""
        minibatch = self.peek()
        self._next = None
        self.number, self.order = minibatch.number, self._next_order
        self.offset = minibatch.position + len(minibatch.indices)
        return minibatch

    def _cut(self, order: Order, number: int, offset: int) -> Minibatch:
        kind = next(kind for kind, end in enumerate(self._ends) if offset < end)
        stop = min(offset + self._size, self._ends[kind])
        return Minibatch(
            kind,
            order[offset:stop].copy(),
            offset,
            number,
            ends_class=stop == self._ends[kind],
            ends_pass=stop == self.total,
        )

    def go_to(self, number: int, offset: int, order: Order) -> None:
        """Go to a place in a pass of this order: ``offset`` samples of it have been served."""
        self.number, self.offset, self.order = number, offset, order
        self._next = None
