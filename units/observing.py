"""Observers: units that look on while a network trains, and change nothing."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from veloflow.core import Unit

if TYPE_CHECKING:
    from veloflow.units.standard import StandardUnits

__all__ = ["Observer"]


class Observer(Unit):
    """Looks on. An outline: subclasses link themselves to the units of a standard workflow.

    ``standard_workflow(observers=[...])`` runs them after the decision and the watchers, in each
    round; by hand they are linked like any other unit.
    """

    group: ClassVar[str] = "service"

    @abstractmethod
    def observe(self, units: StandardUnits) -> None:
        """Link what is to be looked at.

        Raises:
            GraphError: there is no such thing among the units.
        """
