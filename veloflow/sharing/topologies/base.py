"""What all topologies have in common: places, packets between them, and what a step costs.

In each the shards' gradients are added one after another in the order of the shards, g0 + g1, then
+ g2 …, as the master does it. So the sum has the same bits in every topology, with any number of
slaves. A classical ring begins the sum of each part of the vector at another slave, and a classical
tree adds sums of sums: both give bits that depend on the number of slaves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["CHUNK", "Cost", "Group", "Node", "Packet", "Topology", "chunks_of", "shards_of"]

#: numbers that travel together: long vectors are sent in pieces, so that hops overlap
CHUNK = 1 << 16


@dataclass(frozen=True)
class Group:
    """Who takes part, and in what.

    Attributes:
        members: how many slaves; their places are 0, 1, 2 …
        servers: how many servers; their places follow.
        size: of the gradient.
    """

    members: int
    servers: int
    size: int

    def span(self, server: int) -> tuple[int, int]:
        """Return the range of the vector that is a server's."""
        return (
            self.size * server // self.servers,
            self.size * (server + 1) // self.servers,
        )


@dataclass(frozen=True, eq=False)
class Packet:
    """A part of a vector on its way.

    Attributes:
        to, source: places.
        round: number of the minibatch in its block.
        kind: "shard" of one shard's gradient, "sum" over the first shards, "total" over all, or
            "none": the source has no shard in this round.
        shard: which, of a "shard".
        shards: how many the round has.
        first: the place of the first number in the vector.
        values: (n,) the numbers; they are not to be changed.
    """

    to: int
    source: int
    round: int
    kind: str
    shard: int
    shards: int
    first: int
    values: NDArray[np.floating]


@dataclass(frozen=True)
class Cost:
    """What one step costs.

    Attributes:
        master: bytes of gradients and parameters through the master, in and out.
        slave_in, slave_out: bytes of the slave that has most.
        server_in, server_out: of the server that has most.
        hops: how many messages follow one on another from the last gradient to the new parameters.
        chunk: bytes that travel together: where hops overlap each costs the time of a chunk only.
    """

    master: int
    slave_in: int
    slave_out: int
    server_in: int = 0
    server_out: int = 0
    hops: int = 2
    chunk: int = 0

    def seconds(self, bandwidth: float, latency: float) -> float:
        """Estimate how long a step's sharing takes.

        Args:
            bandwidth: of each machine, bytes a second each way.
            latency: of a message, seconds.
        """
        busiest = max(
            self.master / 2, self.slave_in, self.slave_out, self.server_in, self.server_out
        )
        return (busiest + self.hops * self.chunk) / bandwidth + self.hops * latency


class Topology(ABC):
    """Ways by which gradients come together. An outline; a frozen dataclass of its options."""

    #: what a user writes after ``--topology``
    name: ClassVar[str]

    @property
    def servers(self) -> int:
        """How many server processes it needs."""
        return 0

    @property
    def is_star(self) -> bool:
        """Whether all goes through the master."""
        return False

    @abstractmethod
    def node(self, place: int, group: Group, dtype: DTypeLike) -> Node:
        """Return the machine of a slave.

        Args:
            place: the slave's, from 0.
            group: who takes part.
            dtype: of the gradient.
        """

    @abstractmethod
    def cost(
        self, slaves: int, nbytes: int, *, shards: int, state: int = 2, block: int = 16
    ) -> Cost:
        """Return what a step costs.

        Args:
            slaves: how many.
            nbytes: of a gradient, or of the parameters.
            shards: into how many a minibatch is cut.
            state: how many vectors the state has: parameters and what the solver keeps.
            block: how many minibatches there are between two states that the master is sent.
        """


class Node(ABC):
    """One slave's part in adding up. Packets go in and out; nothing is waited for.

    What comes twice, or belongs to a round that is over, is passed over; what comes early is kept.
    """

    def __init__(self, place: int, group: Group, dtype: DTypeLike) -> None:
        self.place, self.group = place, group
        self.dtype = np.dtype(dtype)
        self.round = -1  #: the present one; before the first -1
        self.shards = 0  #: of the present round
        self._own: Mapping[int, NDArray[np.floating]] = {}
        self._early: list[Packet] = []
        self._total = np.empty(group.size, self.dtype)
        self._left: set[int] = set()  # the first numbers of the chunks whose total is not here

    @property
    def total(self) -> NDArray[np.floating] | None:
        """The sum over all shards of the present round, (n,), to be copied; None until it is."""
        return None if self._left or self.round < 0 else self._total

    def begin(self, shards: int, own: Mapping[int, NDArray[np.floating]]) -> list[Packet]:
        """Begin the next round; return what is to be sent.

        Args:
            shards: how many the round has.
            own: the gradients of this slave's shards, each (n,), by the number of the shard. They
                are not to be changed before the round after it begins.
        """
        if self.round >= 0 and self._left:
            raise ValueError(f"round {self.round} is not over")
        self.round += 1
        self.shards, self._own = shards, own
        self._left = {first for first, _ in self._spans()}
        out = self._begin()
        early, self._early = self._early, []
        for packet in early:
            out += self.hear(packet)
        return out

    def hear(self, packet: Packet) -> list[Packet]:
        """Take in a packet; return what is to be sent."""
        if packet.round > self.round:
            self._early.append(packet)
            return []
        return self._hear(packet) if packet.round == self.round else []

    def _spans(self) -> Sequence[tuple[int, int]]:
        """Return the parts in which totals come."""
        return chunks_of(0, self.group.size)

    @abstractmethod
    def _begin(self) -> list[Packet]:
        """Send what can be sent at once."""

    @abstractmethod
    def _hear(self, packet: Packet) -> list[Packet]:
        """Take in a packet of the present round."""

    def _take_total(self, first: int, values: NDArray[np.floating]) -> bool:
        """Take a part of the total; return whether it is new."""
        if first not in self._left:
            return False
        self._left.remove(first)
        np.copyto(self._total[first : first + values.size], values)
        return True

    def _packet(
        self, to: int, kind: str, first: int, values: NDArray[np.floating], shard: int = 0
    ) -> Packet:
        return Packet(to, self.place, self.round, kind, shard, self.shards, first, values)


def chunks_of(first: int, stop: int) -> list[tuple[int, int]]:
    """Cut a range into chunks: (first, stop) of each; one that is empty for an empty range."""
    return [(one, min(one + CHUNK, stop)) for one in range(first, stop, CHUNK)] or [(first, stop)]


def shards_of(member: int, members: int, shards: int) -> range:
    """Return the shards of a member: neighbours; the first member has the first ones, always."""
    return range(-(-shards * member // members), -(-shards * (member + 1) // members))
