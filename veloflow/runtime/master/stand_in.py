"""The master as a slave of its own, while it has no others."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from veloflow.errors import UnitError
from veloflow.protocol.messages import PROTOCOL, Failure, Hello

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from veloflow.protocol.messages import LeaseId, Piece
    from veloflow.runtime.master.crew import Crew, Done
    from veloflow.runtime.slaves.worker import Jobs
    from veloflow.runtime.transport.published import Published

__all__ = ["OwnWork", "StandInCrew"]


@dataclass(frozen=True)
class OwnWork:
    """A job that the master did itself: what it found, or that it failed; and how long it took."""

    lease: LeaseId
    found: Done | Failure
    seconds: float


class StandInCrew:
    """Jobs that are granted to the master itself, and the crew that does them.

    Args:
        make: makes the crew, when it is needed for the first time.
        checksum: what all slaves must come to.
    """

    def __init__(self, make: Callable[[], Crew], checksum: str) -> None:
        self._make = make
        self._checksum = checksum
        self._crew: Crew | None = None
        self._jobs: deque[LeaseId] = deque()

    def hello(self) -> Hello:
        """Return what the master says to itself when it begins to compute."""
        if self._crew is None:
            self._crew = self._make()
        return Hello(
            protocol=PROTOCOL,
            checksum=self._checksum,
            name="master",
            device=self._crew.device,
            hardware=platform.machine(),
            host=platform.node(),
            pid=os.getpid(),
            capacity=1,
        )

    def grant(self, lease: LeaseId) -> None:
        """Do a job later."""
        self._jobs.append(lease)

    def drop(self) -> None:
        """Forget all jobs."""
        self._jobs.clear()

    def left_out(self) -> list[NDArray[np.floating]]:
        """Return what its codec has left out so far."""
        return [] if self._crew is None else self._crew.left_out()

    def hand_over(self) -> list[NDArray[np.floating]]:
        """Return what its codec has left out, for others to send."""
        found = self.left_out()
        for one in found:
            self.inherit(-one)  # x - x is 0
        return found

    def inherit(self, residual: NDArray[np.floating]) -> None:
        """Have it send what another has left out."""
        if self._crew is not None:
            self._crew.inherit([residual])

    def begin(self) -> LeaseId | None:
        """Return the job to do now; None when there is none."""
        return self._jobs.popleft() if self._jobs else None

    def compute(
        self,
        lease: LeaseId,
        piece: Piece,
        jobs: Jobs,
        parameters: Published,
        start: NDArray[np.floating] | None = None,
    ) -> OwnWork:
        """Do a job in this process."""
        assert self._crew is not None
        began = time.monotonic()
        if parameters.version:
            self._crew.publish(parameters.values, parameters.version)
        self._crew.submit(piece, jobs, start)
        found: Done | Failure
        try:
            found = self._crew.next()
        except UnitError as error:
            found = Failure(lease, error.unit[:200], str(error)[:4000])
        return OwnWork(lease, found, time.monotonic() - began)
