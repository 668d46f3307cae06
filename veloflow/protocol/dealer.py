"""Which piece goes to which slave, and when a piece that somebody holds counts as late."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from veloflow.protocol.slaves import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from veloflow.protocol.audit import Audit
    from veloflow.protocol.clocks import Clocks
    from veloflow.protocol.ledger import Lease, Ledger
    from veloflow.protocol.messages import LeaseId
    from veloflow.protocol.pace import Pace
    from veloflow.protocol.slaves import Crowd, Slave

__all__ = ["Dealer"]


class Dealer:
    """Deals pieces out: what waits, then what is late, then what others have not begun.

    A piece is *barred* from a slave on which it failed, or which has computed it already and is
    to be compared with another. It goes to somebody else, and to that slave only if there is
    nobody else. A piece on which the answers differ goes to nobody rather than to one of those.
    """

    def __init__(
        self, ledger: Ledger, crowd: Crowd, pace: Pace, audit: Audit, clocks: Clocks
    ) -> None:
        self._clocks = clocks
        self._ledger = ledger
        self._crowd = crowd
        self._pace = pace
        self._audit = audit
        self._due: list[tuple[float, LeaseId, str]] = []  # when leases that are begun are late
        self._late: dict[int, None] = {}  # pieces that wait for a second slave
        self._barred: dict[int, set[str]] = {}
        self._quiet_until = -math.inf
        self.wishes: dict[int, str] = {}  #: which slave a piece was cut for
        self.shared: set[int] = set()  #: pieces that are not given again before they are late
        self.again = 0  #: how often a piece was given to a second slave

    @property
    def deadline(self) -> float | None:
        """When the next lease is late, if nothing happens."""
        return max(self._due[0][0], self._quiet_until) if self._due else None

    # -- what happens to leases ---------------------------------------------------------------

    def answered(self, slave: Slave, lease: LeaseId, now: float) -> None:
        """Take an answer off what a slave owes; it has begun with the next."""
        was_first = next(iter(slave.owed)) == lease
        del slave.owed[lease]
        if was_first and slave.owed:
            self._begin(slave, now)
        self._crowd.place(slave)
        # what has its answer is never late: who waits for the next time needs not wake up for it
        while self._due and not self._is_begun(*self._due[0]):
            heapq.heappop(self._due)

    def _is_begun(self, due: float, lease: LeaseId, id_: str) -> bool:
        """Whether a slave computes this lease: it is the first that it owes."""
        return next(iter(self._crowd.by_id[id_].owed), None) == lease

    def _begin(self, slave: Slave, now: float) -> None:
        slave.started = now
        lease = next(iter(slave.owed))
        heapq.heappush(self._due, (now + self._pace.limit(slave.owed[lease]), lease, slave.id))

    def returned(self, number: int) -> None:
        """A holder of a piece is gone; if there is another, it has had its time already."""
        if self._ledger[number].is_waiting:
            self._late.pop(number, None)
        else:
            self._late[number] = None

    def bar(self, number: int, slave: str) -> None:
        """Keep a piece from a slave, as long as there are others."""
        self._barred.setdefault(number, set()).add(slave)

    def settle(self, number: int) -> None:
        """Forget a piece that is done."""
        self._late.pop(number, None)
        self._barred.pop(number, None)
        self.shared.discard(number)
        self.wishes.pop(number, None)

    def has_other(self, number: int) -> bool:
        """Whether a slave is well that this piece is not barred from."""
        # few are barred, so this ends soon
        return any(one.state is State.WELL and self._may(number, one) for one in self._crowd)

    def _may(self, number: int, slave: Slave) -> bool:
        """Whether a piece is not barred from a slave, nor from its kind."""
        kind = self._audit.kind_of(number)
        return slave.id not in self._barred.get(number, ()) and kind in (None, slave.kind)

    # -- time ---------------------------------------------------------------------------------

    def keep_quiet(self, until: float) -> None:
        """Call nothing late before that time: the answers may have come and be unread."""
        self._quiet_until = until

    def pass_time(self, now: float) -> None:
        """Find out what is late."""
        while self._due and now >= max(self._due[0][0], self._quiet_until):
            due, lease, id_ = heapq.heappop(self._due)
            if self._is_begun(due, lease, id_) and self._is_only(lease):
                self._late[lease.number] = None

    def _is_only(self, lease: LeaseId) -> bool:
        """Whether this lease is the only current one of its piece."""
        if lease.number not in self._ledger:
            return False
        leases = self._ledger[lease.number].leases
        return len(leases) == 1 and leases[0].id == lease

    # -- dealing ------------------------------------------------------------------------------

    def deal(self, now: float) -> tuple[Slave, LeaseId] | None:
        """Give one piece to one slave; None when there is nothing to give, or nobody to take it."""
        dealt = self._deal_waiting() or self._deal_again()
        if dealt is None:
            return None
        slave, lease = dealt
        piece = self._ledger[lease.id.number].piece
        slave.owed[lease.id] = (piece.kind, piece.count)
        if len(slave.owed) == 1:
            self._begin(slave, now)
        self._crowd.place(slave)
        return slave, lease.id

    def _free(self) -> Iterator[Slave]:
        """Yield those that may get a piece that waits, the least loaded first."""
        free = self._crowd.free()
        if not self._clocks.is_bounded:
            return free
        return (one for one in free if self._clocks.may_begin(one.id))

    def _deal_waiting(self) -> tuple[Slave, Lease] | None:
        for number in self._ledger.queue:  # more than the first only past barred pieces
            slave = self._taker(number)
            if slave is not None:
                self._clocks.granted(slave.id, number, again=False)
                return slave, self._ledger.lease_this(number, slave.id)
            if next(self._free(), None) is None:
                return None
        return None

    def _taker(self, number: int) -> Slave | None:
        wished = self.wishes.get(number)
        if wished is not None:
            for one in self._free():
                if one.id == wished and self._may(number, one):
                    return one
        is_for_all = number not in self._barred and number not in self._audit
        if is_for_all or not (self.has_other(number) or number in self._audit.disputed):
            return next(self._free(), None)
        return next((one for one in self._free() if self._may(number, one)), None)

    def _deal_again(self) -> tuple[Slave, Lease] | None:
        """Let an idle slave take on what is late, then what another has not begun."""
        if not self._crowd.idle:
            return None
        idle = next(self._crowd.free(0))
        for number in self._late:  # more than the first only past barred pieces
            slave = next((one for one in self._crowd.free(0) if self._may(number, one)), None)
            if slave is not None:
                return self._give_again(number, slave)
        unbegun = self._next_unbegun(idle)
        return None if unbegun is None else self._give_again(unbegun, idle)

    def _give_again(self, number: int, slave: Slave) -> tuple[Slave, Lease]:
        self._late.pop(number, None)
        self.again += 1
        self._clocks.granted(slave.id, number, again=True)
        return slave, self._ledger.lease_again(number, slave.id)

    def _next_unbegun(self, slave: Slave) -> int | None:
        """Return a piece that another slave holds and has not begun, the last that it got."""
        stacked = self._crowd.stacked
        while stacked:
            id_ = next(iter(stacked))
            for lease in reversed(list(self._crowd.by_id[id_].owed)[1:]):
                is_free = lease.number not in self.shared and self._may(lease.number, slave)
                if is_free and self._is_only(lease):
                    return lease.number
            del stacked[id_]  # nothing more to take there until it gets another piece
        return None

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the state is broken.
        """
        due = {(lease, id_) for _, lease, id_ in self._due}
        for slave in self._crowd:
            first = next(iter(slave.owed), None)
            if first is not None and self._is_only(first):
                is_watched = (first, slave.id) in due or first.number in self._late
                assert is_watched, f"nobody sees when {first} is late"
        for number in self._late:
            assert not self._ledger[number].is_waiting, f"piece {number} is late and waits"
            assert len(self._ledger[number].leases) == 1, f"piece {number} is late with two"
        for number in (*self._barred, *self.wishes, *self.shared):
            assert number in self._ledger, f"piece {number} is done and not forgotten"

    def validate_dealt(self) -> None:
        """Check that no piece waits which somebody could take.

        Raises:
            AssertionError: one does.
        """
        free = list(self._free())
        for number in self._ledger.queue if free else ():
            is_choosy = self.has_other(number) or number in self._audit.disputed
            takers = [one.id for one in free if not is_choosy or self._may(number, one)]
            assert not takers, f"piece {number} waits, and so do {sorted(takers)}"
