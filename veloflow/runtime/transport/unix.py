"""Connections between a master and its local slaves: a Unix socket, and nothing in between.

ZeroMQ hands each message to a thread of its own on both sides; on a machine whose cores all
compute, each of these must wait for its turn. Here a message is one system call there and one
back. The socket lies in the run's private folder, so who can open it is the user.

A message is the number of its frames (uint32), the size of each (uint64), and the frames; the
first message of a client is its identity.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from select import POLLIN, POLLOUT, poll
from typing import TYPE_CHECKING

from veloflow.errors import ClusterError, InputError, StorageError, WireError

if TYPE_CHECKING:
    from veloflow.runtime.transport.connections import Frame, Others

__all__ = ["UnixConnection", "UnixListener"]

_SCHEME = "unix://"
_COUNT = struct.Struct("<I")
#: what is no message of ours: more frames, or more bytes
_MOST_FRAMES, _MOST_BYTES = 1 << 20, 1 << 33
#: read at a time; malloc keeps memory of this size, and gives larger ones back each time
_CHUNK = 1 << 16
#: buffers that sendmsg takes
_MOST_PARTS = 1000
#: messages that may wait for one client
_QUEUE = 10_000
#: the others' turn comes after so many messages of local slaves, if not before
_TURN = 16


class _Stream:
    """A connected socket that carries messages and never waits."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.client = b""  #: who is at the other end, when it has said so
        self.is_open = True
        self.is_full = False  #: whether somebody waits until there is room for what is unsent
        self.unsent: deque[memoryview] = deque()
        self._rest = bytearray()  # the start of a message

    def send(self, frames: Sequence[Frame]) -> None:
        """Send; what the other end has no room for now is kept in :attr:`unsent`."""
        if not self.is_open:
            return
        sizes = [memoryview(one).nbytes for one in frames]
        parts: list[Frame] = [struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes), *frames]
        if self.unsent or len(parts) > _MOST_PARTS:
            self._keep(parts, 0)
            self.flush()
            return
        sent = self._send(parts)
        if sent < len(parts[0]) + sum(sizes):
            self._keep(parts, sent)

    def _keep(self, parts: Sequence[Frame], sent: int) -> None:
        # copied, for the caller may change its arrays when this has returned
        self.unsent.append(memoryview(b"".join(map(bytes, parts)))[sent:])

    def flush(self) -> None:
        """Send what was kept, as far as there is room."""
        while self.unsent:
            sent = self._send([self.unsent[0]])
            if sent < len(self.unsent[0]):
                self.unsent[0] = self.unsent[0][sent:]
                return
            self.unsent.popleft()

    def _send(self, parts: Sequence[Frame]) -> int:
        try:
            sent: int = self.socket.sendmsg(parts)
        except BlockingIOError:
            return 0
        except OSError:  # the other end is gone
            self.is_open = False
            return 0
        return sent

    def read(self) -> list[list[Frame]]:
        """Return the messages that have arrived whole.

        Raises:
            WireError: what arrives is no message.
        """
        found: list[list[Frame]] = []
        while True:
            try:
                chunk = self.socket.recv(_CHUNK)
            except BlockingIOError:
                return found
            except OSError:
                chunk = b""
            if not chunk:
                self.is_open = False
                return found
            self._take(chunk, found)
            if len(chunk) < _CHUNK:
                return found

    def _take(self, chunk: bytes, found: list[list[Frame]]) -> None:
        buffer: bytes | bytearray = chunk
        if self._rest:
            self._rest += chunk
            buffer = self._rest
        at = 0
        while (end := _read_message(buffer, at, found)) > at:
            at = end
        if self._rest:
            del self._rest[:at]
        else:
            self._rest += chunk[at:]

    def last_words(self) -> list[list[Frame]]:
        """Return what had arrived when the other end went."""
        found: list[list[Frame]] = []
        with contextlib.suppress(OSError, WireError):
            while chunk := self.socket.recv(_CHUNK):
                self._take(chunk, found)
        return found

    def close(self) -> None:
        """Close at once."""
        self.is_open = False
        self.socket.close()


def _read_message(buffer: bytes | bytearray, at: int, found: list[list[Frame]]) -> int:
    """Add the message that begins there; return where it ends, or ``at`` if it is not whole."""
    if len(buffer) - at < _COUNT.size:
        return at
    (count,) = _COUNT.unpack_from(buffer, at)
    if not 0 < count <= _MOST_FRAMES:
        raise WireError(f"a message of {count} frames")
    start = at + _COUNT.size + 8 * count
    if start > len(buffer):
        return at
    sizes = struct.unpack_from(f"<{count}Q", buffer, at + _COUNT.size)
    end: int = start + sum(sizes)
    if end - start > _MOST_BYTES:
        raise WireError(f"a message of {end - start} bytes")
    if end > len(buffer):
        return at
    frames: list[Frame] = []
    for size in sizes:
        frames.append(buffer[start : start + size])
        start += size
    found.append(frames)
    return end


class UnixListener:
    """The master's side: a Unix socket for local slaves, and another listener for others.

    Args:
        path: of the socket, in a folder that only the user can open.
        others: where slaves from elsewhere come in.

    Raises:
        StorageError: there can be no socket of this path.
    """

    def __init__(self, path: Path, others: Others | None = None) -> None:
        self._path = path
        self._others = others
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            if others is not None:
                others.close()
            raise StorageError(f"no socket {path} can be made: {error}; set TMPDIR") from error
        self._socket.listen(128)
        self._socket.setblocking(False)
        self._clients: dict[bytes, _Stream] = {}
        self._strangers: set[_Stream] = set()  # who has not said a name yet
        self._arrived: deque[tuple[bytes, list[Frame]]] = deque()
        self._turn = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ, self._accept)
        self.addresses = [f"{_SCHEME}{path}"]
        if others is not None:
            self._selector.register(others.descriptor, selectors.EVENT_READ, lambda events: None)
            self.addresses += others.addresses

    def send(self, client: bytes, frames: Sequence[Frame]) -> bool:
        """Send; False when the client is gone or reads nothing any more. Never waits."""
        stream = self._clients.get(client)
        if stream is None:
            return self._others is not None and self._others.send(client, frames)
        if len(stream.unsent) >= _QUEUE:
            return False
        stream.send(frames)
        if not stream.is_open:
            self._arrived.extend((client, words) for words in stream.last_words())
        return self._goes_on(stream)

    def receive(self) -> tuple[bytes, list[Frame]] | None:
        """Return the next message and who sent it; None when none has arrived."""
        if not self._arrived:
            self._look(0)
        self._turn += 1
        if self._others is not None and (self._turn >= _TURN or not self._arrived):
            self._turn = 0
            message = self._others.receive()
            if message is not None:
                return message
        return self._arrived.popleft() if self._arrived else None

    def wait(self, timeout: float | None) -> set[int]:
        """Wait until a message arrives, a watched descriptor is ready, or time is up."""
        # asked before each wait, for ZeroMQ's descriptor tells of changes only
        if self._arrived or (self._others is not None and self._others.has_message):
            return set()
        return self._look(timeout)

    def _look(self, timeout: float | None) -> set[int]:
        ready: set[int] = set()
        for key, events in self._selector.select(timeout):
            if key.data is None:
                ready.add(key.fd)
            else:
                key.data(events)
        return ready

    def _accept(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # it has gone again
            stream = _Stream(self._socket.accept()[0])
            self._strangers.add(stream)
            self._selector.register(
                stream.socket, selectors.EVENT_READ, partial(self._serve, stream)
            )

    def _serve(self, stream: _Stream, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            stream.flush()
        if events & selectors.EVENT_READ:
            try:
                messages = stream.read()
            except WireError:
                messages = [[]]  # which is no message, whoever reads it
                stream.is_open = False
            for frames in messages:
                if stream.client:
                    self._arrived.append((stream.client, frames))
                elif frames:
                    self._introduce(stream, bytes(frames[0]))
        self._goes_on(stream)

    def _introduce(self, stream: _Stream, client: bytes) -> None:
        former = self._clients.get(client)
        if former is not None:
            self._drop(former)
        stream.client = client
        self._strangers.discard(stream)
        self._clients[client] = stream

    def _goes_on(self, stream: _Stream) -> bool:
        """Watch whether there is room for what was not sent; let go of who is gone."""
        if not stream.is_open:
            self._drop(stream)
            return False
        if stream.is_full != bool(stream.unsent):
            stream.is_full = not stream.is_full
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.is_full else 0)
            key = self._selector.get_key(stream.socket)
            self._selector.modify(stream.socket, events, key.data)
        return True

    def _drop(self, stream: _Stream) -> None:
        if stream.socket.fileno() >= 0:
            self._selector.unregister(stream.socket)
        stream.close()
        self._strangers.discard(stream)
        if self._clients.get(stream.client) is stream:
            del self._clients[stream.client]

    def watch(self, descriptor: int) -> None:
        """Let :meth:`wait` end when this descriptor is ready."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def unwatch(self, descriptor: int) -> None:
        """Do not look at it any more."""
        self._selector.unregister(descriptor)

    def close(self) -> None:
        """Close; what is not sent yet is given half a second."""
        until = time.monotonic() + 0.5
        while any(one.unsent for one in self._clients.values()) and time.monotonic() < until:
            self._look(0.05)
        for stream in (*self._clients.values(), *self._strangers):
            stream.close()
        self._selector.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)
        if self._others is not None:
            self._others.close()


class UnixConnection:
    """A local slave's side.

    Args:
        address: the master's, such as ``unix:///dev/shm/veloflow-abc/socket``.
        identity: what the master knows this client by; random and secret.
        patience: scales the time after which a master that takes nothing counts as gone.

    Raises:
        InputError: there is no master.
    """

    def __init__(self, address: str, identity: bytes, *, patience: float = 1.0) -> None:
        self._address = address
        self._limit = 10.0 * patience
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.connect(address.removeprefix(_SCHEME))
        except OSError as error:
            connected.close()
            raise InputError(f"no master listens on {address} ({error.strerror})") from None
        self._stream = _Stream(connected)
        self._arrived: deque[list[Frame]] = deque()
        self._readable, self._writable = poll(), poll()
        self._readable.register(connected, POLLIN)
        self._writable.register(connected, POLLOUT)
        self.send([identity])

    def send(self, frames: Sequence[Frame]) -> None:
        """Send; waits when the master does not read, but not for ever.

        What is sent to a master that is gone is lost; :meth:`receive` says so after its last word.

        Raises:
            ClusterError: the master takes nothing.
        """
        self._stream.send(frames)
        until = time.monotonic() + self._limit if self._stream.unsent else 0.0
        while self._stream.unsent and self._stream.is_open:
            left = until - time.monotonic()
            if left <= 0 or not self._writable.poll(1000 * left):
                raise ClusterError(f"the master at {self._address} takes nothing from this slave")
            self._stream.flush()

    def receive(self) -> list[Frame] | None:
        """Return the next message; None when none has arrived.

        Raises:
            ClusterError: the master is gone.
        """
        if not self._arrived:
            self._arrived.extend(self._stream.read())
        if self._arrived:
            return self._arrived.popleft()
        if not self._stream.is_open:
            raise ClusterError(f"the master at {self._address} is gone")
        return None

    def wait(self, timeout: float | None) -> bool:
        """Wait until a message arrives; return whether one has."""
        if self._arrived:
            return True
        milliseconds = None if timeout is None else max(0, round(timeout * 1000 + 0.5))
        return bool(self._readable.poll(milliseconds))

    def close(self) -> None:
        """Close; all is sent."""
        self._stream.close()
