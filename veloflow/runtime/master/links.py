"""How arrays travel between a master and its slaves: who has an outbox, and which slot is whose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veloflow.errors import StorageError
from veloflow.runtime.jobs.round_log import RoundLog
from veloflow.runtime.jobs.round_order import LOG
from veloflow.runtime.transport.shared_memory import Outbox

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from veloflow.protocol.messages import Hello, LeaseId
    from veloflow.runtime.jobs.round_order import Order

__all__ = ["Link", "Links"]


@dataclass
class Link:
    """What the shell knows of a client: how its arrays travel.

    A slave that says another hello gets another link; slots go back to the link they are of.
    """

    hello: Hello
    outbox: Outbox | None
    slots: list[int]
    version: int = 0  # of the parameters that were sent to it
    state: int = 0  # of all that the next step depends on, where it exchanges gradients
    log: RoundLog | None = None


class Links:
    """The links of all clients, and where the arrays of each lease will be.

    Args:
        folder: the run's, with the files of shared memory.
        size, dtype: of the flat vector of gradients.
        prefetch: how many jobs a slave may hold.
    """

    def __init__(self, folder: Path, size: int, dtype: np.dtype[Any], prefetch: int) -> None:
        self._folder = folder
        self._size, self._dtype = size, dtype
        self._prefetch = prefetch
        self._by_client: dict[bytes, Link] = {}
        #: number of a piece -> client and lease -> where its arrays will be
        self._granted: dict[int, dict[tuple[bytes, LeaseId], tuple[Link, int]]] = {}
        #: number of a piece that was accepted and may still be read -> the slot of its arrays
        self._spent: dict[int, tuple[Link, int]] = {}

    def __contains__(self, client: object) -> bool:
        return client in self._by_client

    def __getitem__(self, client: bytes) -> Link:
        return self._by_client[client]

    def connect(self, client: bytes, hello: Hello) -> str:
        """Open the slave's outbox; return why it cannot be taken in, if so."""
        former = self._by_client.get(client)
        if former is not None and former.hello == hello:
            return ""  # it only asked again
        outbox = None
        slots = min(hello.capacity, self._prefetch) + 2
        if hello.memory:
            if Path(hello.memory).name != hello.memory:
                return "its outbox is not in the run's folder"
            try:
                outbox = Outbox(self._folder / hello.memory, self._size, self._dtype, slots)
            except (StorageError, OSError, ValueError) as error:
                return f"its outbox cannot be read: {error}"
        self._by_client[client] = Link(hello, outbox, list(range(slots)))
        return ""

    def drop(self, client: bytes) -> None:
        """Forget a client; what it was granted is forgotten with the pieces."""
        self._by_client.pop(client, None)

    def grant(self, client: bytes, lease: LeaseId) -> int:
        """Keep a slot for the arrays of a lease; return its number."""
        link = self._by_client[client]
        slot = link.slots.pop(0) if link.outbox is not None else 0
        self._granted.setdefault(lease.number, {})[client, lease] = link, slot
        return slot

    def has_granted(self, client: bytes, lease: LeaseId) -> bool:
        """Whether a client has this lease of a piece that is not done."""
        return (client, lease) in self._granted.get(lease.number, {})

    def slot(self, client: bytes, lease: LeaseId) -> NDArray[Any] | None:
        """Return the slot of shared memory for a lease that was granted, as a view; or None."""
        link, slot = self._granted[lease.number][client, lease]
        return None if link.outbox is None else link.outbox[slot]

    def state_after(self, client: bytes, lease: LeaseId, order: Order) -> NDArray[Any]:
        """Return the state after a block, as whoever had this lease has left it; a view.

        Raises:
            StorageError, FileNotFoundError: it has left nothing.
        """
        link, _ = self._granted[lease.number][client, lease]
        if link.log is None:
            link.log = RoundLog(self._folder / f"{link.hello.memory}{LOG}", order.shape)
        return link.log.state(order.block)

    def answered(self, client: bytes, lease: LeaseId) -> None:
        """Take back the slot of a lease whose answer did not count: nobody writes there any more.

        A slave that is silent again and again may have many attempts at one piece.
        """
        link, slot = self._granted.get(lease.number, {}).pop((client, lease), (None, 0))
        if link is not None and link.outbox is not None:
            link.slots.append(slot)

    def withdraw(self, number: int) -> None:
        """Take back the slots of a piece that nobody is to compute any more."""
        for link, slot in self._granted.pop(number, {}).values():
            if link.outbox is not None:
                link.slots.append(slot)

    def accept(self, client: bytes, lease: LeaseId) -> None:
        """Take back the slots of a piece that is done: the winner's when it has been read."""
        for key, (link, slot) in self._granted.pop(lease.number, {}).items():
            if link.outbox is None:
                continue
            if key == (client, lease):
                self._spent[lease.number] = link, slot
            else:
                link.slots.append(slot)

    def release(self, number: int) -> None:
        """Take back the slot of a piece that was accepted, and that nobody reads any more."""
        if number in self._spent:
            link, slot = self._spent.pop(number)
            link.slots.append(slot)

    def close(self) -> None:
        """Let go of all shared memory."""
        for link in self._by_client.values():
            link.outbox = link.log = None
