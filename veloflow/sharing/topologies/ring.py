"""ring: the sum goes from slave to slave in the order of the shards, and the total once around.

P. Patarasuk, X. Yuan: Bandwidth optimal all-reduce algorithms for clusters of workstations. JPDC
2009. There each slave begins the sum of a part of the vector, so that all links are busy at once;
its bits depend on how many slaves there are. Here all sums begin at slave 0, which has the first
shards, and chunks follow one another through the ring. Each slave sends up to two vectors a step,
where theirs sends 2 (n - 1) / n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from veloflow.sharing.topologies.base import CHUNK, Cost, Group, Node, Packet, Topology, chunks_of

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Ring"]


@final
@dataclass(frozen=True)
class Ring(Topology):
    """Each slave sends to the next one only."""

    name: ClassVar[str] = "ring"

    def node(self, place: int, group: Group, dtype: DTypeLike) -> Node:
        """Return the machine of a slave."""
        return _Member(place, group, dtype)

    def cost(
        self, slaves: int, nbytes: int, *, shards: int, state: int = 2, block: int = 16
    ) -> Cost:
        """Return the cost: a slave sends the sum so far, and the total, each once."""
        most = 0 if slaves == 1 else nbytes if slaves == 2 else 2 * nbytes
        chunk = min(nbytes, CHUNK * 4)
        return Cost(
            state * nbytes // block, most, most, hops=max(0, 2 * (slaves - 1)), chunk=chunk
        )  # fmt: skip


class _Member(Node):
    """A slave: adds its shards to the sum that comes, and hands on."""

    def _begin(self) -> list[Packet]:
        self._added: set[int] = set()  # the chunks that have gone on
        if self.place:
            return []
        return [
            packet
            for first, stop in chunks_of(0, self.group.size)
            for packet in self._go_on(first, self._own[0][first:stop], 1)
        ]

    def _hear(self, packet: Packet) -> list[Packet]:
        if packet.kind == "sum":
            return self._go_on(packet.first, packet.values, 0)
        if packet.kind == "total" and self._take_total(packet.first, packet.values):
            return self._pass_total(packet.first, packet.values)
        return []

    def _go_on(self, first: int, so_far: NDArray[np.floating], skip: int) -> list[Packet]:
        """Add one's own shards, but for the first ``skip``, to a chunk of the sum."""
        if first in self._added:
            return []
        self._added.add(first)
        stop = first + so_far.size
        gradients = [self._own[shard] for shard in sorted(self._own)][skip:]
        total = so_far
        for number, gradient in enumerate(gradients):
            total = np.add(total, gradient[first:stop], out=total if number else None)
        if self.place < self.group.members - 1:
            return [self._packet(self.place + 1, "sum", first, total)]
        self._take_total(first, total)
        return self._pass_total(first, total)

    def _pass_total(self, first: int, values: NDArray[np.floating]) -> list[Packet]:
        """Hand the total on, around to the slave before the last, which made it."""
        after = (self.place + 1) % self.group.members
        if after == self.group.members - 1 or self.group.members == 1:
            return []
        return [self._packet(after, "total", first, values)]
