"""The images that a network is most wrong about, saved as files to look at."""

from __future__ import annotations

import heapq
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from veloflow.core import Bool, Input
from veloflow.devices import Array
from veloflow.errors import InputError, ShapeError, StorageError
from veloflow.units.loader import CLASS_NAMES
from veloflow.units.observing import Observer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.standard import StandardUnits

__all__ = ["ImageSaver"]


@final
class ImageSaver(Observer):
    """Saves the worst mistakes of each epoch: images whose most probable label is wrong.

    They are in ``folder/validation`` and so on, named after the rank (0000 is the worst), the true
    label, what it was taken for, and the number of the sample: ``0000_7_as_1_sample_42.png``. Each
    epoch's images replace those of the one before, all at once. It looks at what this process
    computes: a master with slaves saves nothing.

    Link ``output`` to the last layer, the rest to the loader. Values are scaled so that the
    smallest in an image is black and the largest white.

    Args:
        folder: where to put the folders.
        limit: images of each class of samples.
        kinds: the classes of samples, by default test and validation.
    """

    output = Input[Array]("batch classes")
    minibatch_data = Input[Array]("batch ...")
    minibatch_labels = Input[Array]("batch", dtype="int32")
    minibatch_indices = Input[Any]()
    minibatch_class = Input[int]()
    last_minibatch = Input[Bool]()
    labels_mapping = Input[dict[Any, int]](optional=True)

    def __init__(
        self,
        workflow: Workflow,
        folder: str | Path,
        *,
        limit: int = 100,
        kinds: tuple[str, ...] = ("test", "validation"),
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        strange = [one for one in kinds if one not in CLASS_NAMES]
        if limit < 1 or strange:
            raise InputError(
                f"unit {self.path!r}: limit is {limit} and kinds {kinds}; give a limit from 1 on "
                f"and any of {', '.join(CLASS_NAMES)}"
            )
        self.folder = Path(folder).expanduser()
        self.limit = limit
        self.kinds = frozenset(CLASS_NAMES.index(one) for one in kinds)
        # a heap, the least bad on top: loss, sample, true and predicted class, pixels
        self._worst: list[tuple[float, int, int, int, NDArray[Any]]] = []

    def observe(self, units: StandardUnits) -> None:
        """Look at the last layer and the loader."""
        self.link_data(units.forwards[-1], "output")
        self.link_data(
            units.loader, "minibatch_data", "minibatch_labels", "minibatch_indices",
            "minibatch_class", "last_minibatch", "labels_mapping",
        )  # fmt: skip

    def initialize(self) -> None:
        """Look whether the samples are images.

        Raises:
            ShapeError: they are not.
        """
        shape = self.minibatch_data.shape[1:]
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise ShapeError(
                f"unit {self.path!r}: samples of shape {shape} are no images of (height, width), "
                "or of (height, width, 3)"
            )

    def run(self) -> None:
        """Look at a minibatch; at the end of its class save what is worst."""
        kind = self.minibatch_class
        if kind not in self.kinds:
            return
        labels = np.asarray(self.minibatch_labels.read())
        shares = np.asarray(self.output.read(), np.float64)
        predicted = shares.argmax(axis=1)
        rows = np.flatnonzero((labels >= 0) & (predicted != labels))
        losses = -np.log(np.maximum(shares[rows, labels[rows]], 1e-300))
        data = self.minibatch_data.read()
        for row, loss in zip(rows.tolist(), losses.tolist(), strict=True):
            if len(self._worst) == self.limit and loss <= self._worst[0][0]:
                continue
            sample = int(self.minibatch_indices[row])
            entry = (loss, sample, int(labels[row]), int(predicted[row]), np.array(data[row]))
            if len(self._worst) < self.limit:
                heapq.heappush(self._worst, entry)
            else:
                heapq.heapreplace(self._worst, entry)
        if self.last_minibatch:
            self._save(self.folder / CLASS_NAMES[kind])
            self._worst = []

    def run_as_master(self) -> None:
        """Do nothing: the images are with the slaves."""

    def _save(self, folder: Path) -> None:
        from PIL import Image

        new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
        labels = {n: raw for raw, n in self.labels_mapping.items()} if self._knows_labels else {}
        try:
            for one in (new, old):
                shutil.rmtree(one, ignore_errors=True)
            new.mkdir(parents=True)
            ordered = sorted(self._worst, key=lambda entry: (-entry[0], entry[1]))
            for rank, (_, sample, true, predicted, pixels) in enumerate(ordered):
                names = (_plain(labels.get(number, number)) for number in (true, predicted))
                path = new / f"{rank:04}_{'_as_'.join(names)}_sample_{sample}.png"
                Image.fromarray(_bytes(pixels)).save(path)
            if folder.exists():
                folder.replace(old)
            new.replace(folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error

    @property
    def _knows_labels(self) -> bool:
        return self.has_input("labels_mapping")


def _plain(label: object) -> str:
    return re.sub(r"[^\w.-]", "-", str(label))[:40]


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    values = pixels.astype(np.float64)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    found = np.asarray(np.rint(scaled), np.uint8)
    return found[..., 0] if found.ndim == 3 and found.shape[2] == 1 else found
