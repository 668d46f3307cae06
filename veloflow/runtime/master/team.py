"""Crews whose slaves can compute blocks of rounds ahead of the master."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from veloflow.runtime.master.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.protocol.messages import Piece
    from veloflow.runtime.jobs.peer_order import PeerOrder
    from veloflow.runtime.jobs.round_order import Order
    from veloflow.runtime.slaves.worker import Jobs
    from veloflow.sharing.topologies import Topology

__all__ = ["GroupCrew", "TeamCrew"]


class TeamCrew(Crew):
    """A crew that can be ahead, while those who are there can."""

    @abstractmethod
    def team(self) -> list[str]:
        """Return the names of those who can compute rounds ahead; empty where not all can."""

    @property
    @abstractmethod
    def patience(self) -> float:
        """What scales all waiting."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many bytes of shared memory each slave may have for rounds ahead."""

    @abstractmethod
    def show_state(
        self, state: NDArray[np.floating], steps: Mapping[str, Payload], version: int
    ) -> None:
        """Show all that the next step depends on to those who compute ahead.

        Args:
            state: the parameters and what solvers keep, one vector.
            steps: what units say besides, by path.
            version: of the state.
        """

    @abstractmethod
    def submit_block(self, orders: Sequence[tuple[Piece, Order]], jobs: Jobs) -> None:
        """Have a block of rounds computed, a piece by each member of the team."""

    @abstractmethod
    def withdraw(self, numbers: Sequence[int]) -> None:
        """Have these pieces computed no more."""


class GroupCrew(TeamCrew):
    """A crew whose slaves exchange gradients with each other."""

    @property
    @abstractmethod
    def topology(self) -> Topology:
        """By which ways they do."""

    @abstractmethod
    def submit_group(self, parts: Sequence[tuple[Piece, PeerOrder, Jobs]]) -> None:
        """Have a block computed by slaves that exchange gradients, a piece by each."""
