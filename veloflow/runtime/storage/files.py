"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from veloflow.errors import StorageError
from veloflow.places import Place, RemotePath

__all__ = ["check_writable", "keep_copy", "make_folder", "write_atomically"]


def write_atomically(path: Place, chunks: Iterable[bytes | memoryview]) -> None:
    """Write ``chunks`` to ``path`` through a temporary file beside it, synced to disk.

    An object at a URL is there when all of it is: see :meth:`~veloflow.places.RemotePath.write`.

    Raises:
        StorageError: no space, no permission, no such folder; ``path`` is as it was.
    """
    if isinstance(path, RemotePath):
        path.write(chunks)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # what counts is the first error
            temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {_reason(error)}") from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def keep_copy(source: Path, target: Path) -> None:
    """Let ``target`` be what ``source`` is now, atomically, without another copy if possible.

    For files that are replaced and never rewritten: then one content serves both names.

    Raises:
        StorageError: it cannot be written; ``target`` is as it was.
    """
    link = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(source, link)
    except OSError:  # a file system without hard links
        write_atomically(target, [source.read_bytes()])
        return
    try:
        link.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
        raise StorageError(f"cannot write {target}: {_reason(error)}") from error


def check_writable(path: Place) -> None:
    """Check that ``path`` could be written, before long work is done for it.

    Raises:
        StorageError: it is a folder, or its folder cannot be made or written to.
    """
    if isinstance(path, RemotePath):
        path.check_writable()
        return
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; name a file in it")
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there, and check that it can be written to.

    Raises:
        StorageError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder}: {_reason(error)}") from error
    if not os.access(folder, os.W_OK):
        raise StorageError(f"cannot write to the folder {folder}; choose another one")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}; choose a folder that you may write to"
    return error.strerror or str(error)
