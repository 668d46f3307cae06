"""Connections between slaves, and between slaves and servers: an own address, and ways to others.

Where the run has keys, the master makes one pair of CURVE keys more for the group, and tells it
those whom it knows by their own. Who has it is let in, and knows by it that others are of the
group.
Without keys all addresses are of this machine. A secret token tells friends in any case.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import WireError
from veloflow.protocol.codec import decode_with, encode
from veloflow.protocol.peers import Enroll, FromPeer, Parcel, peer_decoder
from veloflow.runtime.keys import ClientKeys, ServerKeys
from veloflow.runtime.transport.connections import ZmqConnection, ZmqListener
from veloflow.runtime.transport.payloads import header_of, view
from veloflow.sharing.topologies import Packet

if TYPE_CHECKING:
    from veloflow.runtime.transport.connections import Frame

__all__ = ["Peers", "fits", "host_towards"]

#: an address that is no machine's: to ask which of one's own would be used; nothing is sent
_NOWHERE = ("192.0.2.1", 9)


class Peers:
    """One's own address, and the ways to others that are used.

    Args:
        host: of this machine, as others reach it.
        token: the run's secret.
        pair: public and secret key of the group, Z85, where connections are encrypted.
        patience: scales every wait.
    """

    def __init__(
        self, host: str, token: str, pair: tuple[str, str] | None = None, *, patience: float = 1.0
    ) -> None:
        self._token = token
        self._patience = patience
        own = self._keys = None
        if pair is not None:
            public, secret = (one.encode() for one in pair)
            own = ServerKeys(public, secret, {public})
            self._keys = ClientKeys(public, secret, public)
        self._listener = ZmqListener([f"tcp://{host}:0"], own)
        self._ways: dict[str, ZmqConnection] = {}
        self._decoder = peer_decoder()
        self.sent = self.received = 0  #: bytes of arrays

    @property
    def address(self) -> str:
        """Where others reach this process."""
        return self._listener.addresses[0]

    def keep(self, addresses: Iterable[str]) -> None:
        """Close the ways to all but these."""
        for address in set(self._ways) - set(addresses):
            self._ways.pop(address).close()

    def tell(self, address: str, message: FromPeer, *frames: Frame) -> None:
        """Send a message to another.

        Raises:
            ClusterError: it takes nothing.
        """
        way = self._ways.get(address)
        if way is None:
            identity = b"P" + secrets.token_bytes(15)
            way = ZmqConnection(address, identity, self._keys, patience=self._patience)
            self._ways[address] = way
        way.send([encode(message), *frames])

    def carry(self, number: int, packets: Sequence[Packet], addresses: Sequence[str]) -> None:
        """Send packets of an attempt to the places that they are for.

        Raises:
            ClusterError: somebody takes nothing.
        """
        for packet in packets:
            values = np.ascontiguousarray(packet.values)
            parcel = Parcel(
                token=self._token,
                number=number,
                to=packet.to,
                source=packet.source,
                round=packet.round,
                kind=packet.kind,  # type: ignore[arg-type]
                shard=packet.shard,
                shards=packet.shards,
                first=packet.first,
                frames=(header_of("values", values),),
            )
            self.tell(addresses[packet.to], parcel, values.data)
            self.sent += values.nbytes

    def heard(self, patience: float) -> Iterator[Enroll | tuple[int, Packet]]:
        """Yield what has arrived, of this run; wait for it for so many seconds at most."""
        message = self._listener.receive()
        if message is None:
            self._listener.wait(patience)
            message = self._listener.receive()
        while message is not None:
            found = self._read(message[1])
            if found is not None:
                yield found
            message = self._listener.receive()

    def _read(self, frames: Sequence[Frame]) -> Enroll | tuple[int, Packet] | None:
        try:
            message, arrays = decode_with(self._decoder, frames)
        except WireError:
            return None  # nobody of this run sends such a thing, and nobody else is answered
        if not secrets.compare_digest(message.token, self._token):
            return None
        if isinstance(message, Enroll):
            return message
        values = view(message.frames[0], arrays[0])
        if values.ndim != 1 or values.dtype.kind != "f":
            return None
        self.received += values.nbytes
        packet = Packet(
            *(message.to, message.source, message.round, message.kind),
            *(message.shard, message.shards, message.first),
            values,
        )
        return message.number, packet

    def close(self) -> None:
        """Let go of all connections."""
        for way in self._ways.values():
            way.close()
        self._ways.clear()
        self._listener.close()


def fits(packet: Packet, size: int, dtype: np.dtype[Any], shards: int) -> bool:
    """Whether a packet's numbers are a part of a vector of this size and dtype."""
    is_within = packet.first + packet.values.size <= size and packet.shard < shards
    return is_within and packet.values.dtype == dtype and packet.shards == shards


def host_towards(address: str) -> str:
    """Return the address of this machine by which those reach it who reach ``address``.

    Args:
        address: of the master: ``tcp://HOST:PORT``, or that of another kind for this machine.
    """
    kind, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    target = (host, 9) if kind == "tcp" else _NOWHERE
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
