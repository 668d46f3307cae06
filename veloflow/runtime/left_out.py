"""What the codecs of slaves have left out, as a master knows of it: in shared memory, or told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import StorageError, WireError
from veloflow.runtime.payloads import view
from veloflow.runtime.shared_memory import Outbox
from veloflow.sharing.residuals import Orphans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from veloflow.protocol.messages import FrameHeader, LeaseId
    from veloflow.runtime.found_vector import FoundVector
    from veloflow.runtime.transport import Frame

__all__ = ["RESIDUAL", "LeftOut"]

#: the frame of a residual; and how the file of one ends, in the run's folder
RESIDUAL = "residual"


class LeftOut:
    """The residuals of all slaves.

    Those of slaves that share memory are in files that outlive them; others tell theirs when they
    are asked, and when they leave.

    Args:
        folder: the run's, of shared memory.
        found: how updates travel.
    """

    def __init__(self, folder: Path, found: FoundVector) -> None:
        self._folder = folder
        self._found = found
        self.orphans = Orphans()
        self._files: dict[bytes, tuple[str, Outbox]] = {}
        self._told: dict[bytes, NDArray[Any]] = {}
        #: what a client was sent and has perhaps not added yet: it has when it answers this lease
        self._given: dict[bytes, tuple[LeaseId, NDArray[Any]]] = {}

    def connect(self, client: bytes, memory: str) -> None:
        """Open the file of a client that was taken in, if it has one."""
        if not memory or self._files.get(client, ("",))[0] == memory:
            return
        path = self._folder / f"{memory}.{RESIDUAL}"
        try:
            box = Outbox(path, self._found.size, self._found.dtype, 1)
        except (StorageError, OSError, ValueError):
            return  # it tells what it leaves out, or does not; its updates count all the same
        self._files[client] = memory, box

    def tells(self, client: bytes) -> bool:
        """Whether a client must be asked."""
        return client not in self._files

    def hear(self, client: bytes, headers: Sequence[FrameHeader], frames: Sequence[Frame]) -> None:
        """Take note of what a client tells.

        Raises:
            WireError: it is no residual.
        """
        arrays = {one.name: view(one, frame) for one, frame in zip(headers, frames, strict=True)}
        residual = arrays.pop(RESIDUAL, None)
        if residual is None or arrays or not self._found.is_residual(residual):
            raise WireError("a residual that is none of this run")
        self._told[client] = residual.copy()

    def take(self, client: bytes, lease: LeaseId, expected: int) -> NDArray[Any] | None:
        """Return what a client is to add to its own before it computes this lease."""
        residual = self.orphans.take(client, expected)
        if residual is not None:
            self._given[client] = lease, residual
        return residual

    def answered(self, client: bytes, lease: LeaseId) -> None:
        """Take note of an answer: what was sent with the job has been added."""
        if client in self._given and self._given[client][0] == lease:
            del self._given[client]

    def inherit(self, client: bytes) -> None:
        """Let others send what a client that is gone has left out."""
        self.orphans.gone(client)
        self.orphans.add(self._known(client))
        self._files.pop(client, None)
        self._told.pop(client, None)
        self._given.pop(client, None)

    def _known(self, client: bytes) -> list[NDArray[Any]]:
        found = self._told.get(client)
        if client in self._files:
            found = np.array(self._files[client][1][0])
        if found is None or not found.any():
            return [self._given[client][1]] if client in self._given else []
        return [found]

    def forget_told(self) -> None:
        """Forget what was told: it is old."""
        self._told.clear()

    def has_told(self, client: bytes) -> bool:
        """Whether a client has told since."""
        return client in self._told

    def all(self, clients: Iterable[bytes]) -> list[NDArray[Any]]:
        """Return all residuals: of these clients, and those that are nobody's."""
        known = [one for client in clients for one in self._known(client)]
        self.forget_told()
        return [*known, *self.orphans.all()]

    def close(self) -> None:
        """Let go of all shared memory."""
        self._files.clear()
