"""What the user says of slaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from veloflow.protocol.faults import FaultPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from veloflow.protocol.elasticity import Bounds
    from veloflow.runtime.keys import ServerKeys
    from veloflow.runtime.master.story import StoryFile
    from veloflow.runtime.transport.connections import Others

__all__ = ["ClusterSettings"]


@dataclass(frozen=True)
class ClusterSettings:
    """What the user says of slaves.

    Attributes:
        slaves: how many local ones to start.
        bounds: the fewest and the most that the run is to have, where that may change.
        scale: has so many slaves from now on, where they are not local ones.
        listen: addresses for others, such as ``tcp://127.0.0.1:5555``.
        others: the listener for others, where there is one already.
        device: of the local slaves, as ``--device`` has it.
        patience: scales every wait.
        keys: for addresses outside this machine.
        audit: the share of the pieces that two slaves compute, to be compared.
        works: the master computes itself while there are no slaves.
        faults: what is to go wrong with local slaves.
        undo: where a slave is found to have spoiled updates, raise Spoiled.
        story: where to write what happens to slaves and pieces.
        exactly: jobs name the version of the parameters; otherwise slaves take the latest.
        bound: how many clocks a slave may be ahead of the slowest; None for no bound.
        environment: more of it for local slaves.
        grace: seconds that local slaves have at the end before they are killed.
    """

    slaves: int = 0
    bounds: Bounds | None = None
    scale: Callable[[int], None] | None = None
    listen: tuple[str, ...] = ()
    others: Others | None = None
    device: str = "auto"
    patience: float = 1.0
    keys: ServerKeys | None = None
    audit: float = 0.0
    works: bool = False
    faults: FaultPlan = field(default_factory=FaultPlan)
    undo: bool = False
    story: StoryFile | None = None
    exactly: bool = True
    bound: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    grace: float = 2.0

    @property
    def most(self) -> int:
        """How many slaves there may be of those that are started for the run."""
        return self.slaves if self.bounds is None else self.bounds.most
