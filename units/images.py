"""Images in folders: a loader of one folder a class, read through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np

from veloflow.devices.random import generator
from veloflow.errors import DataError, InputError
from veloflow.units.labels import class_numbers, stratified_split
from veloflow.units.stream import StreamLoader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow

__all__ = ["ImageFolderLoader"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_PARTS = ("test", "validation", "train")


@final
class ImageFolderLoader(StreamLoader):
    """A loader of ``root/CLASS/image.png``, or ``root/train/CLASS/image.png`` and its like.

    With the subfolders "train", "validation" and "test" (any of them) these are the three classes
    of samples; without, all are for training, but for ``validation_ratio`` of them. Pixels are
    scaled to [-1, 1].

    Args:
        root: the folder.
        size: (height, width) that every image is scaled to.
        color: "RGB" for samples of shape (height, width, 3), "L" for grey ones (height, width).
        skip_damaged: leave images out that cannot be read; ``skipped`` names them. It reads every
            image once at the start.
        validation_ratio: the share to hold out, the same share of every class.
        minibatch_size, shuffle_limit: see :class:`Loader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        root: str | Path,
        *,
        size: tuple[int, int],
        color: Literal["RGB", "L"] = "RGB",
        skip_damaged: bool = False,
        validation_ratio: float = 0.0,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, minibatch_size=minibatch_size, shuffle_limit=shuffle_limit, name=name
        )
        if not 0 <= validation_ratio < 1:
            raise InputError(
                f"unit {self.path!r}: validation_ratio is {validation_ratio}; give one in [0, 1)"
            )
        self.root = Path(root).expanduser()
        self.size = size
        self.color = color
        self.skip_damaged = skip_damaged
        self.validation_ratio = validation_ratio
        self.skipped: list[Path] = []

    def load(self) -> None:
        """List the images; read all of them only when damaged ones are to be skipped."""
        if not self.root.is_dir():
            raise DataError(f"no image folder {self.root}; give a folder with one folder a class")
        parts = [self._list(self.root / part) for part in _PARTS]
        if not any(parts):
            parts = [[], [], self._list(self.root)]
        if not any(parts):
            raise DataError(f"no images in {self.root}; they belong into {self.root}/CLASS/")
        if self.skip_damaged:
            parts = [[one for one in part if self._is_whole(one)] for part in parts]
        names = [path.parent.name for part in parts for path in part]
        numbers, self.labels_mapping = class_numbers(names)
        self._files = [path for part in parts for path in part]
        self._numbers = numbers
        self.class_lengths = (len(parts[0]), len(parts[1]), len(parts[2]))
        self._hold_out()
        height, width = self.size
        self.sample_shape = (height, width, 3) if self.color == "RGB" else (height, width)

    def _list(self, folder: Path) -> list[Path]:
        return sorted(one for one in folder.glob("*/*") if one.suffix.lower() in _SUFFIXES)

    def _is_whole(self, path: Path) -> bool:
        try:
            self._read(path)
        except DataError:
            self.skipped.append(path)
            return False
        return True

    def _hold_out(self) -> None:
        if not self.validation_ratio:
            return
        test, validation, train = self.class_lengths
        first = test + validation
        random = generator(self.settings.seed, self.path, "validation")
        held = stratified_split(self._numbers[first:], self.validation_ratio, random) + first
        rest = np.setdiff1d(np.arange(first, first + train), held)
        order = np.concatenate([np.arange(first), held, rest])
        self._files = [self._files[place] for place in order]
        self._numbers = self._numbers[order]
        self.class_lengths = (test, validation + len(held), len(rest))

    def read_samples(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], NDArray[np.int32]]:
        """Read images and their classes."""
        images = np.stack([self._read(self._files[place]) for place in indices])
        return images, self._numbers[indices]

    def _read(self, path: Path) -> NDArray[np.float32]:
        from PIL import Image

        try:
            with Image.open(path) as image:
                height, width = self.size
                scaled = image.convert(self.color).resize((width, height))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise DataError(
                f"the image {path} is damaged ({error}); take it away, or give skip_damaged=True"
            ) from error
        return np.asarray(scaled, np.float32) / np.float32(127.5) - np.float32(1)
