"""IDX files, the format of MNIST, plain or gzipped; and a loader of the pairs in a folder."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast, final

import numpy as np

from veloflow.errors import DataError
from veloflow.places import Place, RemotePath, place_of, whole
from veloflow.units.fullbatch import FullBatchLoader, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.drift import DriftTest
    from veloflow.units.normalization import Normalizer

__all__ = ["IDXLoader", "read_idx"]

#: the third byte of the header -> big-endian dtype
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IMAGES, _LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
_CURE = (
    "for MNIST put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
    "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz there (any mirror of MNIST has them)"
)


def read_idx(path: Place) -> NDArray[Any]:
    """Read an IDX file.

    The header's size is compared with the content before anything is allocated for it.

    Returns:
        An array of the file's shape, in native byte order.

    Raises:
        DataError: the file is missing, no IDX file, damaged or cut short.
    """
    if not path.is_file():
        raise DataError(f"no data file {path}; {_CURE}")
    try:
        source = whole(path)
        with source.open("rb") if isinstance(source, Path) else source as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            return _read(path, cast("BinaryIO", gzip.open(raw)) if is_gzip else raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error


def _read(path: Place, file: BinaryIO) -> NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise DataError(f"{path} is no IDX file; get it again")
    dtype, rank = np.dtype(_DTYPES[head[2]]), head[3]
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(f"{path} is cut short in its header; get it again")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    promised = math.prod(shape) * dtype.itemsize
    content = _read_at_most(file, promised + 1)  # however much a gzip would unfold to
    if len(content) != promised:
        more = "more than that" if len(content) > promised else f"{len(content)}"
        raise DataError(
            f"{path}: its header promises {promised} bytes of data {shape}, and it holds {more}; "
            "get it again"
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_at_most(file: BinaryIO, limit: int) -> bytes:
    parts = []
    while limit > 0 and (part := file.read(min(limit, 1 << 20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


@final
class IDXLoader(FullBatchLoader):
    """A loader of the IDX pairs of a folder: ``NAME-images-idx3-ubyte[.gz]`` with its labels.

    A pair whose name starts with "train" is for TRAIN; the other one ("t10k", "test", "val…") for
    VALIDATION, as in Veles.

    Args:
        folder: where the files are.
        **options: see :class:`FullBatchLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        folder: str | Place,
        *,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        normalization: str | Normalizer = "linear",
        validation_ratio: float = 0.0,
        balanced: bool = False,
        drift: DriftTest = "labels",
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow,
            minibatch_size=minibatch_size,
            shuffle_limit=shuffle_limit,
            normalization=normalization,
            validation_ratio=validation_ratio,
            balanced=balanced,
            drift=drift,
            name=name,
        )
        self.folder = place_of(folder)

    def load_samples(self) -> Samples:
        """Read the pairs."""
        parts: dict[str, list[tuple[Any, Any]]] = {"validation": [], "train": []}
        for images in self._find_images():
            name, _, rest = images.name.partition(_IMAGES)
            kind = "train" if name.startswith("train") else "validation"
            parts[kind].append(self._read_pair(images, images.with_name(name + _LABELS + rest)))
        pairs = [*parts["validation"], *parts["train"]]
        shapes = {data.shape[1:] for data, _ in pairs}
        if len(shapes) > 1:
            raise DataError(f"the images in {self.folder} differ in shape: {sorted(shapes)}")
        lengths = [sum(len(data) for data, _ in parts[kind]) for kind in parts]
        data = np.concatenate([pair[0] for pair in pairs])
        labels = np.concatenate([pair[1] for pair in pairs])
        return Samples(data, labels, (0, lengths[0], lengths[1]))

    def _find_images(self) -> list[Place]:
        found = {one.name.removesuffix(".gz"): one for one in self._candidates()}
        found = {name: path for name, path in found.items() if name.endswith(_IMAGES)}
        if not any(name.startswith("train") for name in found):
            raise DataError(f"no train*{_IMAGES}[.gz] in {self.folder}; {_CURE}")
        return [found[name] for name in sorted(found)]

    def _candidates(self) -> Iterator[Place]:
        """Yield what may be images; a web server may give files and list no folders."""
        try:
            is_listed = self.folder.is_dir()
        except DataError:
            is_listed = False  # a server that is not there is told by what follows
        if is_listed:
            yield from self.folder.glob(f"*{_IMAGES}*")
        elif isinstance(self.folder, RemotePath):
            for name in ("train", "t10k"):
                ends = (self.folder / f"{name}{_IMAGES}{end}" for end in (".gz", ""))
                yield from islice((one for one in ends if one.is_file()), 1)
        else:
            raise DataError(f"no data folder {self.folder}; {_CURE}")

    def _read_pair(self, images: Place, labels: Place) -> tuple[NDArray[Any], NDArray[Any]]:
        other = labels.with_name(labels.name.removesuffix(".gz"))
        if not labels.is_file():
            labels = other if other.is_file() else labels.with_name(other.name + ".gz")
        data, numbers = read_idx(images), read_idx(labels)
        if len(data) != len(numbers):
            raise DataError(
                f"{images} has {len(data)} images and {labels} {len(numbers)} labels; "
                "get the pair again"
            )
        return data, numbers
