"""Loaders that hold the whole data set on the device and gather minibatches there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from veloflow.units.loader import Loader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = ["FullBatchLoader", "Samples"]


@dataclass
class Samples:
    """A data set in memory: the test samples first, then validation, then training.

    Attributes:
        data: (n, *sample shape), any dtype.
        labels: (n,) class numbers, int, -1 for unlabelled; None when there are none.
        lengths: samples in TEST, VALIDATION and TRAIN; their sum is n.
        labels_mapping: raw label -> class number.
    """

    data: NDArray[np.generic]
    labels: NDArray[np.integer] | None
    lengths: tuple[int, int, int]
    labels_mapping: Mapping[str | int, int] | None = None


class FullBatchLoader(Loader):
    """A loader of a data set that fits into memory. An outline: subclasses give the samples."""

    @abstractmethod
    def load_samples(self) -> Samples:
        """Return the data set."""

    def load(self) -> None:
        """Take the data set in."""
        self._samples = self.load_samples()
        self.class_lengths = self._samples.lengths
        self.sample_shape = self._samples.data.shape[1:]

    def prepare(self) -> None:
        """Put the data set onto the device and bind the gathering."""
        device, samples = self.device, self._samples
        self._indices: Array = device.zeros((self.max_minibatch_size,), "int32")
        self._data = device.asarray(samples.data, self.settings.dtype)
        self._launches: list[Launch] = [
            device.gather(self._data, self._indices, self.minibatch_data)
        ]
        if samples.labels is not None:
            self._labels = device.asarray(samples.labels, "int32")
            self._launches.append(
                device.gather(self._labels, self._indices, self.minibatch_labels, fill=-1)
            )
        else:
            self.minibatch_labels.write(-1)

    def fill_minibatch(self) -> None:
        """Gather data and labels."""
        self._indices.write(self.minibatch_indices)
        for launch in self._launches:
            launch()
