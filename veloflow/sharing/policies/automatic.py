"""auto: the run measures itself in its first steps, and picks the mode, the codec and the period.

What it picks among and why is in :mod:`veloflow.sharing.auto_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from veloflow.sharing.policies.base import Policy

__all__ = ["Auto"]


@final
@dataclass(frozen=True)
class Auto(Policy):
    """Begins as sync, measures, and goes on with what should be the quickest.

    Args:
        margin: sync is taken where it is within so many per cent of the quickest, for it gives the
            same bits again.
        lossy: whether codecs that change updates may be picked.
        stale: whether modes that apply stale gradients may be picked; a trial of one that lets the
            loss rise is undone.
    """

    name: ClassVar[str] = "auto"

    margin: float = 5.0
    lossy: bool = True
    stale: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1000:
            raise ValueError(f"margin is {self.margin:g}; give per cent from 0 to 1000")

    def tasks(self, slaves: int, capacity: int) -> int:
        """Return one: it begins as sync."""
        return 1
