"""A slave's part of a block that a group computes: its shards, the exchange, the step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.errors import ClusterError
from veloflow.protocol.peers import Enroll
from veloflow.runtime.jobs.peer_order import STATE, PeerOrder
from veloflow.runtime.jobs.round_order import ORDER, STEP, SUM, named
from veloflow.runtime.slaves.rounds import by_part
from veloflow.runtime.transport.peers import Peers, fits, host_towards
from veloflow.sharing.topologies import Group, Packet, parse_topology

if TYPE_CHECKING:
    from veloflow.core import Payload
    from veloflow.protocol.messages import Plan
    from veloflow.runtime.slaves.job_form import Workers
    from veloflow.runtime.slaves.mischief import Mischief
    from veloflow.runtime.slaves.replica import Replica
    from veloflow.sharing.topologies import Node

__all__ = ["Exchange"]

_TRAIN = 2
#: an attempt in which nothing comes for so many times as long as one's own shards took, and so many
#: seconds besides, is given up
_SLOWER, _SECONDS = 20, 3.0
#: the longest that a slave looks at nothing but its peers, in seconds
_GLANCE = 0.05
#: parcels of a coming attempt that are kept: those of others who began sooner
_MOST_EARLY = 10_000


class Exchange:
    """Computes blocks with others.

    Args:
        worker: what computes.
        peers: the ways to others.
        token: the run's secret.
    """

    def __init__(self, worker: Workers, peers: Peers, token: str) -> None:
        self._worker = worker
        self._peers = peers
        self._token = token
        self._early: list[tuple[int, Packet]] = []

    @classmethod
    def of(cls, worker: Workers, plan: Plan, master: str) -> Exchange | None:
        """Return what a plan has exchanged; None in a star, and where the worker cannot do it.

        Args:
            worker: what computes.
            plan: the master's.
            master: the address by which it is reached.
        """
        if not plan.peers or worker.replica is None:
            return None
        token, *pair = plan.peers
        if not pair:  # without keys nothing leaves this machine
            return cls(worker, Peers("127.0.0.1", token), token)
        return cls(worker, Peers(host_towards(master), token, (pair[0], pair[1])), token)

    @property
    def address(self) -> str:
        """Where others reach this slave."""
        return self._peers.address

    def close(self) -> None:
        """Let go of all connections."""
        self._peers.close()

    def compute(
        self,
        order: PeerOrder,
        said: Payload,
        jobs: Mapping[str, Payload],
        replica: Replica,
        mischief: Mischief,
        is_void: Callable[[], bool],
    ) -> dict[str, Payload] | None:
        """Compute a member's part of a block, from the state that the replica has.

        Args:
            order: what the part is.
            said: the order's payload, with addresses.
            jobs: payloads by names (see :func:`~veloflow.runtime.jobs.round_order.named`).
            replica: the parameters that the worker computes with.
            mischief: faults on purpose.
            is_void: whether the master has withdrawn the block.

        Returns:
            What units say, or None where the attempt is given up.
        """
        given = cast("Mapping[str, Any]", said)
        self._addresses: list[str] = list(given["addresses"])
        self._peers.keep(self._addresses)
        dtype = self._worker.found.dtype
        group = Group(order.members, order.servers, self._worker.found.size)
        node = parse_topology(order.topology).node(order.member, group, dtype)
        try:
            self._enroll(order, group, dtype)
            return self._compute(order, jobs, node, replica, mischief, is_void)
        except ClusterError:  # somebody takes nothing: the master gives the block to others
            return None

    def _enroll(self, order: PeerOrder, group: Group, dtype: np.dtype[Any]) -> None:
        for place in range(group.members, group.members + group.servers):
            message = Enroll(
                token=self._token,
                number=order.number,
                place=place,
                size=group.size,
                dtype=dtype.str,
                members=tuple(self._addresses[: group.members]),
                servers=group.servers,
            )
            self._peers.tell(self._addresses[place], message)

    def _compute(
        self,
        order: PeerOrder,
        jobs: Mapping[str, Payload],
        node: Node,
        replica: Replica,
        mischief: Mischief,
        is_void: Callable[[], bool],
    ) -> dict[str, Payload] | None:
        began = time.perf_counter()
        parts = by_part(jobs)
        found: dict[str, Payload] = {}
        last = len(order.shards) - 1
        for at, shards in enumerate(order.shards):
            start, own = time.perf_counter(), {}
            for shard in order.own(at):
                said = self._worker.compute(_TRAIN, parts[f"{at}.{shard}"])
                found.update({named(at, shard, path): one for path, one in said.items()})
                own[shard] = self._worker.found.copy()
            now = time.perf_counter()
            if at == last:
                mischief.after(now - began, list(own.values())[-1:])
            self._carry(order, node.begin(shards, own))
            self._take_early(order, node)
            patience = order.patience * (_SLOWER * (now - start) + _SECONDS)
            if not self._wait(order, node, patience, is_void):
                return None
            assert node.total is not None
            replica.move([node.total])
        return {**found, **self._report(order, replica)}

    def _report(self, order: PeerOrder, replica: Replica) -> dict[str, Payload]:
        """Return what is said of the state after the block; the first member sends it."""
        state = np.empty(replica.size, self._worker.found.dtype)
        steps = replica.save(state)
        total = float(np.add.reduce(state, dtype=np.float64))
        moved = {"sent": self._peers.sent, "received": self._peers.received}
        report: dict[str, Payload] = {ORDER: {SUM: total, **moved}}
        if order.member == 0:
            report[STATE] = {"values": state}
            report.update({f"{STEP}/{path}": one for path, one in steps.items()})
        return report

    def _carry(self, order: PeerOrder, packets: list[Packet]) -> None:
        self._peers.carry(order.number, packets, self._addresses)

    def _take_early(self, order: PeerOrder, node: Node) -> None:
        early, self._early = self._early, []
        for number, packet in early:
            self._take(order, node, number, packet)

    def _take(self, order: PeerOrder, node: Node, number: int, packet: Packet) -> bool:
        """Give a packet to the node; return whether it was of this attempt."""
        if number > order.number and len(self._early) < _MOST_EARLY:
            self._early.append((number, packet))
        if number != order.number or packet.to != order.member:
            return False
        if packet.round >= len(order.shards):
            return False
        if not fits(packet, node.group.size, node.dtype, order.shards[packet.round]):
            return False
        self._carry(order, node.hear(packet))
        return True

    def _wait(
        self, order: PeerOrder, node: Node, patience: float, is_void: Callable[[], bool]
    ) -> bool:
        """Hear others until the total of the round is here; return whether it came."""
        until = time.perf_counter() + patience
        looked = time.perf_counter()
        while node.total is None:
            for one in self._peers.heard(_GLANCE):
                if not isinstance(one, Enroll) and self._take(order, node, *one):
                    until = time.perf_counter() + patience
            now = time.perf_counter()
            if now > until:
                return False
            if now > looked + _GLANCE:
                looked = now
                if is_void():
                    return False
        return True
