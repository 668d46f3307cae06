"""Older checkpoints of a run, to go back to when a slave turns out to have spoiled updates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from veloflow.errors import VeloflowError
from veloflow.runtime.storage.files import keep_copy, make_folder, write_atomically

if TYPE_CHECKING:
    from veloflow.places import Place

__all__ = ["History", "Spoiled"]

_MOST = 12


class Spoiled(VeloflowError):  # noqa: N818 - it is an event: the run goes back and on
    """A slave spoiled updates, which are to be undone.

    Attributes:
        first: the number of the first piece that it did.
    """

    def __init__(self, reason: str, first: int) -> None:
        super().__init__(reason)
        self.first = first


class History:
    """Some of a run's checkpoints, the older the sparser, in a folder of their own.

    Args:
        folder: for the files; what another run has left there is removed.
        source: the checkpoint that the run has started from, if any.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, source: Place | None) -> None:
        self._folder = folder
        self._kept: list[tuple[int, Path | None]] = []
        had = None if source is None else source.read_bytes()
        self.clear()
        make_folder(folder)
        if source is None or had is None:
            self._kept.append((0, None))
            return
        start = folder / "0.safetensors"
        write_atomically(start, [had])
        self._kept.append((0, start))

    def add(self, number: int, path: Path) -> None:
        """Keep a checkpoint that was made when this piece was the next."""
        kept = self._folder / f"{number}.safetensors"
        if number <= self._kept[-1][0]:
            return
        keep_copy(path, kept)
        self._kept.append((number, kept))
        if len(self._kept) > _MOST:
            self._thin_out()

    def _thin_out(self) -> None:
        """Drop the one that leaves the smallest gap for its age; never the first or the last."""
        newest = self._kept[-1][0]

        def gap(place: int) -> float:
            age = newest - self._kept[place][0] + 1
            return (self._kept[place + 1][0] - self._kept[place - 1][0]) / age

        _, path = self._kept.pop(min(range(1, len(self._kept) - 1), key=gap))
        if path is not None:
            path.unlink(missing_ok=True)

    def before(self, number: int) -> Path | None:
        """Return the last checkpoint without this piece and later ones; None for the start."""
        return next(path for first, path in reversed(self._kept) if first <= number)

    def clear(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)
