"""The folder in which a run keeps its checkpoints: the last one and the best one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from veloflow.runtime.checkpoint import BEST, LAST, Checkpoint, write_checkpoint
from veloflow.runtime.files import keep_copy, make_folder

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
            keep_copy(last, self.folder / BEST)
        if self.history is not None:
            self.history.add(issued, last)
        if self.journal is not None:
            self.journal.restart()

    @property
    def has_any(self) -> bool:
        """Whether there is a last checkpoint, of whatever run."""
        return (self.folder / LAST).exists()
