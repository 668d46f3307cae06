"""Parameters and gradients between processes of one machine, in files that live in memory.

The run has one private folder, in /dev/shm where there is one. The master's :class:`Board` is in
it, and one :class:`Outbox` for each slave. Nothing stays when the folder is removed.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.copying import copy_into
from veloflow.errors import StorageError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Board", "Outbox", "make_folder", "map_file", "remove_folder", "room_for"]

_PAGE = 4096
_SLOTS = 2


def make_folder() -> Path:
    """Make a private folder for a run, in memory where the machine has such a place.

    Raises:
        StorageError: no folder can be made.
    """
    for place in (Path("/dev/shm"), None):
        if place is not None and not os.access(place, os.W_OK):
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="veloflow-", dir=place))
        except OSError as error:
            reason = error
    raise StorageError(f"no folder for shared memory can be made: {reason}; set TMPDIR")


def remove_folder(folder: Path) -> None:
    """Remove a run's folder with all that is in it; it may be gone already."""
    shutil.rmtree(folder, ignore_errors=True)


def map_file(path: Path, size: int | None, *, writable: bool) -> mmap.mmap:
    """Map a file; make it when a size is given, and have the memory for it there at once.

    A file has its name when it has its size: others may wait for it to be there.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW
    opened = path
    if size is not None:
        flags |= os.O_CREAT | os.O_EXCL
        opened = path.with_name(f"{path.name}.new")
    descriptor = os.open(opened, flags, 0o600)
    try:
        if size is not None:
            # a file with holes would end the process by SIGBUS when memory is short
            os.posix_fallocate(descriptor, 0, size)
            os.link(opened, path)
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        return mmap.mmap(descriptor, 0, access=access)
    except OSError as error:
        raise StorageError(
            f"{path.parent} has no room for {size} bytes of shared memory ({error.strerror}); "
            "free some, or start slaves over tcp"
        ) from error
    finally:
        os.close(descriptor)
        if size is not None:
            opened.unlink()


def room_for(nbytes: int) -> int:
    """Return how many bytes whole pages have that so many fit into."""
    return -(-max(nbytes, 1) // _PAGE) * _PAGE


class Board:
    """Where a master shows its parameters: the last two versions, which slaves read.

    A reader that was overtaken by the writer notices, and does not use what it has.

    Args:
        path: of the file.
        size: how many numbers the vector has; None for as many as there is room for in the file.
        dtype: of the vector.
        create: make the file, to write; otherwise open it, to read.
    """

    def __init__(
        self, path: Path, size: int | None, dtype: DTypeLike, *, create: bool = False
    ) -> None:
        kind = np.dtype(dtype)
        if size is None:
            size = (path.stat().st_size - _PAGE) // (_SLOTS * kind.itemsize)
        room = room_for(size * kind.itemsize)
        self._map = map_file(path, _PAGE + _SLOTS * room if create else None, writable=create)
        if len(self._map) != _PAGE + _SLOTS * room:
            raise StorageError(f"{path} is of another size than the parameters")
        # per slot the version that is being written, and the one that is whole
        self._marks: NDArray[np.int64] = np.frombuffer(self._map, np.int64, 2 * _SLOTS + 1)
        self._slots = [
            np.frombuffer(self._map, kind, size, _PAGE + slot * room) for slot in range(_SLOTS)
        ]

    def write(self, version: int, values: NDArray[Any]) -> None:
        """Show a version (1, 2, 3 …) of the vector (n,)."""
        slot = version % _SLOTS
        self._marks[2 * slot] = version
        copy_into(self._slots[slot], values)
        self._marks[2 * slot + 1] = version
        self._marks[-1] = version

    @property
    def latest(self) -> int:
        """The last version that is whole; 0 before the first."""
        return int(self._marks[-1])

    def look(self, version: int) -> NDArray[Any] | None:
        """Return a view of a version, or None when it is not there any more."""
        slot = version % _SLOTS
        return self._slots[slot] if self.holds(version) else None

    def holds(self, version: int) -> bool:
        """Whether a version is there and whole. Ask again after having read a view."""
        slot = version % _SLOTS
        return bool(self._marks[2 * slot] == version == self._marks[2 * slot + 1])

    def close(self) -> None:
        """Let go of the memory."""
        del self._marks, self._slots
        self._map.close()


class Outbox:
    """Where a slave leaves vectors for the master: slots of one vector each.

    Args:
        path: of the file.
        size: how many numbers a vector has.
        dtype: of the vectors.
        slots: how many.
        create: make the file, to write; otherwise open it, to read.
    """

    def __init__(
        self, path: Path, size: int, dtype: DTypeLike, slots: int, *, create: bool = False
    ) -> None:
        kind = np.dtype(dtype)
        room = room_for(size * kind.itemsize)
        self._map = map_file(path, slots * room if create else None, writable=create)
        if len(self._map) != slots * room:
            raise StorageError(f"{path} is of another size than {slots} updates")
        self._slots = [np.frombuffer(self._map, kind, size, slot * room) for slot in range(slots)]

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, slot: int) -> NDArray[Any]:
        """Return a slot as an array (n,)."""
        return self._slots[slot]

    def close(self) -> None:
        """Let go of the memory."""
        del self._slots
        self._map.close()
