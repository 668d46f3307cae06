"""tree: shards go up to slave 0, which adds them in order; the total goes down to all.

A classical tree adds on the way up, so that each slave sends one vector; but sums of sums have
other bits than one sum in order, and other ones for each number of slaves. Here nobody adds but the
root, and those below hand on. So a tree is for short vectors and many slaves: few hops, many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from veloflow.sharing.ordered_sum import OrderedSum
from veloflow.sharing.topologies.base import CHUNK, Cost, Group, Node, Packet, Topology, shards_of

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Tree"]


@final
@dataclass(frozen=True)
class Tree(Topology):
    """Slave m hears from slaves 2 m + 1 and 2 m + 2."""

    name: ClassVar[str] = "tree"

    def node(self, place: int, group: Group, dtype: DTypeLike) -> Node:
        """Return the machine of a slave."""
        return _Member(place, group, dtype)

    def cost(
        self, slaves: int, nbytes: int, *, shards: int, state: int = 2, block: int = 16
    ) -> Cost:
        """Return the cost: the root is sent all shards but its own."""
        foreign = shards - len(shards_of(0, slaves, shards))
        below = sum(one < slaves for one in (1, 2))
        levels = slaves.bit_length() - 1
        sends = max(
            below, *(self._sent(one, slaves, shards) for one in range(1, min(3, slaves))), 0
        )
        return Cost(
            state * nbytes // block,
            foreign * nbytes,
            sends * nbytes,
            hops=2 * levels,
            chunk=min(nbytes, CHUNK * 4),
        )

    @staticmethod
    def _sent(place: int, slaves: int, shards: int) -> int:
        """Return how many vectors a slave sends: the shards of its branch, and totals."""
        branch = sum(len(shards_of(one, slaves, shards)) for one in _branch(place, slaves))
        return branch + sum(one < slaves for one in (2 * place + 1, 2 * place + 2))


def _branch(place: int, slaves: int) -> Iterator[int]:
    if place < slaves:
        yield place
        yield from _branch(2 * place + 1, slaves)
        yield from _branch(2 * place + 2, slaves)


class _Member(Node):
    """A slave: hands shards up and totals down; the root adds."""

    def _begin(self) -> list[Packet]:
        self._seen: set[tuple[int, int]] = set()  # shards and chunks that were handed up
        self._sums: dict[int, OrderedSum] = {}
        return [
            packet
            for first, stop in self._spans()
            for shard, gradient in sorted(self._own.items())
            for packet in self._take_shard(shard, first, gradient[first:stop])
        ]

    def _hear(self, packet: Packet) -> list[Packet]:
        if packet.kind == "shard":
            return self._take_shard(packet.shard, packet.first, packet.values)
        if packet.kind == "total" and self._take_total(packet.first, packet.values):
            return self._pass_total(packet.first, packet.values)
        return []

    def _take_shard(self, shard: int, first: int, values: NDArray[np.floating]) -> list[Packet]:
        if (shard, first) in self._seen:
            return []
        self._seen.add((shard, first))
        if self.place:
            return [self._packet((self.place - 1) // 2, "shard", first, values, shard)]
        if first not in self._sums:
            self._sums[first] = OrderedSum(np.empty_like(values))
        own = self._sums[first]
        own.add(shard, values)
        if own.count < self.shards:
            return []
        self._take_total(first, own.total)
        return self._pass_total(first, own.total)

    def _pass_total(self, first: int, values: NDArray[np.floating]) -> list[Packet]:
        below = (2 * self.place + 1, 2 * self.place + 2)
        members = self.group.members
        return [self._packet(one, "total", first, values) for one in below if one < members]
