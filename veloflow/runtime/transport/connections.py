"""Connections between master and slaves: what they must do, and those over ZeroMQ.

The master binds one ROUTER, slaves connect with a DEALER each. Local slaves have a connection of
their own, see :mod:`veloflow.runtime.transport.unix`. Frames go in and out; what they mean is not
known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import zmq

from veloflow.errors import ClusterError, InputError

if TYPE_CHECKING:
    from veloflow.runtime.keys import ClientKeys, ServerKeys

__all__ = ["Connection", "Listener", "Others", "ZmqConnection", "ZmqListener"]

Frame = bytes | bytearray | memoryview

#: arrays from this size on are not copied on their way into and out of ZeroMQ
_LARGE = 65536
#: messages that may wait for one client
_QUEUE = 10_000
#: as plain numbers: pyzmq's are an enum, of which each operation takes 1 us
_DONT_WAIT, _MORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)


class Listener(Protocol):
    """The master's side."""

    addresses: list[str]

    def send(self, client: bytes, frames: Sequence[Frame]) -> bool:
        """Send; False when the client is gone or reads nothing any more. Never waits.

        What it had said before is received all the same.
        """

    def receive(self) -> tuple[bytes, list[Frame]] | None:
        """Return the next message and who sent it; None when none has arrived."""

    def wait(self, timeout: float | None) -> set[int]:
        """Wait until a message arrives, a watched descriptor is ready, or time is up.

        Returns the descriptors that are ready.
        """

    def watch(self, descriptor: int) -> None:
        """Let :meth:`wait` end when this descriptor is ready."""

    def unwatch(self, descriptor: int) -> None:
        """Do not look at it any more."""

    def close(self) -> None:
        """Close at once; what is not sent yet is given a moment."""


class Others(Listener, Protocol):
    """A listener that another one can listen to along with its own clients."""

    descriptor: int

    @property
    def has_message(self) -> bool:
        """Whether :meth:`receive` would return one now; :attr:`descriptor` tells of changes."""


class Connection(Protocol):
    """A slave's side."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Send; waits when the master does not read."""

    def receive(self) -> list[Frame] | None:
        """Return the next message; None when none has arrived."""

    def wait(self, timeout: float | None) -> bool:
        """Wait until a message arrives; return whether one has."""

    def close(self) -> None:
        """Close; what is not sent yet is given a moment."""


class ZmqListener:
    """A ROUTER on one or more addresses.

    Args:
        addresses: such as ``ipc:///path`` or ``tcp://127.0.0.1:0`` (a free port is found).
        keys: for CURVE on the TCP addresses.

    Raises:
        InputError: an address cannot be bound.
    """

    def __init__(self, addresses: Iterable[str], keys: ServerKeys | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._guard = keys.start_authenticator(self._context) if keys else None
        self._socket.set(zmq.LINGER, 500)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.SNDHWM, _QUEUE)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.HEARTBEAT_IVL, 5000)
        self._socket.set(zmq.HEARTBEAT_TIMEOUT, 30000)
        if keys is not None:
            self._socket.set(zmq.CURVE_SERVER, 1)
            self._socket.set(zmq.CURVE_SECRETKEY, keys.secret)
            self._socket.set(zmq.CURVE_PUBLICKEY, keys.public)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self.descriptor = cast("int", self._socket.get(zmq.FD))
        self.addresses: list[str] = []
        for address in addresses:
            self._bind(address)

    def _bind(self, address: str) -> None:
        port = address.rpartition(":")[2]
        try:
            if address.startswith("tcp://") and port.isdecimal() and int(port) > 65535:
                raise zmq.ZMQError(zmq.EINVAL, "there is no such port")
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise InputError(
                f"cannot listen on {address}: {error.strerror}; "
                "give another address, such as tcp://127.0.0.1:0 for a free port"
            ) from None
        endpoint = cast("bytes", self._socket.get(zmq.LAST_ENDPOINT))
        self.addresses.append(endpoint.decode().rstrip("\0"))

    def send(self, client: bytes, frames: Sequence[Frame]) -> bool:
        """Send; False when the client is gone or reads nothing any more. Never waits."""
        try:
            self._socket.send(client, _MORE | _DONT_WAIT)
            _send(self._socket, frames, _DONT_WAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def receive(self) -> tuple[bytes, list[Frame]] | None:
        """Return the next message and who sent it; None when none has arrived."""
        try:
            client = self._socket.recv(_DONT_WAIT)
        except zmq.Again:
            return None
        return client, _rest(self._socket)

    @property
    def has_message(self) -> bool:
        """Whether :meth:`receive` would return one now."""
        return bool(cast("int", self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

    def wait(self, timeout: float | None) -> set[int]:
        """Wait until a message arrives, a watched descriptor is ready, or time is up."""
        ready = self._poller.poll(None if timeout is None else max(0, round(timeout * 1000 + 0.5)))
        return {one for one, _ in ready if isinstance(one, int)}

    def watch(self, descriptor: int) -> None:
        """Let :meth:`wait` end when this descriptor is ready."""
        self._poller.register(descriptor, zmq.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Do not look at it any more."""
        self._poller.unregister(descriptor)

    def close(self) -> None:
        """Close; what is not sent yet is given half a second. The second time it does nothing."""
        if self._socket.closed:
            return
        self._socket.close()
        if self._guard is not None:
            self._guard.stop()
        self._context.term()


class ZmqConnection:
    """A DEALER, which connects again by itself when the master comes back.

    Args:
        address: the master's.
        identity: what the master knows this client by; random and secret.
        keys: for CURVE.
        patience: scales the time after which a master that takes nothing counts as closed.

    Raises:
        InputError: this is no address.
    """

    def __init__(
        self,
        address: str,
        identity: bytes,
        keys: ClientKeys | None = None,
        *,
        patience: float = 1.0,
    ) -> None:
        self._address = address
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.ROUTING_ID, identity)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.set(zmq.SNDHWM, _QUEUE)
        self._socket.set(zmq.SNDTIMEO, round(10_000 * patience))
        self._socket.set(zmq.RECONNECT_IVL, 50)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 2000)
        self._socket.set(zmq.HEARTBEAT_IVL, 5000)
        self._socket.set(zmq.HEARTBEAT_TIMEOUT, 30000)
        if keys is not None:
            self._socket.set(zmq.CURVE_SECRETKEY, keys.secret)
            self._socket.set(zmq.CURVE_PUBLICKEY, keys.public)
            self._socket.set(zmq.CURVE_SERVERKEY, keys.server_public)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise InputError(
                f"{address!r} is no address of a master ({error.strerror}); "
                "give one such as tcp://127.0.0.1:5555"
            ) from None

    def send(self, frames: Sequence[Frame]) -> None:
        """Send; waits when the master does not read, but not for ever.

        Raises:
            ClusterError: the master takes nothing.
        """
        try:
            _send(self._socket, frames, 0)
        except zmq.Again:
            raise ClusterError(
                f"the master at {self._address} takes nothing from this slave: "
                "it is busy, or does not accept its keys"
            ) from None

    def receive(self) -> list[Frame] | None:
        """Return the next message; None when none has arrived."""
        try:
            first = self._socket.recv(_DONT_WAIT)
        except zmq.Again:
            return None
        return [first, *_rest(self._socket)]

    def wait(self, timeout: float | None) -> bool:
        """Wait until a message arrives; return whether one has."""
        milliseconds = None if timeout is None else max(0, round(timeout * 1000 + 0.5))
        return bool(self._socket.poll(milliseconds))

    def close(self) -> None:
        """Close; what is not sent yet is given a second."""
        self._socket.close()
        self._context.term()


def _send(socket: zmq.Socket[bytes], frames: Sequence[Frame], flags: int) -> None:
    last = len(frames) - 1
    for number, frame in enumerate(frames):
        more = _MORE if number < last else 0
        is_large = memoryview(frame).nbytes >= _LARGE if number else False
        socket.send(frame, flags | more, copy=not is_large)


def _rest(socket: zmq.Socket[bytes]) -> list[Frame]:
    frames: list[Frame] = []
    while socket.get(zmq.RCVMORE):
        frame = socket.recv(_DONT_WAIT, copy=False)  # all parts came together
        frames.append(frame.buffer if len(frame) >= _LARGE else frame.bytes)
    return frames
