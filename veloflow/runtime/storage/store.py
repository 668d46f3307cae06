"""The folder or URL in which a run keeps its checkpoints: the last one and the best one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.places import Place, RemotePath
from veloflow.runtime.storage.checkpoint import BEST, LAST, Checkpoint, write_checkpoint
from veloflow.runtime.storage.files import keep_copy, make_folder
from veloflow.runtime.storage.remote_folder import RemoteFolder, follow

if TYPE_CHECKING:
    from veloflow.runtime.storage.history import History
    from veloflow.runtime.storage.journal import FileJournal

__all__ = ["CheckpointStore"]


class CheckpointStore:
    """Keeps ``last.safetensors`` and ``best.safetensors`` in a folder, and older ones if asked.

    Args:
        folder: where.
        history: keeps the older ones, in a folder of this machine.

    Raises:
        StorageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Place, history: History | None = None) -> None:
        self.folder = folder
        self.history = history
        self.journal: FileJournal | None = None
        self._remote: RemoteFolder | None = None
        if isinstance(folder, RemotePath):
            self._remote = RemoteFolder(folder, write_checkpoint)
        else:
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
        if self._remote is not None:
            self._remote.save(checkpoint, [LAST, BEST] if is_best else [LAST])
            return
        assert not isinstance(self.folder, RemotePath)
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
        if isinstance(self.folder, RemotePath):
            return follow(self.folder, LAST) is not None
        return (self.folder / LAST).exists()
