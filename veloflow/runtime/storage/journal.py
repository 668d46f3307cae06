"""A journal of long work: results of single items, kept as they come, between two checkpoints.

A record is found again by the digest of what it is the result of: the definition with its options,
the unit, and the item. So it does not matter in which order items were done, or when.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from veloflow.core import Journal, Payload
from veloflow.errors import Interrupted, StorageError
from veloflow.protocol.messages import FrameHeader
from veloflow.runtime.jobs.inspection import digest_of
from veloflow.runtime.transport.payloads import pack, unpack

if TYPE_CHECKING:
    from veloflow.core import Unit

__all__ = ["FileJournal"]

_HEAD = struct.Struct("<Q16s")  # the length of a record, and its digest


class _Record(msgspec.Struct, array_like=True):
    """The result of an item.

    Attributes:
        key: the digest of what it is the result of.
        data, frames, arrays: the payload, as messages have it.
    """

    key: bytes
    data: dict[str, Any]
    frames: tuple[FrameHeader, ...]
    arrays: tuple[bytes, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


class FileJournal(Journal):
    """Keeps results in a file, each with a digest; a record that was cut short is left out.

    What is written is safe when this process is killed, and the last of it may be lost when the
    machine fails.

    Args:
        path: of the file.
        checksum: of the definition and its options.
        goes_on: read what is there, for a run that is resumed; otherwise begin anew.
        say: takes a line for the user.
        is_stopping: whether the user has asked for the end, which here comes between two items.

    Raises:
        StorageError: the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        checksum: str,
        *,
        goes_on: bool,
        say: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._path = path
        self._checksum = checksum.encode()
        self._say = say
        self._is_stopping = is_stopping
        self._known: dict[bytes, _Record] = {}
        self._is_full = False
        try:
            end = self._read() if goes_on and path.exists() else 0
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise StorageError(f"no journal can be kept in {path}: {error.strerror}") from error
        if self._known:
            say(f"{len(self._known)} results of the run before are in its journal")

    def _read(self) -> int:
        """Take in all records that are whole; return where the last of them ends."""
        content = memoryview(self._path.read_bytes())
        at = 0
        while len(content) - at >= _HEAD.size:
            length, digest = _HEAD.unpack_from(content, at)
            body = content[at + _HEAD.size :][:length]
            if len(body) < length or _digest(body) != digest:
                break
            try:
                record = _decoder.decode(body)
            except msgspec.MsgspecError:
                break
            self._known[record.key] = record
            at += _HEAD.size + length
        return at

    def find(self, unit: Unit, item: Payload) -> Payload | None:
        """Return the result of this item, if it is known."""
        if not self._known:
            return None
        record = self._known.get(self._key(unit, item))
        if record is None:
            return None
        return unpack(record.data, record.frames, record.arrays)[unit.path]

    def add(self, unit: Unit, item: Payload, result: Payload) -> None:
        """Keep a result; the run goes on without if the disk is full.

        Raises:
            Interrupted: the user has asked for the end.
        """
        if not self._is_full:
            data, headers, arrays = pack({unit.path: result})
            frames = tuple(one.tobytes() for one in arrays)
            body = _encoder.encode(_Record(self._key(unit, item), data, headers, frames))
            try:
                self._file.write(_HEAD.pack(len(body), _digest(body)) + body)
            except OSError as error:
                self._is_full = True
                self._say(f"no more results are kept in {self._path}: {error.strerror}")
        if self._is_stopping():
            raise Interrupted(
                f"interrupted; what was done is kept in {self._path.parent}, go on with --resume"
            )

    def _key(self, unit: Unit, item: Payload) -> bytes:
        digest = hashlib.blake2b(self._checksum, digest_size=16)
        digest.update(digest_of({unit.path: item}, None))
        return digest.digest()

    def restart(self) -> None:
        """Forget all: a checkpoint has been written, and the results are in it."""
        self._known.clear()
        self._file.truncate(0)
        self._file.seek(0)
        self._is_full = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
