"""Data sets of files: folders with a class each, lists, and a loader that reads file after file."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, final

import numpy as np

from veloflow.core import Events, Message
from veloflow.devices.random import generator
from veloflow.errors import DataError
from veloflow.places import Place, is_url, place_of
from veloflow.units.labels import Label, checked_ratio, class_numbers, hold_out
from veloflow.units.reading import TABLES, read_table
from veloflow.units.stream import StreamLoader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.drift import DriftTest
    from veloflow.units.normalization import Normalizer

__all__ = [
    "FileLoader",
    "FileOptions",
    "Files",
    "Listed",
    "files_below",
    "folder_parts",
    "listed_files",
]

_PARTS = ("test", "validation", "train")


@dataclass(frozen=True)
class Listed:
    """A file of a data set, and its raw label, or None."""

    path: Place
    label: Label | None


def folder_parts(root: Place, suffixes: frozenset[str], what: str) -> list[list[Listed]]:
    """Return the files of ``root/CLASS/file`` as test, validation and training samples.

    With the subfolders "train", "validation" and "test" (any of them) these are the three; without,
    all are for training.

    Raises:
        DataError: there is no such folder, nothing in it, or a folder of a class is empty.
    """
    if not root.is_dir():
        raise DataError(f"no {what} folder {root}; give a folder with one folder a class")
    tops = [root / part for part in _PARTS]
    if not any(top.is_dir() for top in tops):
        tops = [root / ".", root / ".", root]
    found = []
    for place, top in enumerate(tops):
        files: list[Listed] = []
        is_part = top.is_dir() and (top != root / "." or place == 2)
        for folder in sorted(one for one in top.iterdir() if one.is_dir()) if is_part else ():
            inside = sorted(one for one in folder.glob("*") if one.suffix.lower() in suffixes)
            if not inside:
                raise DataError(f"the class {folder} has no {what} files; fill it or take it away")
            files += [Listed(path, folder.name) for path in inside]
        found.append(files)
    if not any(found):
        raise DataError(f"no {what} files in {root}; they belong into {root}/CLASS/")
    return found


def files_below(source: Place, suffixes: frozenset[str]) -> tuple[list[str], list[Place]]:
    """Return the names and places of a file, or of all such files in a folder and below.

    Raises:
        DataError: there are none.
    """
    found: list[Place] = [source] if source.is_file() else [*source.rglob("*")]
    files = [one for one in sorted(found, key=str) if one.suffix.lower() in suffixes]
    if not files:
        raise DataError(f"no files in {source} with any of {', '.join(sorted(suffixes))}")
    return [one.name if one == source else _below(one, source) for one in files], files


def listed_files(
    source: Place | Sequence[str | Place | tuple[str | Place, Label | None]], label: str | None
) -> list[Listed]:
    """Return the files of a list, with labels from a second column or from their names.

    Args:
        source: a text file with a path a line, or path and label with a tab between; a .json list
            of paths or of [path, label]; a table with the columns "path" and "label"; or a
            sequence of paths or pairs. Paths are relative to the list's folder.
        label: a regular expression whose first group is the label in a path that has none, such as
            ``"([^/]+)/[^/]+$"`` for the name of the folder.

    Raises:
        DataError: the list cannot be read, or a path has no label in it.
    """
    base: Place | None = None
    if isinstance(source, Place):
        base, entries = source.parent, _entries(source)
    else:
        entries = list(source)
    found = []
    for entry in entries:
        name, raw = (entry, None) if isinstance(entry, str | Place) else entry
        path = place_of(name) if base is None or is_url(name) else base / place_of(name).as_posix()
        if raw is None and label is not None:
            match = re.search(label, path.as_posix())
            if match is None:
                raise DataError(f"{path}: there is no label in it; {label!r} does not match")
            raw = match[1]
        found.append(Listed(path, raw))
    if not found:
        raise DataError(f"the list {source if base else ''} has no files")
    return found


def _entries(source: Place) -> list[Any]:
    if not source.is_file():
        raise DataError(f"no list of files {source}")
    if source.suffix.lower() in TABLES:
        frame = read_table(source)
        if "path" not in frame.columns:
            raise DataError(f"{source} has no column 'path'; it has {', '.join(frame.columns)}")
        paths = frame["path"].to_list()
        labels = frame["label"].to_list() if "label" in frame.columns else [None] * len(paths)
        return list(zip(paths, labels, strict=True))
    try:
        text = source.read_text(encoding="utf-8")
        if source.suffix.lower() != ".json":
            rows = [line.split("\t") for line in text.splitlines() if line.strip()]
            return [(row[0], row[1] if len(row) > 1 else None) for row in rows]
        entries = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"the list {source} cannot be read: {error}") from error
    is_known = isinstance(entries, list) and all(
        isinstance(one, str) or (isinstance(one, list) and len(one) == 2) for one in entries
    )
    if not is_known:
        raise DataError(f"{source} is no list of paths or of [path, label]")
    return list(entries)


class FileOptions(TypedDict, total=False):
    """What a loader of files may be told, as :class:`FileLoader` says."""

    skip_bad: bool
    validation_ratio: float
    minibatch_size: int
    shuffle_limit: int | None
    shuffle_window: int | None
    normalization: str | Normalizer
    balanced: bool
    drift: DriftTest
    name: str | None


class FileLoader(StreamLoader):
    """A loader of samples that lie in a file each. An outline: subclasses list and read them.

    Args:
        skip_bad: leave files out that cannot be read; ``skipped`` names them, and a message. It
            reads every file once at the start.
        validation_ratio: the share to hold out, the same share of every class.
        **options: see :class:`StreamLoader`.

    Attributes:
        skipped: files that were left out.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        skip_bad: bool = False,
        validation_ratio: float = 0.0,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        shuffle_window: int | None = None,
        normalization: str | Normalizer = "none",
        balanced: bool = False,
        drift: DriftTest = "labels",
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow,
            minibatch_size=minibatch_size,
            shuffle_limit=shuffle_limit,
            shuffle_window=shuffle_window,
            normalization=normalization,
            balanced=balanced,
            drift=drift,
            name=name,
        )
        self.skip_bad = skip_bad
        self.validation_ratio = checked_ratio(validation_ratio, self.path)
        self.skipped: list[Place] = []
        self._reasons: list[str] = []

    @abstractmethod
    def list_files(self) -> list[list[Listed]]:
        """Return the files for test, validation and training.

        Raises:
            DataError: there are none.
        """

    @abstractmethod
    def read_file(self, path: Place, random: np.random.Generator | None) -> NDArray[Any]:
        """Return a raw sample; ``random`` is for changes, None for none.

        Raises:
            DataError: it cannot be read; the message names it.
        """

    def load(self) -> None:
        """List the files; read all of them only when bad ones are to be skipped."""
        parts = self.list_files()
        if self.skip_bad:
            parts = [[one for one in part if self._is_whole(one.path)] for part in parts]
            if self.skipped:
                names = ", ".join(map(str, self.skipped[:5]))
                self.service(Events).publish(
                    Message(f"unit {self.path!r} skips {len(self.skipped)} bad files: {names}")
                )
            if not any(parts):
                raise DataError(f"unit {self.path!r}: no file is fit for use: {self._reasons[0]}")
        labels = np.array([one.label for part in parts for one in part], dtype=object)
        numbers, self.labels_mapping = class_numbers(labels)
        files = [one.path for part in parts for one in part]
        order, self.class_lengths = hold_out(
            numbers,
            (len(parts[0]), len(parts[1]), len(parts[2])),
            self.validation_ratio,
            generator(self.settings.seed, self.path, "validation"),
        )
        self._files = [files[place] for place in order]
        self._classes = numbers[order]
        self._number_classes(self._classes)

    def _is_whole(self, path: Place) -> bool:
        try:
            self.read_file(path, None)
        except DataError as error:
            self.skipped.append(path)
            self._reasons.append(str(error))
            return False
        return True

    def read_samples(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], NDArray[np.int32]]:
        """Read files and their classes."""
        rows = [self.read_file(self._files[n], self.random_for(int(n))) for n in indices]
        return np.stack(rows), self._classes[indices]

    def results(self) -> Mapping[str, object]:
        """Return how many samples of each label there are, and which files were skipped."""
        skipped = {"skipped": [str(one) for one in self.skipped]} if self.skipped else {}
        return {**super().results(), **skipped}


@final
class Files:
    """Files that a loader reads when a slice asks for them."""

    def __init__(self, loader: FileLoader, files: list[Place]) -> None:
        self._loader = loader
        self._files = files

    @classmethod
    def below(
        cls, source: Place, suffixes: frozenset[str], loader: FileLoader
    ) -> tuple[list[str], Files]:
        """Return the names and contents of :func:`files_below`."""
        names, files = files_below(source, suffixes)
        return names, cls(loader, files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read these files."""
        return np.stack([self._loader.read_file(path, None) for path in self._files[rows]])


def _below(place: Place, folder: Place) -> str:
    """Return the path from a folder to what is in it."""
    return str(place.relative_to(folder))  # type: ignore[arg-type] # both are of one kind
