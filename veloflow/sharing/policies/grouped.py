"""groups: several minibatches under way, each computed in shards: sync inside, async between.

B. Ooi et al.: SINGA: A Distributed Deep Learning Platform. ACM Multimedia 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from veloflow.sharing.policies.base import GradientPolicy

__all__ = ["Groups"]


@final
@dataclass(frozen=True)
class Groups(GradientPolicy):
    """``g`` minibatches under way, each cut into shards that are computed with one version.

    A group is the slaves that compute a minibatch's shards; who they are is not fixed, so the loss
    of one delays its group by a shard and no more. ``groups:1`` takes the steps of sync.

    Args:
        g: how many groups.
        shards: into how many parts a minibatch is cut; 0 lets its size say.
        damping: the weight of an update is (1 + staleness) ^ -damping.
    """

    name: ClassVar[str] = "groups"

    g: int
    shards: int = 0
    damping: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.g <= 1024:
            raise ValueError(f"g is {self.g}; give a number from 1 to 1024")
        if self.shards > 1024:
            raise ValueError(f"shards is {self.shards}; give a number from 1 to 1024")
        if not 0 <= self.damping <= 10:
            raise ValueError(f"damping is {self.damping:g}; give a number from 0 to 10")

    def tasks(self, slaves: int, capacity: int) -> int:
        """Return the number of groups."""
        return self.g

    @property
    def cut(self) -> int:
        """How many shards a minibatch has."""
        return self.shards

    def weight(self, staleness: int) -> float:
        """Return (1 + staleness) ^ -damping."""
        return float((1 + staleness) ** -self.damping)
