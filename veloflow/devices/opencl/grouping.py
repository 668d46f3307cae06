"""Which launches of a sequence may be one: decided by the memory that each reads and writes.

Two may share a launch, each work-item doing its share of the one and then of the other, if neither
touches what the other writes, or if both go by the same rows there: then a work-item finds in its
rows what it has written itself. A launch may also move before others that it has nothing to do
with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Access", "Work", "grouped"]


#: works that are one launch at most: a driver's compiler puts them all into one function
_MOST = 10


@dataclass(frozen=True)
class Access:
    """A range of memory, bytes ``first`` to ``end`` of a buffer, that a launch reads or writes.

    ``by_rows``: a work-item touches its own rows of it only.
    """

    buffer: int
    first: int
    end: int
    is_written: bool
    by_rows: bool

    def meets(self, other: Access) -> bool:
        """Whether the order of both matters."""
        return (
            (self.is_written or other.is_written)
            and self.buffer == other.buffer
            and self.first < other.end
            and other.first < self.end
        )

    def goes_with(self, other: Access) -> bool:
        """Whether both see the same rows in the same places."""
        is_one = (self.first, self.end) == (other.first, other.end)
        return is_one and self.by_rows and other.by_rows


@dataclass(frozen=True)
class Work:
    """One launch: what it touches, and the number of rows it may be divided by (0: none).

    ``is_whole``: it must be a launch of its own.
    """

    accesses: tuple[Access, ...]
    rows: int
    is_whole: bool

    def meets(self, other: Work) -> bool:
        """Whether the order of both matters."""
        return any(one.meets(two) for one in self.accesses for two in other.accesses)

    def goes_with(self, other: Work) -> bool:
        """Whether both may be in one launch, in their order."""
        if self.is_whole or other.is_whole:
            return False
        met = [(a, b) for a in self.accesses for b in other.accesses if a.meets(b)]
        return not met or (self.rows == other.rows and all(a.goes_with(b) for a, b in met))


def grouped(works: Sequence[Work]) -> list[list[int]]:
    """Return the numbers of the works that are to be one launch, launches in their order."""
    groups: list[list[int]] = []
    for number, work in enumerate(works):
        target = None
        for place in reversed(range(len(groups))):
            group = groups[place]
            if len(group) < _MOST and all(works[one].goes_with(work) for one in group):
                target = place
            if any(works[one].meets(work) for one in group):
                break
        if target is None:
            groups.append([number])
        else:
            groups[target].append(number)
    return groups
