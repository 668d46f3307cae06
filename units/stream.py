"""Loaders that read samples as they are needed, the next minibatch while this one is used."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.random import generator
from veloflow.errors import InputError
from veloflow.units.drift import DriftTest, checked_drift, places_to_compare, warn_of_drift
from veloflow.units.labels import balanced_order, count_labels
from veloflow.units.loader import CLASS_NAMES, TRAIN, Loader
from veloflow.units.normalization import normalizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.labels import Label
    from veloflow.units.normalization import Normalizer

__all__ = ["StreamLoader"]

Batch = tuple["NDArray[np.generic]", "NDArray[np.int32]"]

#: samples that are read together to learn a normalization
_LEARNED_TOGETHER = 1024


class StreamLoader(Loader):
    """A loader of data that is read piece by piece. An outline: subclasses read samples.

    One thread reads the minibatch that comes next in the pass while the present one is used.
    What is served does not depend on it.

    Args:
        minibatch_size, shuffle_limit: see :class:`Loader`.
        shuffle_window: shuffle within runs of so many training samples that lie one after another,
            and shuffle the runs, so that files are read nearly in their own order; None shuffles
            all samples. The order depends on the seed, the unit's name and the pass only.
        normalization: a normalizer or its name. One that learns reads the training samples once at
            the start.
        balanced: serve training samples of every class equally often: those of small classes
            come several times in a pass, and of large ones not all.
        drift: warn when validation or test samples are distributed otherwise than those for
            training: "labels" compares how frequent labels are, where they are known before the
            samples are read; "all" reads up to 2,000 samples of each set and compares each feature
            too (see :mod:`veloflow.units.drift`); "none" compares nothing.

    Attributes:
        label_counts: class of samples -> raw label -> how many, where labels are known.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        shuffle_window: int | None = None,
        normalization: str | Normalizer = "none",
        balanced: bool = False,
        drift: DriftTest = "labels",
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, minibatch_size=minibatch_size, shuffle_limit=shuffle_limit, name=name
        )
        if shuffle_window is not None and shuffle_window < 1:
            raise InputError(
                f"unit {self.path!r}: shuffle_window is {shuffle_window}; give at least 1"
            )
        self.shuffle_window = shuffle_window
        self.normalizer = normalizer_of(normalization)
        self.balanced = balanced
        self.drift = checked_drift(drift, self.path)
        self.label_counts: dict[str, dict[Label, int]] = {}
        self._numbers: NDArray[np.int32] | None = None
        self._reader: ThreadPoolExecutor | None = None
        self._coming: tuple[bytes, Future[Batch]] | None = None

    @abstractmethod
    def read_samples(self, indices: NDArray[np.int64]) -> Batch:
        """Return raw data (n, *sample shape) and class numbers (n,) of these samples.

        It runs in another thread: read files, change nothing. What is drawn at random goes by
        :meth:`random_for`, so that it is the same whoever reads a sample.

        Raises:
            DataError: a sample cannot be read; the message names its file.
        """

    def initialize(self) -> None:
        """Load, declare the minibatch, and learn the normalization."""
        super().initialize()
        self._compare()
        self.normalizer.reset()
        if self.normalizer.needs_analysis:
            held_out = sum(self.class_lengths[:TRAIN]) if self.class_lengths[TRAIN] else 0
            for first in range(held_out, sum(self.class_lengths), _LEARNED_TOGETHER):
                end = min(first + _LEARNED_TOGETHER, sum(self.class_lengths))
                self.normalizer.analyze(self.read_samples(np.arange(first, end))[0])

    def _number_classes(self, numbers: NDArray[np.int32]) -> None:
        """Take the class numbers of all samples, in the order of the sets, and count them."""
        self._numbers = numbers
        pieces = np.split(numbers, np.cumsum(self.class_lengths)[:-1])
        self.label_counts = {
            name: count_labels(part, self.labels_mapping)
            for name, part in zip(CLASS_NAMES, pieces, strict=True)
            if len(part) and self.labels_mapping
        }

    def _compare(self) -> None:
        """Warn of sets that differ."""
        features, first = {}, 0
        for name, count in zip(CLASS_NAMES, self.class_lengths, strict=True):
            if count:
                features[name] = partial(self._samples_at, places_to_compare(first, count))
            first += count
        warn_of_drift(self, self.drift, self.label_counts, features)

    def _samples_at(self, places: NDArray[np.int64]) -> NDArray[np.generic]:
        return self.read_samples(places)[0]

    def count_labelled(self, indices: NDArray[np.int64]) -> int:
        """Return how many of these samples are evaluated: those with a label, if there are any."""
        if not self.labels_mapping or self._numbers is None:
            return len(indices)
        return int(np.count_nonzero(self._numbers[indices] >= 0))

    def results(self) -> Mapping[str, object]:
        """Return how many samples of each label there are."""
        counts = {
            name: {str(raw): count for raw, count in found.items()}
            for name, found in self.label_counts.items()
        }
        return {**super().results(), "labels": counts} if counts else super().results()

    def random_for(self, sample: int) -> np.random.Generator | None:
        """Return the generator of a training sample in this pass; None for other samples.

        It depends on the seed, the unit's name, the pass and the sample only.
        """
        if sample < sum(self.class_lengths[:TRAIN]) or self.settings.testing:
            return None
        return generator(self.settings.seed, self.path, "sample", self._pass, sample)

    def shuffled(self, order: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Return the order of the training samples in a pass, within windows if there are some.

        With ``balanced`` and windows it is chosen first which samples come how often.
        """
        random = generator(self.settings.seed, self.path, "order", number)
        first = sum(self.class_lengths[:TRAIN])
        if self.balanced and self._numbers is not None:
            samples = balanced_order(self._numbers[first:], random).astype(np.int64) + first
            if self.shuffle_window is None:
                return samples
            samples.sort()
        elif self.shuffle_window is None:
            return super().shuffled(order, number)
        else:
            samples = np.arange(first, sum(self.class_lengths))
        starts = np.arange(first, sum(self.class_lengths), self.shuffle_window)
        runs = np.split(samples, np.searchsorted(samples, starts[1:]))
        shuffled = [random.permutation(runs[place]) for place in random.permutation(len(runs))]
        return np.concatenate([np.empty(0, np.int64), *shuffled])

    def fill_minibatch(self) -> None:
        """Take what was read ahead if it is this minibatch, and begin with the next."""
        indices = self.minibatch_indices[: self.minibatch_size].copy()
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == indices.tobytes():
            data, labels = coming[1].result()
        else:
            data, labels = self._read(indices)
        self._begin_next()
        self._put(data, labels)

    def _read(self, indices: NDArray[np.int64]) -> Batch:
        data, labels = self.read_samples(indices)
        return self.normalized(data), labels

    def _put(self, data: NDArray[Any], labels: NDArray[np.int32]) -> None:
        rows = np.zeros(self.minibatch_data.shape, self.minibatch_data.dtype)
        rows[: len(data)] = data
        numbers = np.full(self.max_minibatch_size, -1, np.int32)
        numbers[: len(labels)] = labels
        self.minibatch_data.write(rows)
        self.minibatch_labels.write(numbers)

    def samples_of(self, indices: NDArray[np.int64], number: int) -> dict[str, NDArray[np.generic]]:
        """Read these samples, changed as that pass has them changed."""
        own, self._pass = self._pass, number
        try:
            data, labels = self._read(indices)
        finally:
            self._pass = own
        return {"minibatch_data": data, "minibatch_labels": labels}

    def _begin_next(self) -> None:
        following = self.next_indices()
        if not len(following):
            return
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"reader of {self.path}")
        future = self._reader.submit(self._read, following)
        self._coming = (following.tobytes(), future)

    def close(self) -> None:
        """End the thread."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None
        self._coming = None
