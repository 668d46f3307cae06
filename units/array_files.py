"""Arrays in files that need not fit into memory: .npy, .npz, HDF5 and Zarr, read in blocks."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from veloflow.devices.random import generator
from veloflow.errors import DataError, InputError
from veloflow.places import Place, is_url, place_of
from veloflow.units.labels import checked_ratio, class_numbers, hold_out
from veloflow.units.reading import open_arrays, pick_array
from veloflow.units.stream import StreamLoader
from veloflow.units.table_parts import PartRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.drift import DriftTest
    from veloflow.units.labels import Label
    from veloflow.units.normalization import Normalizer
    from veloflow.units.reading import RawData

__all__ = ["ArrayFileLoader"]

#: blocks that are kept: that of the present minibatch and the one that it may reach into
_KEPT = 2


@final
class ArrayFileLoader(StreamLoader):
    """A loader of arrays in files, of which no more than two blocks of rows are in memory at once.

    Samples are read in blocks of ``shuffle_window`` rows, which are shuffled, and so are the rows
    within a block; so a file that is far larger than the memory is read once in each pass, in long
    runs. Labels are read as a whole at the start.

    The samples stand in one file, or in one for each class of samples. A file of several arrays
    (.npz, .h5, .zarr) has them by name; an .npy file has one, and its labels are in another, given
    as ``labels=Path("labels.npy")``.

    Args:
        train: the file with the training samples; or a Parquet table, a file or a folder of parts
            as Spark writes it, where ``labels`` is the column of labels and all others are numbers.
        validation, test: the same for the other classes of samples.
        data: the name of the samples in a file of several arrays; by default "data", or the only.
        labels: the name of the labels, or a file of them (for ``train`` only); None for none.
        classes: all labels, in order of class number; by default those of ``train``, sorted.
        validation_ratio: the share of the training samples to hold out, the same of every class.
        shuffle_window: rows in a block; None shuffles all rows, and reads them one by one.
        **options: see :class:`StreamLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        train: str | Place,
        *,
        validation: str | Place | None = None,
        test: str | Place | None = None,
        data: str | None = None,
        labels: str | Place | None = "labels",
        classes: Sequence[Label] | None = None,
        validation_ratio: float = 0.0,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        shuffle_window: int | None = 4096,
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
        labels = place_of(labels) if is_url(labels) else labels
        if isinstance(labels, Place) and (validation or test):
            raise InputError(
                f"unit {self.path!r}: a file of labels is for the training samples; for several "
                "files give .npz, .h5 or .zarr with the labels inside"
            )
        self.sources = [None if one is None else place_of(one) for one in (test, validation, train)]
        self.data = data
        self.label_source = labels
        self.classes = classes
        self.validation_ratio = checked_ratio(validation_ratio, self.path)
        self._arrays: list[RawData | None] = []
        self._blocks: dict[tuple[int, int], NDArray[Any]] = {}
        self._lock = Lock()

    def load(self) -> None:
        """Open the files and read the labels."""
        self._arrays = []
        numbers: list[NDArray[np.int32]] = []
        lengths: list[int] = []
        mapping = None
        if self.classes is not None:
            mapping = {raw: number for number, raw in enumerate(self.classes)}
        shapes = {}
        for source in reversed(self.sources):  # the training samples say which labels there are
            if source is None:
                self._arrays.insert(0, None)
                numbers.insert(0, np.empty(0, np.int32))
                lengths.insert(0, 0)
                continue
            array, raw = self._open(source)
            found = np.full(len(array), -1, np.int32)
            if raw is not None:
                try:
                    found, mapping = class_numbers(raw, mapping)
                except DataError as error:
                    raise DataError(f"{source}: {error}") from error
            self._arrays.insert(0, array)
            numbers.insert(0, found)
            lengths.insert(0, len(array))
            shapes[source] = np.shape(array[0:1])[1:]
        self.labels_mapping = mapping or {}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{path} {shape}" for path, shape in shapes.items())
            raise DataError(f"the samples differ in shape: {told}")
        self.sample_shape = next(iter(shapes.values()))
        order, self.class_lengths = hold_out(
            np.concatenate(numbers),
            (lengths[0], lengths[1], lengths[2]),
            self.validation_ratio,
            generator(self.settings.seed, self.path, "validation"),
        )
        self._classes = np.concatenate(numbers)[order]
        self._number_classes(self._classes)
        self._places = np.concatenate([np.arange(length) for length in lengths])[order]
        self._which = np.repeat(np.arange(3), lengths)[order]

    def _open(self, source: Place) -> tuple[RawData, NDArray[Any] | None]:
        """Return samples and raw labels of a file."""
        if source.suffix.lower() == ".parquet":
            label = self.label_source
            if isinstance(label, Place):
                raise InputError(f"unit {self.path!r}: labels of a table are one of its columns")
            rows = PartRows(source, label)
            return rows, rows.labels()
        arrays = open_arrays(source)
        wanted = self.data
        if (
            wanted is None
            and "data" not in arrays
            and len(arrays) == 2
            and isinstance(self.label_source, str)
        ):
            wanted = next((one for one in arrays if one != self.label_source), None)
        array = pick_array(source, arrays, wanted)
        dtype = np.asarray(array[0:0]).dtype
        if dtype.kind not in "biuf":
            raise DataError(f"{source}: the samples are {dtype}, and no numbers")
        raw: RawData | None = None
        if isinstance(self.label_source, Place):
            raw = pick_array(self.label_source, open_arrays(self.label_source), None)
        elif self.label_source is not None:
            raw = pick_array(source, arrays, self.label_source)
        if raw is not None and len(raw) != len(array):
            raise DataError(f"{source} has {len(array)} samples and {len(raw)} labels")
        if raw is None:
            return array, None
        values = np.asarray(raw[0 : len(raw)])
        if values.dtype.kind in "SO":  # HDF5 gives texts as bytes
            texts = [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]
            values = np.array(texts, dtype=object)
        return array, values

    def read_samples(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], NDArray[np.int32]]:
        """Read rows, by way of the blocks that they are in.

        Raises:
            DataError: a row holds NaN or infinity.
        """
        rows: list[NDArray[Any]] = []
        for which, place in zip(self._which[indices], self._places[indices], strict=True):
            rows.append(self._row(int(which), int(place)))
        data = np.stack(rows)
        if data.dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(data.reshape(len(data), -1)).all(axis=1))
            if len(bad):
                sample = indices[bad[0]]
                raise DataError(
                    f"{self.sources[self._which[sample]]}: row {self._places[sample]} holds NaN or "
                    "infinity; take it out or replace it"
                )
        return data, self._classes[indices]

    def _row(self, which: int, place: int) -> NDArray[Any]:
        array = self._arrays[which]
        assert array is not None
        if self.shuffle_window is None:
            return cast("NDArray[Any]", np.asarray(array[place : place + 1])[0])
        block = place // self.shuffle_window
        with self._lock:  # the reader's thread, and a minibatch that it did not foresee
            found = self._blocks.pop((which, block), None)
            if found is None:
                while len(self._blocks) >= _KEPT:
                    del self._blocks[next(iter(self._blocks))]
                first = block * self.shuffle_window
                found = np.asarray(array[first : first + self.shuffle_window])
            self._blocks[which, block] = found  # the last used stands last
        row: NDArray[Any] = found[place - block * self.shuffle_window]
        return row

    def close(self) -> None:
        """End the thread and forget the blocks."""
        super().close()
        self._blocks.clear()
        self._arrays = []
