"""Work and nobody to do it: the master says so, computes itself, or asks for one slave more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.protocol.events import STAND_IN, Recruit, Say, StandDown, StandIn

if TYPE_CHECKING:
    from veloflow.protocol.audit import Audit
    from veloflow.protocol.dealer import Dealer
    from veloflow.protocol.events import Action
    from veloflow.protocol.ledger import Ledger
    from veloflow.protocol.slaves import Crowd

__all__ = ["Hunger"]

#: so many seconds without slaves, then the master computes itself
_WAIT = 2.0


class Hunger:
    """Sees that pieces wait for slaves which are not there; says each thing once.

    Args:
        ledger, crowd, audit, dealer: of the master.
        works: whether the master computes itself while there are no slaves.
        patience: scales every wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        crowd: Crowd,
        audit: Audit,
        dealer: Dealer,
        *,
        works: bool,
        patience: float,
    ) -> None:
        self._ledger = ledger
        self._crowd = crowd
        self._audit = audit
        self._dealer = dealer
        self._works = works
        self._wait = _WAIT * patience
        self._since: float | None = None
        self._lacks_judge = False

    @property
    def deadline(self) -> float | None:
        """When the master begins to compute itself if no slave joins; None for never."""
        if not self._works or STAND_IN in self._crowd.by_client or self._since is None:
            return None
        return self._since + self._wait

    def watch(self, now: float) -> list[Action]:
        """Return what is to be done where there is work for nobody, or for somebody again."""
        actions: list[Action] = []
        has_slaves = len(self._crowd) > (STAND_IN in self._crowd.by_client)
        if not has_slaves and len(self._ledger):
            if self._since is None:
                self._since = now
                what = "no slaves left" if self._crowd.by_id else "no slaves yet"
                then = "the master computes itself" if self._works else "the run waits"
                actions.append(Say("warning", f"{what}; {then} until one joins"))
            if self.deadline is not None and now >= self.deadline:
                actions.append(StandIn())
        elif self._since is not None and has_slaves:
            self._since = None
            actions.append(Say("info", "there is a slave; the run goes on"))
            if STAND_IN in self._crowd.by_client:
                actions.append(StandDown())
        if self._audit.disputed or self._lacks_judge:
            self._watch_disputes(actions)
        return actions

    def _watch_disputes(self, actions: list[Action]) -> None:
        """Ask for one more slave, once, if there is none to judge where two differ."""
        waiting = (number for number in self._audit.disputed if self._ledger[number].is_waiting)
        number = next((one for one in waiting if not self._dealer.has_other(one)), None)
        if number is not None and not self._lacks_judge:
            device, hardware = self._audit.kind_of(number) or ("", "")
            kind = f"{device} on {hardware}"
            text = f"nobody can judge: piece {number} waits for one more ({kind})"
            actions.append(Say("warning", text))
            actions.append(Recruit())
        self._lacks_judge = number is not None
