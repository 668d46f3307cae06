"""Any data set with ``__getitem__`` and ``__len__``: of torch, of Hugging Face, a list of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np

from veloflow.errors import DataError, VeloflowError
from veloflow.units.labels import class_numbers
from veloflow.units.stream import StreamLoader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.drift import DriftTest
    from veloflow.units.labels import Label
    from veloflow.units.normalization import Normalizer

__all__ = ["DatasetLoader", "Indexed"]


class Indexed(Protocol):
    """A data set: what has a length and gives an item for each number below it."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""


@final
class DatasetLoader(StreamLoader):
    """A loader of any data sets that can be indexed; items are read as they are needed.

    An item is a pair (sample, label), a mapping with both by name, or a sample alone. A sample is
    anything that ``numpy.asarray`` turns into numbers: arrays, tensors, images of Pillow.

    Args:
        train: the training set.
        validation, test: the same for the other classes of samples.
        data, label: the names in items that are mappings; by default the first name, and "label".
        classes: all labels in order of class number, or their number when labels are 0, 1, 2 …;
            by default all items are read once at the start, to see which there are; and so they
            are with ``balanced``.
        **options: see :class:`StreamLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        train: Indexed,
        *,
        validation: Indexed | None = None,
        test: Indexed | None = None,
        data: str | None = None,
        label: str = "label",
        classes: Sequence[Label] | int | None = None,
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
        self.sets = [one for one in (test, validation, train) if one is not None]
        lengths = [0 if one is None else len(one) for one in (test, validation, train)]
        self._lengths = (lengths[0], lengths[1], lengths[2])
        self.data = data
        self.label = label
        self.classes = range(classes) if isinstance(classes, int) else classes

    def load(self) -> None:
        """Look at the first item, and at all of them if the classes are not given."""
        self.class_lengths = self._lengths
        self._set_ends = np.cumsum([len(one) for one in self.sets])
        if not sum(self.class_lengths):
            raise DataError(f"unit {self.path!r}: the data set is empty")
        sample, raw = self._item(0)
        self.sample_shape = sample.shape
        self._has_labels = raw is not None
        if not self._has_labels:
            return
        known = self.classes
        mapping = None if known is None else {raw: number for number, raw in enumerate(known)}
        self.labels_mapping = mapping or {}
        if mapping is None or self.balanced:
            raws = [self._item(number)[1] for number in range(int(self._set_ends[-1]))]
            found = class_numbers(np.array(raws, dtype=object), mapping)
            self.labels_mapping = found[1]
            self._number_classes(found[0])

    def _item(self, number: int) -> tuple[NDArray[Any], Label | None]:
        """Return a sample and its raw label."""
        which = int(np.searchsorted(self._set_ends, number, side="right"))
        place = number - (int(self._set_ends[which - 1]) if which else 0)
        where = f"unit {self.path!r}: item {place} of a data set"
        try:
            item = self.sets[which][place]
        except VeloflowError:
            raise
        except Exception as error:
            raise DataError(f"{where} cannot be read: {type(error).__name__}: {error}") from error
        raw: Any = None
        if isinstance(item, Mapping):
            names = list(item)
            data = self.data or next((one for one in names if one != self.label), "")
            if data not in item:
                raise DataError(f"{where} has no {data!r}; it has {', '.join(map(str, names))}")
            item, raw = item[data], item.get(self.label)
        elif isinstance(item, tuple | list) and len(item) == 2:
            item, raw = item
        sample = np.asarray(item)
        if sample.dtype.kind not in "biuf":
            raise DataError(f"{where} is {type(item).__name__}, which are no numbers")
        if raw is not None and not isinstance(raw, str | int):
            raw = np.asarray(raw).item()
        return sample, raw

    def read_samples(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], NDArray[np.int32]]:
        """Read items."""
        rows, raws = [], []
        for number in indices.tolist():
            sample, raw = self._item(number)
            if sample.shape != self.sample_shape:
                raise DataError(
                    f"unit {self.path!r}: sample {number} has shape {sample.shape}, and the first "
                    f"has {self.sample_shape}"
                )
            if sample.dtype.kind == "f" and not np.isfinite(sample).all():
                raise DataError(f"unit {self.path!r}: sample {number} holds NaN or infinity")
            if raw is None and self._has_labels:
                raise DataError(
                    f"unit {self.path!r}: sample {number} has no label, and the first has one"
                )
            rows.append(sample)
            raws.append(raw)
        if not self._has_labels:
            return np.stack(rows), np.full(len(rows), -1, np.int32)
        try:
            numbers, _ = class_numbers(np.array(raws, dtype=object), self.labels_mapping)
        except DataError as error:
            raise DataError(f"unit {self.path!r}: {error}") from error
        return np.stack(rows), numbers
