"""async: updates are applied as they come, the stale ones with less weight if asked.

W. Zhang, S. Gupta, X. Lian, J. Liu: Staleness-aware Async-SGD for Distributed Deep Learning.
IJCAI 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from veloflow.sharing.policies.base import GradientPolicy

__all__ = ["Async"]


@final
@dataclass(frozen=True)
class Async(GradientPolicy):
    """As many minibatches under way as slaves can hold; weight (1 + staleness) ^ -damping.

    Args:
        damping: 0 applies all alike, 1 divides by 1 + staleness.
    """

    name: ClassVar[str] = "async"

    damping: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.damping <= 10:
            raise ValueError(f"damping is {self.damping:g}; give a number from 0 to 10")

    def tasks(self, slaves: int, capacity: int) -> int:
        """Return what the slaves can hold."""
        return capacity

    def weight(self, staleness: int) -> float:
        """Return (1 + staleness) ^ -damping."""
        return float((1 + staleness) ** -self.damping)
