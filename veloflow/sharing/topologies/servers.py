"""servers:k: each of k servers adds up a range of the vector.

M. Li et al.: Scaling Distributed Machine Learning with the Parameter Server. OSDI 2014. There
servers keep the parameters; here slaves move copies of them, all alike, and servers add up only.
The bytes are the same, solvers that look at the whole gradient (clipping by norm) work, and a
server holds nothing that would be lost with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from veloflow.sharing.ordered_sum import OrderedSum
from veloflow.sharing.topologies.base import (
    Cost,
    Group,
    Node,
    Packet,
    Topology,
    chunks_of,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["RangeServer", "Servers"]

#: rounds that a server remembers: slaves are at most one apart
_KEPT = 4


@final
@dataclass(frozen=True)
class Servers(Topology):
    """Ranges of the vector on server processes.

    Args:
        k: how many.
    """

    name: ClassVar[str] = "servers"

    k: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 64:
            raise ValueError(f"k is {self.k}; give a number from 1 to 64")

    @property
    def servers(self) -> int:
        """How many server processes it needs."""
        return self.k

    def node(self, place: int, group: Group, dtype: DTypeLike) -> Node:
        """Return the machine of a slave."""
        return _Member(place, group, dtype)

    def cost(
        self, slaves: int, nbytes: int, *, shards: int, state: int = 2, block: int = 16
    ) -> Cost:
        """Return the cost: servers share what the master has in a star."""
        most = -(-shards // slaves)
        a_range = -(-nbytes // self.k)
        return Cost(
            master=state * nbytes // block,
            slave_in=nbytes,
            slave_out=most * nbytes,
            server_in=shards * a_range,
            server_out=slaves * a_range,
            hops=2,
            chunk=min(nbytes, 1 << 18),
        )


class _Member(Node):
    """A slave: sends each server its range of each shard, and takes the totals."""

    def _spans(self) -> Sequence[tuple[int, int]]:
        return [
            part for server in range(self.group.servers) for part in self._parts_of(server)
        ]  # fmt: skip

    def _parts_of(self, server: int) -> list[tuple[int, int]]:
        start, stop = self.group.span(server)
        return chunks_of(start, stop) if stop > start else []

    def _begin(self) -> list[Packet]:
        out: list[Packet] = []
        for server in range(self.group.servers):
            to = self.group.members + server
            for first, stop in self._parts_of(server):
                for shard, gradient in sorted(self._own.items()):
                    out.append(self._packet(to, "shard", first, gradient[first:stop], shard))
                if not self._own:  # it is to be told the total all the same
                    out.append(self._packet(to, "none", first, np.empty(0, self.dtype)))
        return out

    def _hear(self, packet: Packet) -> list[Packet]:
        if packet.kind == "total":
            self._take_total(packet.first, packet.values)
        return []


@dataclass
class _Sum:
    """A part of a round's vector, as far as it is added up."""

    shards: int
    total: OrderedSum
    seen: set[int] = field(default_factory=set)  # shards


class RangeServer:
    """The pure machine of a server in one block.

    Args:
        place: the server's.
        group: who takes part.
    """

    def __init__(self, place: int, group: Group) -> None:
        self.place, self.group = place, group
        self._sums: dict[tuple[int, int], _Sum] = {}
        self._latest = 0

    def hear(self, packet: Packet) -> list[Packet]:
        """Take in a packet; return the totals that are complete, for all members."""
        if packet.round <= self._latest - _KEPT or packet.kind != "shard":
            return []
        if packet.round > self._latest:
            self._latest = packet.round
            self._sums = {
                key: one for key, one in self._sums.items() if key[0] > self._latest - _KEPT
            }
        key = packet.round, packet.first
        if key not in self._sums:
            total: NDArray[np.floating] = np.empty_like(packet.values)
            self._sums[key] = _Sum(packet.shards, OrderedSum(total))
        own = self._sums[key]
        if packet.shard in own.seen:
            return []
        own.seen.add(packet.shard)
        own.total.add(packet.shard, packet.values)
        if own.total.count < own.shards:
            return []
        return [
            Packet(
                *(member, self.place, packet.round, "total", 0, own.shards, packet.first),
                own.total.total,
            )
            for member in range(self.group.members)
        ]
