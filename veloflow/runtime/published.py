"""The parameters as a master shows them: to local slaves in shared memory, to others in frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from veloflow.runtime.shared_memory import Board

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Published"]


class Published:
    """The latest version of the parameters.

    Args:
        path: of the file of shared memory.
        size, dtype: of the flat vector.

    Raises:
        StorageError: the machine has not enough shared memory.
    """

    def __init__(self, path: Path, size: int, dtype: DTypeLike) -> None:
        self._board = Board(path, size, dtype, create=True)
        self._copy: NDArray[Any] | None = None
        self.version = 0

    def show(self, values: NDArray[np.floating], version: int) -> None:
        """Show a version (1, 2, 3 …) of the vector (n,)."""
        self._board.write(version, values)
        self.version = version
        self._copy = None

    @property
    def values(self) -> NDArray[Any]:
        """A copy of the vector, for ZeroMQ reads it when it likes."""
        if self._copy is None:
            values = self._board.look(self.version)
            assert values is not None
            self._copy = values.copy()
        return self._copy
