"""The folder in which a run keeps its checkpoints: the last one and the best one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from veloflow.errors import StorageError
from veloflow.runtime.checkpoint import BEST, LAST, Checkpoint, write_checkpoint
from veloflow.runtime.files import make_folder

if TYPE_CHECKING:
    from veloflow.runtime.history import History
    from veloflow.runtime.journal import FileJournal

__all__ = ["CheckpointStore"]


class CheckpointStore:
    """Keeps ``last.safetensors`` and ``best.safetensors`` in a folder, and older ones if asked.

    Args:
        folder: where.
        history: keeps the older ones.

    Raises:
        StorageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, history: History | None = None) -> None:
        self.folder = folder
        self.history = history
        self.journal: FileJournal | None = None
        make_folder(folder)

    def save(self, checkpoint: Checkpoint, *, is_best: bool, issued: int = 0) -> None:
        """Write the last checkpoint, and keep it as the best one too if it is that.

        Args:
            checkpoint: the state of the run.
            is_best: whether it is the best one so far.
            issued: how many pieces of work it has behind it, for the history.

        Raises:
            StorageError: no space; the older files are untouched.
        """
        last = self.folder / LAST
        write_checkpoint(checkpoint, last)
        if is_best:
            self._keep_as_best(checkpoint, last)
        if self.history is not None:
            self.history.add(issued, last)
        if self.journal is not None:
            self.journal.restart()

    @property
    def has_any(self) -> bool:
        """Whether there is a last checkpoint, of whatever run."""
        return (self.folder / LAST).exists()

    def _keep_as_best(self, checkpoint: Checkpoint, last: Path) -> None:
        link = self.folder / f".{BEST}.{secrets.token_hex(4)}.tmp"
        try:
            os.link(last, link)  # files are replaced, never rewritten: one copy serves both
        except OSError:  # a file system without hard links
            write_checkpoint(checkpoint, self.folder / BEST)
            return
        try:
            link.replace(self.folder / BEST)
        except OSError as error:
            with contextlib.suppress(OSError):
                link.unlink(missing_ok=True)
            raise StorageError(f"cannot write {self.folder / BEST}: {error.strerror}") from error
