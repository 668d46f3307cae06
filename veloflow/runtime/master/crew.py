"""Who computes the pieces of a run: this process itself, or slaves."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from veloflow.core import Payload
from veloflow.errors import OptionError
from veloflow.protocol.messages import Piece
from veloflow.runtime.slaves.job_form import JobForm, Workers

if TYPE_CHECKING:
    from veloflow.runtime.slaves.worker import Jobs, Worker
    from veloflow.sharing.policies import Policy

__all__ = ["Crew", "Done", "OwnCrew"]


class Done(Struct, frozen=True, eq=False):
    """A piece that was computed and accepted, once.

    Attributes:
        piece: which.
        updates: what each unit says, by path.
        gradients: the flat gradient (n,), or what a stretch has changed (m n,); a view until the
            next piece is asked for; or None. Of the first piece of a block, the state after it, a
            view until the block after the next.
        version: of the parameters that it was computed with.
        seconds: what the computing took.
        slave: who has computed it; "" for this process.
        wire: seconds from when it was given to when the answer was here, less ``seconds``; None
            where it waited behind another piece, or nobody knows.
        nbytes: of parameters and updates that moved for it, both ways.
    """

    piece: Piece
    updates: dict[str, Payload]
    gradients: NDArray[np.floating] | None
    version: int
    seconds: float = 0.0
    slave: str = ""
    wire: float | None = None
    nbytes: int = 0


class Crew(ABC):
    """Computes pieces. An outline."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many pieces it is good to have submitted at a time."""

    @property
    def slaves(self) -> int:
        """How many compute, 1 at least."""
        return 1

    @property
    def is_simulated(self) -> bool:
        """Whether time is virtual: what this process does besides computing costs none."""
        return False

    @property
    def names(self) -> list[str]:
        """The names of those who compute now, where work can be cut for each of them."""
        return []

    @property
    @abstractmethod
    def device(self) -> str:
        """The devices that compute, for people."""

    @abstractmethod
    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Let pieces that are submitted from now on be computed with these parameters (n,)."""

    @abstractmethod
    def submit(
        self,
        piece: Piece,
        jobs: Jobs,
        start: NDArray[np.floating] | None = None,
        wish: str = "",
    ) -> None:
        """Have a piece computed.

        Args:
            piece: which.
            jobs: what the units' twins are told; of a stretch as :func:`join_steps` has it.
            start: the parameters to begin with, instead of those that are published: (n,), or with
                what the solver keeps (m n,). It is not to be changed any more.
            wish: whom the piece is cut for, see :attr:`names`; anybody else may get it too.
        """

    def adopt(self, policy: Policy, codec: str) -> None:
        """Compute from now on as a mode and a codec want it; nothing may be under way.

        Raises:
            OptionError: this crew cannot change its mode.
        """
        raise OptionError(f"--sharing auto: {type(self).__name__} cannot change its mode")

    def applied(self, number: int) -> None:  # noqa: B027 - most need not know
        """Take note that the update of a piece can be seen in what is published."""

    # -- what codecs leave out ----------------------------------------------------------------

    def left_out(self) -> list[NDArray[np.floating]]:
        """Return what has been left out of updates so far, a vector (n,) for each who left it."""
        return []

    def inherit(self, residuals: Sequence[NDArray[np.floating]]) -> None:  # noqa: B027
        """Have sent what was left out of updates before a checkpoint."""

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

    def __init__(self, worker: Worker | Workers) -> None:
        self._worker = worker
        self._waiting: deque[tuple[Piece, Jobs, NDArray[np.floating] | None]] = deque()
        self._values: NDArray[np.floating] | None = None
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

    def adopt(self, policy: Policy, codec: str) -> None:
        """Let the worker do jobs of that form."""
        if not isinstance(self._worker, Workers):
            super().adopt(policy, codec)
            return
        self._worker.use(JobForm.of_policy(policy, codec))

    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Take the parameters."""
        self._worker.load(values)
        self._version = version
        self._values = None

    def submit(
        self,
        piece: Piece,
        jobs: Jobs,
        start: NDArray[np.floating] | None = None,
        wish: str = "",
    ) -> None:
        """Put the piece last."""
        self._waiting.append((piece, jobs, start))

    def next(self) -> Done:
        """Compute the next piece."""
        piece, jobs, start = self._waiting.popleft()
        if start is not None and self._values is None:
            self._values = self._worker.values()
        if start is None and self._values is not None:
            self._worker.load(self._values)
            self._values = None
        began = time.perf_counter()
        updates = self._worker.work(piece.kind, jobs, start)
        vector = self._found(piece) if self._worker.has_gradients(piece.kind) else None
        seconds = time.perf_counter() - began
        return Done(piece, updates, vector, self._version, seconds)

    def _found(self, piece: Piece) -> NDArray[np.floating] | None:
        """Return what was found, as it would arrive from a slave."""
        way, found = self._worker.vector, self._worker.found
        if way.is_plain:
            return found
        factors = self._worker.factors(piece.count) if way.needs_factors else None
        headers, arrays = way.write(found, factors)
        return way.read(None, headers, [array.data for array in arrays])

    def left_out(self) -> list[NDArray[np.floating]]:
        """Return its own residual."""
        residual = self._worker.vector.residual
        return [] if residual is None else [residual.copy()]

    def inherit(self, residuals: Sequence[NDArray[np.floating]]) -> None:
        """Add all to its own residual."""
        for one in residuals:
            self._worker.vector.inherit(one)

    def close(self) -> None:
        """Give the threads back."""
        self._limits.restore_original_limits()
