"""Bounded staleness: who may begin another piece without running too far ahead of the slowest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veloflow.protocol.ledger import Ledger

__all__ = ["Clocks"]


class Clocks:
    """Numbers the pieces of each slave, its *clocks*, and holds back who is ahead.

    The lowest clock that somebody is busy with is the slowest's. A slave may begin a clock that is
    ``bound`` above it at most. A piece is under way until its update is *applied*, or until nobody
    holds it any more. Who has nothing to do holds nobody back, and goes on with the slowest's
    clock or its own, whichever is later; so the slowest's never falls, and somebody may always go
    on. A second lease of a piece has the clock of the first: it helps the slowest.

    Args:
        ledger: who holds which piece.
        bound: how many clocks a slave may be ahead; None for no bound.
    """

    def __init__(self, ledger: Ledger, bound: int | None) -> None:
        self._ledger = ledger
        self._bound = bound
        self._next: dict[str, int] = {}
        self._busy: dict[int, dict[str, int]] = {}  # number of a piece -> slave -> its clock

    def change(self, bound: int | None) -> None:
        """Hold to another bound from now on: all count anew.

        Raises:
            ValueError: a piece is under way.
        """
        here = [self._ledger[number] for number in self._busy if number in self._ledger]
        if not all(entry.is_done for entry in here):
            raise ValueError("the bound of staleness cannot change while pieces are under way")
        self._bound = bound
        self._busy.clear()
        self._next.clear()

    @property
    def is_bounded(self) -> bool:
        """Whether anybody may be held back."""
        return self._bound is not None

    def may_begin(self, slave: str) -> bool:
        """Whether a slave may be given another piece."""
        if self._bound is None:
            return True
        lowest = self._lowest()
        return lowest is None or max(self._next.get(slave, 0), lowest) <= lowest + self._bound

    def granted(self, slave: str, number: int, *, again: bool) -> None:
        """Take note that a piece was given to a slave, the first one or one more."""
        if self._bound is None:
            return
        if again and self._busy.get(number):
            clock = min(self._busy[number].values())
        else:
            clock = max(self._next.get(slave, 0), self._lowest() or 0)
        self._busy.setdefault(number, {})[slave] = clock
        self._next[slave] = max(self._next.get(slave, 0), clock + 1)

    def applied(self, number: int) -> None:
        """Take note that the update of a piece can be seen in the parameters."""
        self._busy.pop(number, None)

    def _lowest(self) -> int | None:
        for number in [one for one in self._busy if one in self._ledger]:
            entry = self._ledger[number]
            if entry.is_done:
                continue
            holders = {lease.slave for lease in entry.leases}
            held = {one: clock for one, clock in self._busy[number].items() if one in holders}
            if held:
                self._busy[number] = held
            else:  # all who had it are lost: whoever gets it next begins a clock of its own
                del self._busy[number]
        clocks = [clock for held in self._busy.values() for clock in held.values()]
        return min(clocks, default=None)

    def validate(self) -> None:
        """Check that nobody is further ahead than allowed.

        Raises:
            AssertionError: somebody is.
        """
        lowest = self._lowest()
        if self._bound is None or lowest is None:
            return
        highest = max(clock for held in self._busy.values() for clock in held.values())
        assert highest <= lowest + self._bound, f"clocks {lowest} to {highest}: {self._busy}"
