"""star: gradients go to the master, parameters come back from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from veloflow.sharing.topologies.base import Cost, Group, Node, Topology

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["Star"]


@final
@dataclass(frozen=True)
class Star(Topology):
    """All goes through the master, which adds up and takes the step."""

    name: ClassVar[str] = "star"

    @property
    def is_star(self) -> bool:
        """Always."""
        return True

    def node(self, place: int, group: Group, dtype: DTypeLike) -> Node:
        """There is none: slaves send what they find to the master."""
        raise ValueError("in a star slaves exchange nothing with each other")

    def cost(
        self, slaves: int, nbytes: int, *, shards: int, state: int = 2, block: int = 16
    ) -> Cost:
        """Return the cost: a gradient in for each shard, the parameters out for each slave."""
        most = -(-shards // slaves)
        return Cost((shards + slaves) * nbytes, nbytes, most * nbytes, hops=2)
