"""How many slaves a run should have: more while work waits, fewer where some are idle for long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from veloflow.errors import OptionError
from veloflow.protocol.events import STAND_IN, Say, Want

if TYPE_CHECKING:
    from veloflow.protocol.events import Action
    from veloflow.protocol.ledger import Ledger
    from veloflow.protocol.slaves import Crowd

__all__ = ["Bounds", "Elasticity", "Scaling"]

#: over so many seconds, times patience, it is measured how much work waits
_WINDOW = 3.0
#: so many pieces wait on the average: then one slave more is worth its start
_PRESSING = 0.5
#: those that were asked for have so many seconds, times patience, to come before more are
_COMING = 15.0
#: a slave that was not needed for one moment in so many seconds, times patience, may go
_LONG = 30.0


@dataclass(frozen=True)
class Bounds:
    """The fewest and the most slaves that a run is to have of those that are started for it."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: int | str) -> Bounds:
        """Read ``4``, or ``2:8`` for two at least and eight at most.

        Raises:
            OptionError: it is neither.
        """
        first, colon, second = str(text).partition(":")
        ends = [first, second] if colon else [first]
        if not all(one.isascii() and one.isdecimal() and len(one) < 7 for one in ends):
            raise OptionError(f"--slaves {text}: give a number, or MIN:MAX such as 2:8")
        bounds = cls(int(ends[0]), int(ends[-1]))
        if colon and not 1 <= bounds.least <= bounds.most:
            raise OptionError(f"--slaves {text}: MIN is to be 1 at least, and MAX not less than it")
        return bounds

    @property
    def is_elastic(self) -> bool:
        """Whether there is anything to decide."""
        return self.least < self.most


class Elasticity:
    """The number of slaves that a run should have. It is shown what happens, and says changes.

    Work waits where pieces have no slave of their own: nobody holds them, or who holds them
    computes another first. Where that is so for long enough, as many slaves more are wanted as
    pieces wait, at most twice as many as there were; no others before these have come, or had the
    time to. A slave that was idle is wanted no more when so many were idle at *every* moment of a
    long time, so that what goes was never needed, and the work that is there needs no more after.

    Args:
        bounds: what is never left.
        patience: scales all waiting.
    """

    def __init__(self, bounds: Bounds, patience: float = 1.0) -> None:
        self.wanted = bounds.least
        self._bounds = bounds
        self._patience = patience
        self._at: float | None = None
        self._behind = 0
        self._area = 0.0  # pieces that waited, times the seconds that they did
        self._since = 0.0
        self._idle_since = 0.0
        self._fewest_idle: float = math.inf
        self._expected = bounds.least
        self._coming_until: float | None = None  # until when those asked for have time

    @property
    def deadline(self) -> float | None:
        """When to look again at the latest; None where nothing can be decided then."""
        if self._at is None:
            return None
        times = []
        if self._behind and self.wanted < self._bounds.most:
            times.append(self._since + _WINDOW * self._patience)
        if self._fewest_idle and self.wanted > self._bounds.least:
            times.append(self._idle_since + _LONG * self._patience)
        return min(times, default=None)

    def look(self, now: float, *, behind: int, idle: int, present: int) -> int | None:
        """Take note of how things are from now on; return how many are wanted if that is new.

        Args:
            now: the time.
            behind: how many pieces are not done and have no slave that computes them.
            idle: how many slaves have nothing to do.
            present: how many slaves there are.
        """
        if self._at is None:
            self._at = self._since = self._idle_since = now
            self._coming_until = now + _COMING * self._patience  # the first ones
        self._area += self._behind * (now - self._at)
        self._at = now
        self._behind = behind
        self._fewest_idle = min(self._fewest_idle, idle)
        before = self.wanted
        until = self._coming_until
        if until is not None and (present >= self._expected or now >= until):
            self._coming_until = None
            self._area, self._since = 0.0, now  # what waited for them says nothing
        if now >= self._since + _WINDOW * self._patience:
            self._grow(now, present)
        if now >= self._idle_since + _LONG * self._patience:
            self._shrink(now)
        return None if self.wanted == before else self.wanted

    def _grow(self, now: float, present: int) -> None:
        waiting = self._area / (now - self._since)
        self._area, self._since = 0.0, now
        is_full = self.wanted >= self._bounds.most
        if waiting < _PRESSING or is_full or self._coming_until is not None:
            return
        more = min(math.ceil(waiting), max(1, self.wanted), self._bounds.most - self.wanted)
        self.wanted += more
        self._expected = present + more
        self._coming_until = now + _COMING * self._patience
        self._idle_since, self._fewest_idle = now, math.inf

    def _shrink(self, now: float) -> None:
        surplus = min(self._fewest_idle, self.wanted - self._bounds.least)
        self._idle_since, self._fewest_idle = now, math.inf
        if surplus > 0:
            self.wanted -= int(surplus)


class Scaling:
    """Shows the master's ledger and its crowd to :class:`Elasticity`, and says what it wants.

    Args:
        ledger, crowd: of the master.
        bounds: of the number of slaves; None, or a single number, where there is nothing to decide.
        patience: scales all waiting.
    """

    def __init__(
        self, ledger: Ledger, crowd: Crowd, bounds: Bounds | None, patience: float
    ) -> None:
        self._ledger = ledger
        self._crowd = crowd
        is_elastic = bounds is not None and bounds.is_elastic
        self._elasticity = Elasticity(bounds, patience) if bounds and is_elastic else None

    @property
    def deadline(self) -> float | None:
        """When to look again at the latest; None for never."""
        return None if self._elasticity is None else self._elasticity.deadline

    def watch(self, now: float) -> list[Action]:
        """Return what is to be done about the number of slaves."""
        if self._elasticity is None:
            return []
        idle, well = self._crowd.idle, self._crowd.well
        before = self._elasticity.wanted
        wanted = self._elasticity.look(
            now,
            behind=max(0, len(self._ledger) - (well - idle)),
            idle=idle,
            present=well - (STAND_IN in self._crowd.by_client),  # the master itself is no slave
        )
        if wanted is None:
            return []
        spare = before - wanted
        why = "work waits" if spare < 0 else f"{spare} had nothing to do for long"
        return [Say("info", f"{wanted} slaves are wanted, not {before}: {why}"), Want(wanted)]
