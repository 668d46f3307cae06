"""What the codecs of slaves have left out, as a master knows of it: in shared memory, or told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import StorageError, WireError
from veloflow.runtime.transport.payloads import view
from veloflow.runtime.transport.shared_memory import Outbox
from veloflow.sharing.residuals import Orphans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from veloflow.protocol.messages import FrameHeader, LeaseId
    from veloflow.runtime.transport.connections import Frame
    from veloflow.runtime.transport.found_vector import FoundVector

__all__ = ["LeftOut", "name_of"]


def name_of(found: FoundVector) -> str:
    """Return the name of the frame of a residual, and how the file of one ends.

    One of gradients is of no use to who sends what stretches have changed.
    """
    return "residual-of-stretch" if found.is_local else "residual"


class LeftOut:
    """The residuals of all slaves.

    Those of slaves that share memory are in files that outlive them; others tell theirs when they
    are asked, and when they leave. Where a run changes its form of jobs, a slave has a residual of
    the present one when it has answered a job of it.

    Args:
        folder: the run's, of shared memory.
        found: how updates travel.
    """

    def __init__(self, folder: Path, found: FoundVector) -> None:
        self._folder = folder
        self._found = found
        self.orphans = Orphans()
        self._memories: dict[bytes, str] = {}
        self._files: dict[bytes, Outbox] = {}
        self._told: dict[bytes, NDArray[Any]] = {}
        self._has_answered: set[bytes] = set()
        #: what a client was sent and has perhaps not added yet: it has when it answers this lease
        self._given: dict[bytes, tuple[LeaseId, NDArray[Any]]] = {}

    def adopt(self, found: FoundVector) -> None:
        """Let updates travel in another way; what has been left out so far is forgotten."""
        self._found = found
        self.orphans = Orphans()
        self._files.clear()
        self._told.clear()
        self._has_answered.clear()
        self._given.clear()

    def connect(self, client: bytes, memory: str) -> None:
        """Take note of the shared memory of a client that was taken in, if it has some."""
        if memory != self._memories.get(client, ""):
            self._memories[client] = memory
            self._files.pop(client, None)

    def _has_file(self, client: bytes) -> bool:
        """Whether a client's residual can be seen; open its file if need be."""
        memory = self._memories.get(client)
        if client not in self._files and memory:
            path = self._folder / f"{memory}.{name_of(self._found)}"
            # where there is none it tells what it leaves out, or does not; its updates count
            with contextlib.suppress(StorageError, OSError, ValueError):
                self._files[client] = Outbox(path, self._found.size, self._found.dtype, 1)
        return client in self._files

    def must_tell(self, client: bytes) -> bool:
        """Whether a client must be asked what it has left out."""
        return client in self._has_answered and not self._has_file(client)

    def hear(self, client: bytes, headers: Sequence[FrameHeader], frames: Sequence[Frame]) -> None:
        """Take note of what a client tells, unless it is of an earlier form of jobs.

        Raises:
            WireError: it is no residual.
        """
        arrays = {one.name: view(one, frame) for one, frame in zip(headers, frames, strict=True)}
        residual = arrays.pop(name_of(self._found), None)
        if residual is None and client not in self._has_answered:
            return
        if residual is None or arrays or not self._found.is_residual(residual):
            raise WireError("a residual that is none of this run")
        self._told[client] = residual.copy()

    def take(self, client: bytes, lease: LeaseId, expected: int) -> NDArray[Any] | None:
        """Return what a client is to add to its own before it computes this lease."""
        residual = self.orphans.take(client, expected)
        if residual is not None:
            self._given[client] = lease, residual
        return residual

    def answered(self, client: bytes, lease: LeaseId, *, is_update: bool) -> None:
        """Take note of an answer: what was sent with the job has been added."""
        if is_update:
            self._has_answered.add(client)
        if client in self._given and self._given[client][0] == lease:
            del self._given[client]

    def inherit(self, client: bytes) -> None:
        """Let others send what a client that is gone has left out."""
        self.orphans.gone(client)
        self.orphans.add(self._known(client))
        for one in (self._memories, self._files, self._told, self._given):
            one.pop(client, None)
        self._has_answered.discard(client)

    def _known(self, client: bytes) -> list[NDArray[Any]]:
        found = self._told.get(client)
        if client in self._has_answered and self._has_file(client):
            found = np.array(self._files[client][0])
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
