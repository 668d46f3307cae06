"""The parameters as a master shows them: to local slaves in shared memory, to others in frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from veloflow.runtime.transport.shared_memory import Board, room_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from veloflow.core import Payload

__all__ = ["BOARD", "STATE", "STEPS", "Published"]

#: the files' names in the run's folder: of the parameters; and with them of what solvers keep; and
#: what else the next step depends on, as JSON
BOARD, STATE, STEPS = "board", "state", "steps"


class Published:
    """The latest version of the parameters, and of what solvers keep if slaves move a copy.

    Args:
        folder: the run's, of shared memory.
        size, dtype: of the flat vector.

    Raises:
        StorageError: the machine has not enough shared memory.
    """

    def __init__(self, folder: Path, size: int, dtype: DTypeLike) -> None:
        self._folder = folder
        self._dtype = dtype
        self._board = Board(folder / BOARD, size, dtype, create=True)
        self._state: Board | None = None
        self._steps: Board | None = None
        self._copy: NDArray[Any] | None = None
        self.version = 0

    def show(self, values: NDArray[np.floating], version: int) -> None:
        """Show a version (1, 2, 3 …) of the vector (n,)."""
        self._board.write(version, values)
        self.version = version
        self._copy = None

    def show_state(
        self, state: NDArray[np.floating], steps: Mapping[str, Payload], version: int
    ) -> None:
        """Show a version of the parameters and of all else that the next step depends on.

        Args:
            state: the parameters and what solvers keep, one vector.
            steps: see :meth:`veloflow.core.Mover.make_step`, by unit path.
            version: of the state.

        Raises:
            StorageError: the machine has not enough shared memory.
        """
        text = msgspec.json.encode(steps)
        if self._state is None or self._steps is None:
            self._room = room_for(4 * len(text))  # the numbers in it may grow longer
            self._steps = Board(self._folder / STEPS, self._room, np.uint8, create=True)
            self._state = Board(self._folder / STATE, state.size, self._dtype, create=True)
        self._steps.write(version, np.frombuffer(text.ljust(self._room), np.uint8))
        self._state.write(version, state)

    @property
    def values(self) -> NDArray[Any]:
        """A copy of the vector, for ZeroMQ reads it when it likes."""
        if self._copy is None:
            values = self._board.look(self.version)
            assert values is not None
            self._copy = values.copy()
        return self._copy
