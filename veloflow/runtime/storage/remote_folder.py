"""A folder of checkpoints at a URL: objects with names of their own, and pointers to them.

An object store replaces one object as a whole and knows no renaming. So a checkpoint is written
under a new name, and then a pointer, one line of JSON, is put over the old one. Readers follow
pointers and nothing else: a writer that dies before its last word leaves an object that no pointer
names, and the checkpoint before stays in force. The next writer removes such objects.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from veloflow.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    from veloflow.places import RemotePath
    from veloflow.runtime.storage.checkpoint import Checkpoint

__all__ = ["RemoteFolder", "follow"]

_OBJECTS = "objects"


class _Pointer(msgspec.Struct, frozen=True):
    """Which object a name stands for, and its size in bytes."""

    object: str
    size: int


def follow(folder: RemotePath, name: str) -> RemotePath | None:
    """Return the object that the pointer ``name`` points to; None where there is no pointer.

    Raises:
        CheckpointError: the pointer is damaged, or its object is not whole.
    """
    try:
        text = (folder / _file_of(name)).read_bytes()
    except FileNotFoundError:
        return None
    try:
        pointer = msgspec.json.decode(text, type=_Pointer)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{folder.shown}/{_file_of(name)} is no pointer: {error}") from error
    found = folder / _OBJECTS / pointer.object
    try:
        size = found.stat().st_size
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder.shown}/{_file_of(name)} points to {pointer.object}, which is gone; another "
            "run may write into this folder just now: try again, or take another checkpoint"
        ) from None
    if size != pointer.size:
        raise CheckpointError(
            f"{found.shown} has {size} bytes, and {pointer.size} were written; use another "
            "checkpoint or start again"
        )
    return found


def _file_of(name: str) -> str:
    return name.partition(".")[0] + ".json"


class RemoteFolder:
    """The writer of a folder of checkpoints at a URL.

    Args:
        folder: where.
        write: writes a checkpoint to a place, and returns how many bytes it has.

    Raises:
        StorageError: it cannot be written to.
    """

    def __init__(self, folder: RemotePath, write: Callable[[Checkpoint, RemotePath], int]) -> None:
        self._folder = folder
        self._write = write
        self._named: dict[str, str] = {}  # pointer -> its object
        (folder / "any").check_writable()

    def save(self, checkpoint: Checkpoint, names: list[str]) -> None:
        """Write a checkpoint and let these names stand for it, one after another.

        Raises:
            StorageError: it cannot be written; the names stand for what they stood for.
        """
        own = f"{secrets.token_hex(8)}.safetensors"
        before = set(self._named.values())  # a reader may have read the pointer, and no more
        size = self._write(checkpoint, self._folder / _OBJECTS / own)
        text = msgspec.json.encode(_Pointer(own, size)) + b"\n"
        for name in names:
            (self._folder / _file_of(name)).write([text])
            self._named[name] = own
        self._sweep({own, *before})

    def _sweep(self, kept: set[str]) -> None:
        """Remove objects that no pointer names; what cannot be removed only takes space."""
        for name in ("last", "best"):
            try:
                found = follow(self._folder, name)
            except CheckpointError:
                continue
            if found is not None:
                kept.add(found.name)
        for one in (self._folder / _OBJECTS).iterdir():
            if one.name not in kept:
                try:
                    one.unlink(missing_ok=True)
                except StorageError:
                    return
