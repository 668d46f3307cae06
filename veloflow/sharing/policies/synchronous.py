"""sync: the gradients of a minibatch's shards, added in their order. Nothing is stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from veloflow.sharing.policies.base import GradientPolicy

__all__ = ["Sync"]

MOST_SHARDS = 1024


@final
@dataclass(frozen=True)
class Sync(GradientPolicy):
    """One minibatch at a time; the result has the same bits with any number of slaves.

    Args:
        shards: into how many parts a minibatch is cut; 0 lets its size say.
    """

    name: ClassVar[str] = "sync"

    shards: int = 0

    def __post_init__(self) -> None:
        if self.shards > MOST_SHARDS:
            raise ValueError(f"shards is {self.shards}; give a number from 1 to {MOST_SHARDS}")

    @property
    def is_exact(self) -> bool:
        """Always."""
        return True

    def tasks(self, slaves: int, capacity: int) -> int:
        """Return one."""
        return 1

    @property
    def cut(self) -> int:
        """How many shards a minibatch has."""
        return self.shards
