"""The ledger: every piece of work, whether it waits, is leased or is done, and to whom.

The promise: each piece is completed exactly once, whatever is lost, late or said twice. A result
counts only if its lease is current, and the first current lease to answer wins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from msgspec import Struct

from veloflow.protocol.messages import LeaseId, Piece

__all__ = ["Entry", "Lease", "Ledger", "Verdict"]


class Verdict(Enum):
    """What the ledger says of a result."""

    ACCEPTED = "accepted"
    LATE = "late"  #: the piece is done, or the lease was taken back
    UNKNOWN = "unknown"  #: no such lease was ever given to that slave


class Lease(Struct, frozen=True):
    """A piece given to a slave."""

    id: LeaseId
    slave: str


@dataclass(slots=True)
class Entry:
    """A piece and its fate so far."""

    piece: Piece
    attempts: int = 0
    leases: list[Lease] = field(default_factory=list)
    #: who held which attempt, for telling a late answer from one that was never asked for
    holders: dict[int, str] = field(default_factory=dict)
    is_done: bool = False
    is_waiting: bool = True


class Ledger:
    """All pieces that are not settled yet. Settled ones are forgotten with :meth:`forget`."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._waiting: deque[int] = deque()
        self._by_slave: dict[str, dict[int, Lease]] = {}
        self.accepted = 0
        self.late = 0
        self.unknown = 0
        self.returned = 0

    # -- questions ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def __getitem__(self, number: int) -> Entry:
        return self._entries[number]

    @property
    def waiting(self) -> int:
        """How many pieces nobody holds."""
        return len(self._waiting)

    @property
    def queue(self) -> Iterator[int]:
        """The numbers of the pieces that nobody holds, in the order in which they are leased."""
        return iter(self._waiting)

    @property
    def open(self) -> Iterator[Entry]:
        """The pieces that are not done."""
        return (entry for entry in self._entries.values() if not entry.is_done)

    def leases_of(self, slave: str) -> list[Lease]:
        """Return what a slave holds, the oldest first."""
        return list(self._by_slave.get(slave, {}).values())

    def is_current(self, id_: LeaseId) -> bool:
        """Return whether a result of this lease would count."""
        entry = self._entries.get(id_.number)
        return entry is not None and any(one.id == id_ for one in entry.leases)

    def load_of(self, slave: str) -> int:
        """Return how many leases a slave holds."""
        return len(self._by_slave.get(slave, ()))

    # -- changes ------------------------------------------------------------------------------

    def add(self, pieces: Iterable[Piece]) -> None:
        """Take in new pieces, to be leased in this order."""
        for piece in pieces:
            if piece.number in self._entries:
                raise ValueError(f"piece {piece.number} is in the ledger already")
            self._entries[piece.number] = Entry(piece)
            self._waiting.append(piece.number)

    def lease(self, slave: str) -> Lease | None:
        """Give the next waiting piece to a slave; None when none waits."""
        if not self._waiting:
            return None
        return self.lease_this(self._waiting[0], slave)

    def lease_this(self, number: int, slave: str) -> Lease:
        """Give a piece that waits to a slave, out of its turn too."""
        self._waiting.remove(number)  # it is among the first
        self._entries[number].is_waiting = False
        return self._grant(self._entries[number], slave)

    def lease_again(self, number: int, slave: str) -> Lease:
        """Give a piece that others hold to one slave more: the first answer wins."""
        entry = self._entries[number]
        if entry.is_done or entry.is_waiting or any(one.slave == slave for one in entry.leases):
            raise ValueError(f"piece {number} is not to be leased again to {slave}")
        return self._grant(entry, slave)

    def _grant(self, entry: Entry, slave: str) -> Lease:
        lease = Lease(LeaseId(entry.piece.number, entry.attempts), slave)
        entry.holders[entry.attempts] = slave
        entry.attempts += 1
        entry.leases.append(lease)
        self._by_slave.setdefault(slave, {})[entry.piece.number] = lease
        return lease

    def complete(self, id_: LeaseId, slave: str) -> tuple[Verdict, list[Lease]]:
        """Take a result; return the verdict and the other leases that are void now."""
        entry = self._entries.get(id_.number)
        if entry is None:
            self.late += 1  # settled long ago: what it was cannot be told any more
            return Verdict.LATE, []
        if entry.holders.get(id_.attempt) != slave:
            self.unknown += 1
            return Verdict.UNKNOWN, []
        void = [one for one in entry.leases if one.id != id_]
        if len(void) == len(entry.leases):  # one that is done has none
            self.late += 1
            return Verdict.LATE, []
        entry.is_done = True
        self.accepted += 1
        for lease in entry.leases:
            self._release(lease)
        entry.leases.clear()
        return Verdict.ACCEPTED, void

    def take_back(self, id_: LeaseId) -> bool:
        """Void a lease; the piece waits again, first in line, unless another still holds it.

        Returns whether the lease was current.
        """
        entry = self._entries.get(id_.number)
        lease = next((one for one in entry.leases if one.id == id_), None) if entry else None
        if entry is None or lease is None:
            return False
        entry.leases.remove(lease)
        self._release(lease)
        if not entry.leases:
            entry.is_waiting = True
            self._waiting.appendleft(id_.number)
            self.returned += 1
        return True

    def lose(self, slave: str) -> list[Lease]:
        """Void all leases of a slave; return them. Their pieces are first in line, in order."""
        lost = self.leases_of(slave)
        for lease in sorted(lost, key=lambda one: one.id.number, reverse=True):
            self.take_back(lease.id)
        return lost

    def withdraw(self, number: int) -> list[Lease]:
        """Drop a piece that is not done; return its leases, which are void."""
        entry = self._entries.pop(number)
        if entry.is_waiting:
            self._waiting.remove(number)
        for lease in entry.leases:
            self._release(lease)
        return entry.leases

    def forget(self, number: int) -> None:
        """Drop a piece that is done and settled."""
        if not self._entries[number].is_done:
            raise ValueError(f"piece {number} is not done")
        del self._entries[number]

    def _release(self, lease: Lease) -> None:
        held = self._by_slave[lease.slave]
        if held.get(lease.id.number) is lease:
            del held[lease.id.number]
        if not held:
            del self._by_slave[lease.slave]

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the ledger is broken.
        """
        waiting = set(self._waiting)
        assert len(waiting) == len(self._waiting), "a piece waits twice"
        for number, entry in self._entries.items():
            states = (entry.is_done, entry.is_waiting, bool(entry.leases))
            assert sum(states) == 1, f"piece {number} is in no single state: {entry}"
            assert entry.is_waiting == (number in waiting), f"piece {number}: {entry}"
            slaves = [lease.slave for lease in entry.leases]
            assert len(set(slaves)) == len(slaves), f"piece {number} is leased twice to one slave"
            for lease in entry.leases:
                assert self._by_slave[lease.slave][number] is lease, f"{lease} is not filed"
        for slave, held in self._by_slave.items():
            for number, lease in held.items():
                assert lease in self._entries[number].leases, f"{slave} holds a void {lease}"
