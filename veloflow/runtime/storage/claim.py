"""One run at a time keeps its checkpoints in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from veloflow.errors import StorageError
from veloflow.runtime.storage.files import make_folder

__all__ = ["claimed"]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold ``folder``, made if it is not there, against other runs until the block ends.

    The lock is the operating system's, on the folder itself (flock(2)): it leaves no file, and ends
    with the process however that ends. A file system without such locks is not guarded.

    Raises:
        StorageError: another run holds it, or it cannot be made.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another run that goes on keeps its checkpoints in {folder}; give another folder, "
                "or end that run first"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL):
                raise
        yield
    finally:
        os.close(descriptor)
