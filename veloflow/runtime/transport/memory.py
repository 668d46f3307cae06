"""The twin of the connections, within one process: a slave in a thread, under a debugger.

``veloflow.run(..., listen=["memory://here"])`` in one thread, ``join("memory://here", "numpy")``
of :mod:`veloflow.runtime.slaves.slave` in others. It passes the tests of the connections that cross
processes, so what works with it works with them.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from veloflow.errors import ClusterError, InputError

if TYPE_CHECKING:
    from veloflow.runtime.transport.connections import Frame

__all__ = ["MemoryConnection", "MemoryListener"]

T = TypeVar("T")

_listeners: dict[str, MemoryListener] = {}
_lock = threading.Lock()


class _Inbox(Generic[T]):
    """A queue between threads whose descriptor is ready while it holds something."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self.descriptor, self._bell = os.pipe()
        self._is_open = True

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Put an item last; return whether the inbox is open."""
        with self._lock:
            if self._is_open:
                if not self._items:
                    os.write(self._bell, b"!")
                self._items.append(item)
            return self._is_open

    def take(self) -> T | None:
        """Take the first item; None when there is none."""
        with self._lock:
            if not self._items:
                return None
            item = self._items.popleft()
            if not self._items and self._is_open:
                os.read(self.descriptor, 1)
            return item

    def close(self) -> None:
        """Take nothing more."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                os.close(self.descriptor)
                os.close(self._bell)


class MemoryListener:
    """The master's side.

    Args:
        address: any that begins with ``memory://``.

    Raises:
        InputError: somebody listens there.
    """

    def __init__(self, address: str) -> None:
        self.addresses = [address]
        with _lock:
            if address in _listeners:
                raise InputError(f"cannot listen on {address}: somebody does; give another name")
            self.inbox: _Inbox[tuple[bytes, list[Frame]]] = _Inbox()
            self.clients: dict[bytes, _Inbox[list[Frame]]] = {}
            self.is_open = True
            self.descriptor = self.inbox.descriptor
            self._selector = selectors.DefaultSelector()
            self._selector.register(self.descriptor, selectors.EVENT_READ)
            _listeners[address] = self  # last: who finds it may connect at once

    @property
    def has_message(self) -> bool:
        """Whether :meth:`receive` would return one now."""
        return bool(len(self.inbox))

    def send(self, client: bytes, frames: Sequence[Frame]) -> bool:
        """Send; False when the client is gone. Never waits."""
        inbox = self.clients.get(client)
        return inbox is not None and inbox.put([bytes(one) for one in frames])

    def receive(self) -> tuple[bytes, list[Frame]] | None:
        """Return the next message and who sent it; None when none has arrived."""
        return self.inbox.take()

    def wait(self, timeout: float | None) -> set[int]:
        """Wait until a message arrives, a watched descriptor is ready, or time is up."""
        ready = {key.fd for key, _ in self._selector.select(timeout)}
        return ready - {self.descriptor}

    def watch(self, descriptor: int) -> None:
        """Let :meth:`wait` end when this descriptor is ready."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def unwatch(self, descriptor: int) -> None:
        """Do not look at it any more."""
        self._selector.unregister(descriptor)

    def close(self) -> None:
        """Close; what was sent can still be received."""
        with _lock:
            _listeners.pop(self.addresses[0], None)
        self.is_open = False
        for inbox in list(self.clients.values()):
            inbox.put([])  # who waits is to find out
        self._selector.close()
        self.inbox.close()


class MemoryConnection:
    """A slave's side.

    Args:
        address: the listener's.
        identity: what the master knows this client by.

    Raises:
        InputError: nobody listens there.
    """

    def __init__(self, address: str, identity: bytes) -> None:
        with _lock:
            listener = _listeners.get(address)
        if listener is None:
            raise InputError(f"no master listens on {address} in this process")
        self._address = address
        self._identity = identity
        self._listener = listener
        self._inbox: _Inbox[list[Frame]] = _Inbox()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inbox.descriptor, selectors.EVENT_READ)
        listener.clients[identity] = self._inbox

    def send(self, frames: Sequence[Frame]) -> None:
        """Send; what is sent to a master that is gone is lost, and :meth:`receive` says so."""
        self._listener.inbox.put((self._identity, [bytes(one) for one in frames]))

    def receive(self) -> list[Frame] | None:
        """Return the next message; None when none has arrived.

        Raises:
            ClusterError: the master is gone.
        """
        frames = self._inbox.take()
        if not frames and not self._listener.is_open:
            raise ClusterError(f"the master at {self._address} is gone")
        return frames

    def wait(self, timeout: float | None) -> bool:
        """Wait until a message arrives; return whether one has."""
        return bool(self._selector.select(timeout))

    def close(self) -> None:
        """Close."""
        if self._listener.clients.get(self._identity) is self._inbox:
            del self._listener.clients[self._identity]
        self._selector.close()
        self._inbox.close()
