"""Images in files: loaders of folders and of lists, read through Pillow, changed on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, Unpack, final, get_args

import numpy as np

from veloflow.errors import DataError, InputError, nearest
from veloflow.places import Place, place_of, whole
from veloflow.units.augmentation import Augmentation, Fit, fitted
from veloflow.units.files import (
    FileLoader,
    FileOptions,
    Files,
    Listed,
    folder_parts,
    listed_files,
)
from veloflow.units.normalization import RangeLinear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.reading import RawData

__all__ = ["ImageFolderLoader", "ImageListLoader", "ImageLoader"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})

Color = Literal["RGB", "L", "HSV", "YCbCr", "CMYK", "RGBA"]


class ImageOptions(FileOptions, total=False):
    """What a loader of images may be told, as :class:`ImageLoader` says."""

    size: Required[tuple[int, int]]
    color: Color
    fit: Fit
    background: int
    augment: Augmentation | None
    inflation: int


class ImageLoader(FileLoader):
    """A loader of images. An outline: subclasses list them.

    Pixels are scaled from 0..255 to [-1, 1], unless ``normalization`` says otherwise.

    Args:
        size: (height, width) that every image is scaled to.
        color: "RGB", "HSV", "YCbCr", "CMYK", "RGBA" for samples of shape (height, width,
            channels), "L" for grey ones (height, width).
        fit: how images come to their size: "stretch", "pad" or "crop" (see
            :func:`~veloflow.units.augmentation.fitted`).
        background: the value, 0 to 255, around padded images.
        augment: how training images are changed at random; None for not at all.
        inflation: how many differently changed copies of each training image a pass has.
        **options: see :class:`FileLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        size: tuple[int, int],
        color: Color = "RGB",
        fit: Fit = "stretch",
        background: int = 0,
        augment: Augmentation | None = None,
        inflation: int = 1,
        **options: Unpack[FileOptions],
    ) -> None:
        options.setdefault("normalization", _from_bytes())
        super().__init__(workflow, **options)
        if np.shape(size) != (2,) or min(size) < 1:
            raise InputError(f"unit {self.path!r}: size is {size}; give (height, width) in pixels")
        for what, given, known in (("color", color, Color), ("fit", fit, Fit)):
            if given not in get_args(known):
                raise InputError(
                    f"unit {self.path!r}: {what} is {given!r}{nearest(given, get_args(known))}; "
                    f"give {' or '.join(get_args(known))}"
                )
        if inflation < 1 or (inflation > 1 and augment is None):
            raise InputError(
                f"unit {self.path!r}: inflation is {inflation}; give 1, or more with augment=…, "
                "for copies that are the same teach nothing"
            )
        self.size = size
        self.color = color
        self.fit: Fit = fit
        self.background = background
        self.augment = augment
        self.inflation = inflation

    def load(self) -> None:
        """List the images; each training image stands for as many samples as inflation says."""
        super().load()
        height, width = self.size
        channels = {"L": 0, "CMYK": 4, "RGBA": 4}.get(self.color, 3)
        self.sample_shape = (height, width, channels) if channels else (height, width)
        if self.inflation > 1:
            test, validation, train = self.class_lengths
            held = test + validation
            order = np.concatenate(
                [np.arange(held), held + np.repeat(np.arange(train), self.inflation)]
            )
            self._files = [self._files[place] for place in order]
            self.class_lengths = (test, validation, train * self.inflation)
            counts = self.label_counts  # of the files
            self._classes = self._classes[order]
            self._number_classes(self._classes)
            self.label_counts = counts

    def read_file(self, path: Place, random: np.random.Generator | None) -> NDArray[Any]:
        """Read an image as uint8."""
        from PIL import Image

        try:
            with Image.open(whole(path)) as image:
                scaled = fitted(image.convert(self.color), self.size, self.fit, self.background)
                if self.augment is not None and random is not None:
                    scaled = self.augment.apply(scaled, random)
                return np.asarray(scaled)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise DataError(
                f"the image {path} is damaged ({error}); take it away, or give skip_bad=True"
            ) from error

    def read_raw(
        self, source: Place, *, key: str | None = None
    ) -> tuple[list[str] | None, RawData]:
        """Read an image, or all images in a folder and below; or arrays from another file."""
        if not source.is_dir() and source.suffix.lower() not in _SUFFIXES:
            return super().read_raw(source, key=key)
        return Files.below(source, _SUFFIXES, self)


def _from_bytes() -> RangeLinear:
    """Return what maps 0..255 to [-1, 1], whatever is in the images."""
    return RangeLinear(known=(0.0, 255.0))


@final
class ImageFolderLoader(ImageLoader):
    """A loader of ``root/CLASS/image.png``, or ``root/train/CLASS/image.png`` and its like.

    With the subfolders "train", "validation" and "test" (any of them) these are the three classes
    of samples; without, all are for training, but for ``validation_ratio`` of them.

    Args:
        root: the folder.
        **options: see :class:`ImageLoader`.
    """

    def __init__(
        self, workflow: Workflow, root: str | Place, **options: Unpack[ImageOptions]
    ) -> None:
        super().__init__(workflow, **options)
        self.root = place_of(root)

    def list_files(self) -> list[list[Listed]]:
        """List the images in the folders."""
        return folder_parts(self.root, _SUFFIXES, "image")


@final
class ImageListLoader(ImageLoader):
    """A loader of images in a list, with labels beside their paths or in them.

    Args:
        train: the list of training images, see :func:`listed_files`.
        validation, test: the same for the other classes of samples.
        label: a regular expression whose first group is the label in a path that has none; by
            default the name of the folder.
        **options: see :class:`ImageLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        train: str | Place | Sequence[Any],
        *,
        validation: str | Place | Sequence[Any] | None = None,
        test: str | Place | Sequence[Any] | None = None,
        label: str | None = r"([^/]+)/[^/]+$",
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(workflow, **options)
        self.lists = (test, validation, train)
        self.label = label

    def list_files(self) -> list[list[Listed]]:
        """Read the lists."""
        return [
            []
            if one is None
            else listed_files(place_of(one) if isinstance(one, str) else one, self.label)
            for one in self.lists
        ]
