"""The story of a run with slaves: who joined, got what, did it, lost it; a line each, in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from veloflow.errors import InputError, NotFoundError, StorageError

if TYPE_CHECKING:
    from veloflow.protocol.chronicle import Told

__all__ = ["StoryFile", "read_story"]


class StoryFile:
    """Where a master writes what happens to slaves and pieces, as it happens.

    A line holds seconds since the beginning, the slave, what happened, and the piece with the
    number of the attempt: ``12.345 s3: got 17.0``. A run that goes back to undo what was spoiled
    has one story: it is opened again, and goes on.

    Args:
        path: of the file; what an earlier run has told there is lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began: float | None = None
        self._file: TextIO | None = None

    def open(self, say: Callable[[str], None]) -> None:
        """Begin, or go on after :meth:`close`.

        Args:
            say: takes a line for the user.

        Raises:
            StorageError: it cannot be written.
        """
        self._say = say
        try:
            self._file = self._path.open(
                "w" if self._began is None else "a", encoding="utf-8", buffering=1
            )
        except OSError as error:
            reason = error.strerror
            raise StorageError(f"no story can be written to {self._path}: {reason}") from error
        self._began = self._began or time.monotonic()

    def write(self, told: Iterable[Told]) -> None:
        """Write what the machine told; the run goes on if the disk is full."""
        if self._file is None or self._began is None:
            return
        try:
            for when, slave, what, lease in told:
                piece = f" {lease.number}.{lease.attempt}" if lease else ""
                self._file.write(f"{when - self._began:.3f} {slave}: {what}{piece}\n")
        except OSError as error:
            self._say(f"the story ends here: {self._path}: {error.strerror}")
            self.close()

    def close(self) -> None:
        """Write no more, unless it is opened again."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            self._say(f"the story's end is lost: {self._path}: {error.strerror}")


def read_story(path: Path, who: str = "") -> list[str]:
    """Return the lines about a slave (``s2``) or about a piece (``17``), or all of them.

    Raises:
        NotFoundError: there is no such file, slave or piece.
        InputError: this is no story.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        reason = error.strerror
        raise NotFoundError(f"no story {path} ({reason}); make one with run --story FILE") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no story; make one with run --story FILE") from None
    words = [line.split() for line in lines]
    if any(len(one) < 3 or not one[1].endswith(":") for one in words):
        raise InputError(f"{path} is no story; make one with run --story FILE")
    if not who:
        return lines
    found = [
        line
        for line, parts in zip(lines, words, strict=True)
        if parts[1] == f"{who}:" or (who.isdecimal() and parts[-1].startswith(f"{who}."))
    ]
    if not found:
        slaves = ", ".join(dict.fromkeys(parts[1].rstrip(":") for parts in words))
        raise NotFoundError(f"no {who} in {path}; give the number of a piece, or one of {slaves}")
    return found
