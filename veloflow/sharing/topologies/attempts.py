"""Blocks of steps that a group does together: each counts once, and as a whole or not at all.

A block is given to a group. It is done when all members say so with one sum of the state after it;
it is broken when a member or a server is lost, gives back, or says another sum. Then the same
minibatches are given to the group that is there by then, under another number, from the last state
that counts. What is under way of a broken attempt has its old number and is taken by nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Attempts", "Verdict"]


class Verdict(Enum):
    """What an answer makes of a block."""

    OPEN = "open"  #: others have not answered
    DONE = "done"
    BROKEN = "broken"  #: do it again
    SPOILED = "spoiled"  #: members differ, or have NaN: piece by piece it shows whose fault it is
    OLD = "old"  #: of an attempt that is over


@dataclass
class Attempts:
    """The attempts at the blocks of one run, one after another.

    Attributes:
        number: of the attempt that is under way, or was last.
        done, broken: how many were done, and broken.
    """

    number: int = -1
    done: int = 0
    broken: int = 0
    spoiled: int = 0
    _members: int = 0
    _sums: dict[int, float] = field(default_factory=dict)
    is_open: bool = False

    def launch(self, members: int) -> int:
        """Begin an attempt with a group of so many; return its number.

        Raises:
            ValueError: another is under way, or nobody is there.
        """
        if self.is_open or members < 1:
            raise ValueError("an attempt is under way" if self.is_open else "a group of nobody")
        self.number += 1
        self._members, self._sums, self.is_open = members, {}, True
        return self.number

    def answered(self, number: int, member: int, total: float) -> Verdict:
        """Take in that a member has done its part of an attempt.

        Args:
            number: of the attempt.
            member: its place in the group.
            total: the sum of the state that it has now.
        """
        if not self.is_open or number != self.number:
            return Verdict.OLD
        self._sums[member] = total
        if len(self._sums) < self._members:
            return Verdict.OPEN
        self.is_open = False
        first = self._sums[0]
        if math.isfinite(first) and all(one == first for one in self._sums.values()):
            self.done += 1
            return Verdict.DONE
        self.spoiled += 1
        return Verdict.SPOILED

    def lost(self, number: int) -> Verdict:
        """Take in that a member or a server of an attempt is lost, or has given up."""
        if not self.is_open or number != self.number:
            return Verdict.OLD
        self.is_open = False
        self.broken += 1
        return Verdict.BROKEN
