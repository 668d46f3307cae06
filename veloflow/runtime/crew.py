"""Who computes the pieces of a run: this process itself, or slaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.protocol.messages import Piece
    from veloflow.runtime.worker import Jobs, Worker

__all__ = ["Crew", "Done", "OwnCrew"]


@dataclass(frozen=True, eq=False)
class Done:
    """A piece that was computed and accepted, once.

    Attributes:
        piece: which.
        updates: what each unit says, by path.
        gradients: the flat gradient (n,), a view until the next piece is asked for; or None.
        version: of the parameters that it was computed with.
    """

    piece: Piece
    updates: dict[str, Payload]
    gradients: NDArray[np.floating] | None
    version: int


class Crew(ABC):
    """Computes pieces. An outline."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many pieces it is good to have submitted at a time."""

    @property
    @abstractmethod
    def device(self) -> str:
        """The devices that compute, for people."""

    @abstractmethod
    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Let pieces that are submitted from now on be computed with these parameters (n,)."""

    @abstractmethod
    def submit(self, piece: Piece, jobs: Jobs) -> None:
        """Have a piece computed."""

    @abstractmethod
    def next(self) -> Done:
        """Wait for the next piece that is done.

        Raises:
            UnitError: a unit raised wherever the piece was tried.
            Interrupted: the run is to end at once.
        """

    def results(self) -> dict[str, object]:
        """Return what the result says of the crew."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Let all who compute go."""


class OwnCrew(Crew):
    """This process computes all pieces itself, with one BLAS thread as slaves do.

    Args:
        worker: what computes.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: deque[tuple[Piece, Jobs]] = deque()
        self._version = 0
        # other numbers of threads may give other bits
        self._limits = threadpool_limits(1, "blas")

    @property
    def capacity(self) -> int:
        """One: a piece is computed when it is asked for."""
        return 1

    @property
    def device(self) -> str:
        """The worker's device."""
        return self._worker.device

    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Take the parameters."""
        self._worker.load(values)
        self._version = version

    def submit(self, piece: Piece, jobs: Jobs) -> None:
        """Put the piece last."""
        self._waiting.append((piece, jobs))

    def next(self) -> Done:
        """Compute the next piece."""
        piece, jobs = self._waiting.popleft()
        updates = self._worker.compute(piece.kind, jobs)
        gradients = self._worker.gradients if self._worker.has_gradients(piece.kind) else None
        return Done(piece, updates, gradients, self._version)

    def close(self) -> None:
        """Give the threads back."""
        self._limits.restore_original_limits()
