"""Loaders that hold the whole data set on the device and gather minibatches there."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from veloflow.devices.random import generator
from veloflow.errors import DataError, InputError
from veloflow.units.labels import Label, class_numbers, count_labels, stratified_split
from veloflow.units.loader import CLASS_NAMES, TRAIN, Loader
from veloflow.units.normalization import Normalizer, normalizer_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = ["ArrayLoader", "FullBatchLoader", "Samples"]

#: samples that are normalized together; a device's views begin at multiples of 128
_TOGETHER = 256


@dataclass
class Samples:
    """A data set in memory: the test samples first, then validation, then training.

    Attributes:
        data: (n, *sample shape), any number type.
        labels: (n,) raw labels: strings, whole numbers, None for no label; or None.
        lengths: samples in TEST, VALIDATION and TRAIN; their sum is n.
        targets: (n, *target shape) for regression; or None.
        classes: all labels that there may be, in order of class number; None to number those that
            are there in sorted order.
    """

    data: NDArray[Any]
    labels: ArrayLike | None
    lengths: tuple[int, int, int]
    targets: NDArray[Any] | None = None
    classes: Sequence[Label] | None = None


class FullBatchLoader(Loader):
    """A loader of a data set that fits into memory. An outline: subclasses give the samples.

    Args:
        minibatch_size, shuffle_limit: see :class:`Loader`.
        normalization: a normalizer or its name; it learns from the training samples (from all,
            where there are none) and is kept in checkpoints.
        validation_ratio: the share of the training samples to hold out for validation, the same
            share of every class; chosen by the run's seed.

    Attributes:
        minibatch_targets: (minibatch_size, *target shape), when there are targets.
        label_counts: class of samples -> raw label -> how many.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        normalization: str | Normalizer = "none",
        validation_ratio: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, minibatch_size=minibatch_size, shuffle_limit=shuffle_limit, name=name
        )
        if not 0 <= validation_ratio < 1:
            raise InputError(
                f"unit {self.path!r}: validation_ratio is {validation_ratio}; give one in [0, 1)"
            )
        self.normalizer = normalizer_of(normalization)
        self.validation_ratio = validation_ratio
        self.label_counts: dict[str, dict[Label, int]] = {}
        self.minibatch_targets: Array

    @abstractmethod
    def load_samples(self) -> Samples:
        """Return the data set.

        Raises:
            DataError: it is missing or damaged; the message says how to get it.
        """

    def load(self) -> None:
        """Take the data set in: number the labels, hold validation samples out, normalize."""
        samples = self.load_samples()
        _check(samples, self.path)
        labels = None
        if samples.labels is not None:
            known = samples.classes
            mapping = None if known is None else {raw: n for n, raw in enumerate(known)}
            labels, self.labels_mapping = class_numbers(samples.labels, mapping)
        order, self.class_lengths = self._split(samples, labels)
        self._labels = None if labels is None else labels[order]
        self._targets = None if samples.targets is None else samples.targets[order]
        self._is_labelled = self._labels is None or bool((self._labels >= 0).all())
        self._raw = samples.data[order]
        self.sample_shape = samples.data.shape[1:]
        self._learn_normalization()
        if self._labels is not None:
            parts = np.split(self._labels, np.cumsum(self.class_lengths)[:-1])
            self.label_counts = {
                name: count_labels(part, self.labels_mapping)
                for name, part in zip(CLASS_NAMES, parts, strict=True)
                if len(part)
            }

    def _split(
        self, samples: Samples, labels: NDArray[np.int32] | None
    ) -> tuple[NDArray[np.intp], tuple[int, int, int]]:
        """Return the order of the samples and the lengths of the classes."""
        test, validation, train = samples.lengths
        order = np.arange(len(samples.data))
        if not self.validation_ratio:
            return order, samples.lengths
        first = test + validation
        classes = np.zeros(train, np.int32) if labels is None else labels[first:]
        random = generator(self.settings.seed, self.path, "validation")
        held = stratified_split(classes, self.validation_ratio, random) + first
        rest = np.setdiff1d(order[first:], held)
        lengths = (test, validation + len(held), len(rest))
        return np.concatenate([order[:first], held, rest]), lengths

    def _learn_normalization(self) -> None:
        self.normalizer.reset()
        held_out = sum(self.class_lengths[:TRAIN]) if self.class_lengths[TRAIN] else 0
        self.normalizer.analyze(self._raw[held_out:])

    def initialize(self) -> None:
        """Load the data and declare the minibatch."""
        super().initialize()
        if self._targets is not None:
            self.minibatch_targets = self.declare(self.max_minibatch_size, *self._targets.shape[1:])

    def prepare(self) -> None:
        """Put the data set onto the device and bind the gathering; a master has no use for it."""
        self._data: Array | None = None
        if self.settings.role == "master":
            return
        device = self.device
        self._indices: Array = device.zeros((self.max_minibatch_size,), "int32")
        self._launches: list[Launch] = []
        self._place_data()
        if self._labels is None:
            self.minibatch_labels.write(-1)
        else:
            labels = device.asarray(self._labels, "int32")
            self._bind(labels, self.minibatch_labels, fill=-1)
        if self._targets is not None:
            targets = device.asarray(self._targets, self.settings.dtype)
            self._bind(targets, self.minibatch_targets)

    def _place_data(self) -> None:
        self._data = self.device.zeros(self._raw.shape, self.settings.dtype)
        self._write_normalized(self._data)
        self._bind(self._data, self.minibatch_data)

    def _write_normalized(self, data: Array) -> None:
        """Normalize the data set into ``data``, some samples at a time.

        A normalizer computes in float64: of the whole set that would be eight bytes a number, and
        twice the time, for it would not stay in the cache.
        """
        for start in range(0, len(self._raw), _TOGETHER):
            part = self._raw[start : start + _TOGETHER]
            place = self.device.view(data, start * math.prod(data.shape[1:]), part.shape)
            place.write(self.normalizer.normalize(part))

    def _bind(self, source: Array, target: Array, fill: float = 0.0) -> None:
        self._launches.append(self.device.gather(source, self._indices, target, fill=fill))

    def fill_minibatch(self) -> None:
        """Gather data, labels and targets."""
        self._indices.write(self.minibatch_indices)
        for launch in self._launches:
            launch()

    def count_labelled(self, indices: NDArray[np.int64]) -> int:
        """Return how many of these samples are evaluated: those with a label, if there are any."""
        if self._labels is None or self._is_labelled:
            return len(indices)
        return int(np.count_nonzero(self._labels[indices] >= 0))

    def results(self) -> Mapping[str, object]:
        """Return how many samples of each label there are."""
        if not self.label_counts:
            return {}
        counts = {
            name: {str(raw): count for raw, count in found.items()}
            for name, found in self.label_counts.items()
        }
        return {"labels": counts}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to the saved place, with the normalization that the model was trained with."""
        super().restore(state)
        if self._data is not None:
            self._write_normalized(self._data)


def _check(samples: Samples, path: str) -> None:
    count = len(samples.data)
    if sum(samples.lengths) != count:
        raise DataError(f"unit {path!r}: {count} samples, but class lengths {samples.lengths}")
    for what, values in (("labels", samples.labels), ("targets", samples.targets)):
        if values is not None and len(np.asarray(values)) != count:
            raise DataError(f"unit {path!r}: {count} samples, but {len(np.asarray(values))} {what}")
    if samples.data.dtype.kind not in "biuf":
        raise DataError(f"unit {path!r}: the samples are {samples.data.dtype}, and no numbers")


@final
class ArrayLoader(FullBatchLoader):
    """A loader of arrays in memory.

    Args:
        data: (n, *sample shape) for TRAIN.
        labels: (n,) raw labels, or None.
        targets: (n, *target shape), or None.
        validation: (data, labels) for VALIDATION; test: the same for TEST.
        classes: all labels that there may be, in order of class number; by default those that are
            there, sorted.
        **options: see :class:`FullBatchLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        data: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        targets: ArrayLike | None = None,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        classes: Sequence[Label] | None = None,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        normalization: str | Normalizer = "none",
        validation_ratio: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow,
            minibatch_size=minibatch_size,
            shuffle_limit=shuffle_limit,
            normalization=normalization,
            validation_ratio=validation_ratio,
            name=name,
        )
        if targets is not None and (validation or test):
            raise InputError(f"unit {self.path!r}: targets go with validation_ratio only")
        self._parts = [part for part in (test, validation, (data, labels)) if part is not None]
        lengths = [len(np.asarray(part[0])) if part else 0 for part in (test, validation)]
        self._lengths = (lengths[0], lengths[1], len(np.asarray(data)))
        self._classes = classes
        self._given_targets = None if targets is None else np.asarray(targets)

    def load_samples(self) -> Samples:
        """Return the arrays, one after another."""
        data = np.concatenate([np.asarray(part[0]) for part in self._parts])
        labels = [np.asarray(part[1]) for part in self._parts if part[1] is not None]
        if labels and len(labels) < len(self._parts):
            raise DataError(f"unit {self.path!r}: some of the parts have labels and some have none")
        joined = np.concatenate(labels) if labels else None
        return Samples(data, joined, self._lengths, self._given_targets, self._classes)
