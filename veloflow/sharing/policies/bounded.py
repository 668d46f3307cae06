"""ssp: updates are applied as they come, but nobody runs far ahead of the slowest.

Q. Ho et al.: More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server.
NIPS 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from veloflow.sharing.policies.base import GradientPolicy

__all__ = ["Bounded"]


@final
@dataclass(frozen=True)
class Bounded(GradientPolicy):
    """A slave begins its clock c only when all updates of clocks below c - s are applied.

    A clock of a slave is a piece that it computes. A slave that is lost holds nobody back, nor does
    one whose piece another has done meanwhile, nor one that has nothing to do. So between reading
    parameters and applying its update at most (slaves - 1) * (2 s + 1) + s others are applied.

    Args:
        s: how many clocks a slave may be ahead of the slowest.
    """

    name: ClassVar[str] = "ssp"

    s: int

    def __post_init__(self) -> None:
        if self.s > 1_000_000:
            raise ValueError(f"s is {self.s}; give a number from 0 to 1000000")

    def tasks(self, slaves: int, capacity: int) -> int:
        """Return what the slaves can hold."""
        return capacity

    @property
    def bound(self) -> int:
        """How many clocks a slave may be ahead of the slowest."""
        return self.s
