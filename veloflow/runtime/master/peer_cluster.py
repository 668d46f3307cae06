"""A cluster whose slaves exchange gradients with each other: the master is beside the data's way.

It adds to :class:`~veloflow.runtime.master.cluster.Cluster` blocks that a group computes. A
block's pieces are leased as any others; when each has been leased to a slave of its own, all are
told who the others are. Whatever happens to one of those leases afterwards breaks the block, and
the farm has it computed again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import zmq

from veloflow.errors import ClusterError
from veloflow.protocol.codec import encode
from veloflow.protocol.events import Apply, Grant, Rejected, WorkAdded
from veloflow.protocol.messages import Job
from veloflow.protocol.slaves import State
from veloflow.runtime.jobs.peer_order import BROKEN, ORDER, STATE, VOID, PeerOrder
from veloflow.runtime.master.cluster import Cluster, Work
from veloflow.runtime.master.crew import Done
from veloflow.runtime.master.range_servers import RangeServers
from veloflow.runtime.master.team import GroupCrew
from veloflow.runtime.transport.payloads import header_of, pack
from veloflow.runtime.transport.peers import host_towards
from veloflow.sharing.topologies import Topology, topology_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.protocol.messages import Piece, Update
    from veloflow.runtime.slaves.worker import Jobs

__all__ = ["PeerCluster"]

#: seconds, times patience, for slaves to answer for a broken block, and for servers to be there
_GATHER, _SERVERS = 5.0, 30.0


@dataclass
class _Block:
    """A block that is under way: its pieces, and who has which."""

    pieces: dict[int, Piece]
    members: int
    granted: dict[int, Grant] = field(default_factory=dict)  # by member
    is_sent: bool = False
    is_broken: bool = False


@dataclass
class _State:
    """What a block begins with."""

    version: int
    values: NDArray[Any]
    steps: str


class PeerCluster(Cluster, GroupCrew):
    """Slaves that exchange gradients by a topology.

    Args:
        settings: what the user says.
        topology: by which ways.
        **others: as of :class:`~veloflow.runtime.master.cluster.Cluster`.

    Raises:
        InputError: an address cannot be bound.
        StorageError: there is no place for shared memory.
    """

    def __init__(self, settings: Any, topology: Topology, **others: Any) -> None:
        super().__init__(settings, **others)
        self._topology = topology
        self._block: _Block | None = None
        self._state = _State(0, np.empty(0), "")
        self._moved: dict[bytes, tuple[int, int]] = {}  # by client: bytes sent, received
        token = secrets.token_hex(16)
        pair: tuple[str, ...] = ()
        host = "127.0.0.1"
        if settings.keys is not None:
            pair = tuple(one.decode() for one in zmq.curve_keypair())
            host = host_towards(settings.listen[0] if settings.listen else "")
        self._secrets = (token, *pair)
        told = (host, token, *(pair or ("", "")))
        try:
            self._servers = RangeServers(
                topology.servers, self._folder, told,  # type: ignore[arg-type]
                self._janitor.group, self._listener, settings.patience,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise

    def open(self, **plan: Any) -> None:
        """Let slaves in; see :meth:`Cluster.open`."""
        super().open(**plan)
        word = topology_text(self._topology)
        self._plan = msgspec.structs.replace(self._plan, topology=word, peers=self._secrets)

    @property
    def topology(self) -> Topology:
        """By which ways slaves exchange gradients."""
        return self._topology

    def close(self) -> None:
        """Let go of servers and slaves."""
        if not self._is_closing:
            self._servers.stop()
        super().close()

    def results(self) -> dict[str, Any]:
        """Return what the slaves did, with the bytes that each exchanged with others."""
        found = super().results()
        for slave in found["slaves"]:
            client = self._machine.crowd.by_id[slave["slave"]].client
            slave["sent"], slave["received"] = self._moved.get(client, (0, 0))
        return {**found, "topology": topology_text(self._topology)}

    # -- blocks -------------------------------------------------------------------------------

    def team(self) -> list[str]:
        """Return the ids of slaves that can compute a block now; wait for those that are about to.

        Slaves of a broken block answer soon; one that does not is left out.
        """
        until = time.monotonic() + _GATHER * self.patience
        while any(one.load for one in self._peers()) and time.monotonic() < until:
            self._pump()
        until = time.monotonic() + _SERVERS * self.patience
        while self._servers.addresses is None and time.monotonic() < until:
            self._pump()
        if self._servers.addresses is None:
            self._say("the range servers are not there: the master adds up meanwhile")
            return []
        return [one.id for one in self._peers() if not one.load]

    def _peers(self) -> list[Any]:
        """Return the slaves that are well and can compute with others."""
        well = (one for one in self._machine.crowd if one.state is State.WELL)
        return [one for one in well if one.hello.peer]

    def show_state(
        self, state: NDArray[np.floating], steps: Mapping[str, Payload], version: int
    ) -> None:
        """Keep all that the next step depends on, for slaves that do not have it."""
        self._state = _State(version, state.copy(), msgspec.json.encode(steps).decode())

    def submit_group(self, parts: Sequence[tuple[Piece, PeerOrder, Jobs]]) -> None:
        """Put the pieces of a block into the ledger, in the order of the members."""
        self._block = _Block({piece.number: piece for piece, _, _ in parts}, len(parts))
        for piece, order, jobs in parts:
            self._work[piece.number] = Work(piece, *pack({**jobs, **self._job_form}), order=order)
        self._handle(WorkAdded(tuple(piece for piece, _, _ in parts), is_shared=True))

    def withdraw(self, numbers: Sequence[int]) -> None:
        """Have these pieces computed no more."""
        self._block = None
        super().withdraw(numbers)

    def _grant(self, grant: Grant) -> bool:
        order = self._work[grant.lease.number].order
        if not isinstance(order, PeerOrder):
            link, present = self._links[grant.client], self._parameters.version
            if link.version != present:  # it gets other parameters, by whichever way
                link.state = 0
            is_sent = super()._grant(grant)
            link.version = present
            return is_sent
        block = self._block
        assert block is not None
        taken = {one.client for one in block.granted.values()}
        if block.is_sent or order.member in block.granted or grant.client in taken:
            self._break()
        if block.is_broken:
            return self._send_void(grant)
        block.granted[order.member] = grant
        if len(block.granted) == block.members:
            return self._send_block(block)
        return True

    def _send_void(self, grant: Grant) -> bool:
        """Send a lease of a block that is broken, to be given back: each lease is answered."""
        slot = self._links.grant(grant.client, grant.lease)
        job = Job(grant.lease, grant.piece, {ORDER: {VOID: True}}, (), 0, slot)
        return self._listener.send(grant.client, [encode(job)])

    def _send_block(self, block: _Block) -> bool:
        """Tell all who take part; return whether the last one who was asked is there."""
        servers = self._servers.addresses
        grants = [block.granted[one] for one in range(block.members)]
        if servers is None or any(one.client not in self._links for one in grants):
            last = grants.pop()
            self._break()
            return last.client in self._links
        addresses = [self._links[one.client].hello.peer for one in grants] + servers
        block.is_sent = True
        sent = [self._send_part(one, addresses) for one in grants]
        if not all(sent):
            self._break()
        return True

    def _send_part(self, grant: Grant, addresses: list[str]) -> bool:
        work, link = self._work[grant.lease.number], self._links[grant.client]
        order = work.order
        assert isinstance(order, PeerOrder)
        slot = self._links.grant(grant.client, grant.lease)
        headers, arrays, steps = work.headers, list(work.arrays), ""
        if link.state != order.state:
            values = self._state.values
            assert self._state.version == order.state
            headers, steps = (*headers, header_of(STATE, values)), self._state.steps
            arrays.append(values)
            self._traffic["states"] += values.nbytes
        link.state = link.version = 0  # until it has answered
        said = pack({ORDER: order.payload(addresses, steps)})[0]
        job = Job(grant.lease, grant.piece, {**work.data, **said}, headers, 0, slot)
        return self._listener.send(grant.client, [encode(job), *(one.data for one in arrays)])

    def _break(self) -> None:
        """Tell the farm that the block will not be done; have leases that wait given back."""
        block = self._block
        if block is None or block.is_broken:
            return
        if not any(number in self._work for number in block.pieces):
            return  # all have answered: it is done, whoever is lost now
        block.is_broken = True
        if not block.is_sent:
            for grant in block.granted.values():
                if grant.client in self._links:
                    self._send_void(grant)
        piece = next(iter(block.pieces.values()))
        self._ready.append(Done(piece, {BROKEN: {}}, None, 0))

    def _look_into_block(
        self, client: bytes, update: Update, updates: dict[str, Payload], order: Any
    ) -> Done | Rejected:
        """Look at a part of a block; whether its numbers are finite shows in the whole of it."""
        fault = self._form.fault_of_block(updates, order)
        state: NDArray[Any] | None = None
        if not fault and order.member == 0:
            found = updates.get(STATE, {}).get("values")
            expected = self._state.values
            if not isinstance(found, np.ndarray) or found.shape != expected.shape:
                fault = "a block without its state"
            elif found.dtype != expected.dtype:
                fault = f"a state of {found.dtype}"
            else:
                state = found
                self._traffic["states"] += found.nbytes
        if fault:
            return Rejected(client, update.lease, fault, True)
        said = updates[""]
        self._moved[client] = int(said.get("sent", 0)), int(said.get("received", 0))  # type: ignore[call-overload]
        return Done(self._work[update.lease.number].piece, updates, state, update.parameters)

    def _accept(self, apply: Apply, done: Done) -> None:
        order = self._work[apply.piece.number].order
        super()._accept(apply, done)
        if isinstance(order, PeerOrder) and apply.client in self._links:
            link = self._links[apply.client]
            link.state = link.version = order.state + 1

    # -- servers ------------------------------------------------------------------------------

    def _pump(self) -> None:
        self._servers.start_due(time.monotonic())
        super()._pump()

    def _bury(self, sentinel: int) -> None:
        if not self._servers.owns(sentinel):
            super()._bury(sentinel)
            return
        fate, is_replaced = self._servers.bury(sentinel)
        self._say(f"{fate}; {'another is started' if is_replaced else 'it ended too often'}")
        if not is_replaced:
            raise ClusterError(fate)
        self._break()
