"""Loaders that hold the whole data set on the device and gather minibatches there."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np

from veloflow.devices.random import generator
from veloflow.errors import DataError, InputError
from veloflow.units.byte_samples import ByteSamples, line_of
from veloflow.units.drift import DriftTest, checked_drift, warn_of_drift
from veloflow.units.labels import (
    Label,
    balanced_order,
    checked_ratio,
    class_numbers,
    count_labels,
    hold_out,
)
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
        weights: (n,) how much each sample counts, not below 0; None for all the same.
    """

    data: NDArray[Any]
    labels: ArrayLike | None
    lengths: tuple[int, int, int]
    targets: NDArray[Any] | None = None
    classes: Sequence[Label] | None = None
    weights: NDArray[np.float64] | None = None


class FullBatchLoader(Loader):
    """A loader of a data set that fits into memory. An outline: subclasses give the samples.

    Args:
        minibatch_size, shuffle_limit: see :class:`Loader`.
        normalization: a normalizer or its name; it learns from the training samples (from all,
            where there are none) and is kept in checkpoints.
        validation_ratio: the share of the training samples to hold out for validation, the same
            share of every class; chosen by the run's seed.
        balanced: serve training samples of every class equally often: those of small classes
            come several times in a pass, and of large ones not all.
        drift: warn when validation or test samples are distributed otherwise than those for
            training: "labels" compares how frequent labels are, "all" each feature too (see
            :mod:`veloflow.units.drift`); "none" compares nothing.

    Attributes:
        minibatch_targets: (minibatch_size, *target shape), when there are targets.
        minibatch_weights: (minibatch_size,), when samples have weights.
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
        balanced: bool = False,
        drift: DriftTest = "labels",
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, minibatch_size=minibatch_size, shuffle_limit=shuffle_limit, name=name
        )
        self.balanced = balanced
        self.drift = checked_drift(drift, self.path)
        self.normalizer = normalizer_of(normalization)
        self.validation_ratio = checked_ratio(validation_ratio, self.path)
        self.label_counts: dict[str, dict[Label, int]] = {}
        self.minibatch_targets: Array
        self.minibatch_weights: Array

    @property
    def has_weights(self) -> bool:
        """Whether there will be ``minibatch_weights``; who has them says so."""
        return False

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
        self._weights = None if samples.weights is None else samples.weights[order]
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
        parts = np.split(self._raw, np.cumsum(self.class_lengths)[:-1])
        features = {
            name: partial(np.asarray, part)
            for name, part in zip(CLASS_NAMES, parts, strict=True)
            if len(part)
        }
        warn_of_drift(self, self.drift, self.label_counts, features)

    def shuffled(self, order: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Return the order of the training samples in a pass, balanced if that was asked for."""
        if not self.balanced or self._labels is None:
            return super().shuffled(order, number)
        first = sum(self.class_lengths[:TRAIN])
        random = generator(self.settings.seed, self.path, "order", number)
        return balanced_order(self._labels[first:], random).astype(np.int64) + first

    def _split(
        self, samples: Samples, labels: NDArray[np.int32] | None
    ) -> tuple[NDArray[np.intp], tuple[int, int, int]]:
        """Return the order of the samples and the lengths of the classes."""
        count = sum(samples.lengths)
        numbers = np.zeros(count, np.int32) if labels is None else labels
        random = generator(self.settings.seed, self.path, "validation")
        return hold_out(numbers, samples.lengths, self.validation_ratio, random)

    def _learn_normalization(self) -> None:
        self.normalizer.reset()
        held_out = sum(self.class_lengths[:TRAIN]) if self.class_lengths[TRAIN] else 0
        weights = None if self._weights is None else self._weights[held_out:]
        self.normalizer.analyze(self._raw[held_out:], weights)

    def initialize(self) -> None:
        """Load the data and declare the minibatch."""
        super().initialize()
        if self._targets is not None:
            self.minibatch_targets = self.declare(self.max_minibatch_size, *self._targets.shape[1:])
        if self._weights is not None:
            self.minibatch_weights = self.declare(self.max_minibatch_size)

    def prepare(self) -> None:
        """Put the data set onto the device and bind the gathering; a master has no use for it."""
        self._data: Array | None = None
        self._bytes: ByteSamples | None = None
        self._picked: NDArray[np.int32] | None = None
        if self.settings.role == "master" or self.is_given:
            return
        device = self.device
        self._indices: Array = device.zeros((self.max_minibatch_size,), "int32")
        self._launches: list[Launch] = []
        self._place_data()
        if self._labels is None:
            self.minibatch_labels.write(-1)
        elif device.host(self.minibatch_labels) is None:
            labels = device.asarray(self._labels, "int32")
            self._bind(labels, self.minibatch_labels, fill=-1)
        else:
            self._picked = np.zeros(self.max_minibatch_size, np.int32)
        if self._targets is not None:
            targets = device.asarray(self._targets, self.settings.dtype)
            self._bind(targets, self.minibatch_targets)
        if self._weights is not None:
            weights = self.device.asarray(self._weights, self.settings.dtype)
            self._bind(weights, self.minibatch_weights)

    def _place_data(self) -> None:
        line = self._line()
        if line is not None:
            self._bytes = ByteSamples(self._raw, self._indices, self.minibatch_data, line)
            return
        self._data = self.device.zeros(self._raw.shape, self.sample_dtype or self.settings.dtype)
        self._write_normalized(self._data)
        self._bind(self._data, self.minibatch_data)

    def _line(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return how bytes become numbers; None where the device has numbers only."""
        is_bytes = self._raw.dtype == np.uint8 and len(self._raw) > 0
        if not is_bytes or self.sample_dtype is not None or not self.device.keeps_bytes:
            return None
        return line_of(self.normalizer, self._raw)

    def _write_normalized(self, data: Array) -> None:
        """Normalize the data set into ``data``, some samples at a time.

        A normalizer computes in float64: of the whole set that would be eight bytes a number, and
        twice the time, for it would not stay in the cache.
        """
        for start in range(0, len(self._raw), _TOGETHER):
            part = self._raw[start : start + _TOGETHER]
            place = self.device.view(data, start * math.prod(data.shape[1:]), part.shape)
            place.write(self.normalized(part))

    def _bind(self, source: Array, target: Array, fill: float = 0.0) -> None:
        self._launches.append(self.device.gather(source, self._indices, target, fill=fill))

    def fill_minibatch(self) -> None:
        """Gather data, labels and targets."""
        self._indices.write(self.minibatch_indices)
        if self._bytes is not None:
            self._bytes(is_whole=self.minibatch_size == len(self.minibatch_indices))
        if self._picked is not None:
            self._pick_labels(self._picked)
        for launch in self._launches:
            launch()

    def _pick_labels(self, picked: NDArray[np.int32]) -> None:
        """Give the labels here, where they need not be sent: who evaluates waits for nothing."""
        assert self._labels is not None
        indices = self.minibatch_indices
        self._labels.take(indices, out=picked, mode="clip")
        if self.minibatch_size < len(indices):
            picked[indices < 0] = -1
        self.minibatch_labels.write(picked)

    def count_labelled(self, indices: NDArray[np.int64]) -> int:
        """Return how many of these samples are evaluated: those with a label, if there are any."""
        if self._labels is None or self._is_labelled:
            return len(indices)
        return int(np.count_nonzero(self._labels[indices] >= 0))

    def results(self) -> Mapping[str, object]:
        """Return how many samples of each label there are."""
        if not self.label_counts:
            return super().results()
        counts = {
            name: {str(raw): count for raw, count in found.items()}
            for name, found in self.label_counts.items()
        }
        return {**super().results(), "labels": counts}

    # -- samples from the master --------------------------------------------------------------

    def data_facts(self) -> Mapping[str, object]:
        """Return what a slave must know, with the shape of targets."""
        targets = None if self._targets is None else list(self._targets.shape[1:])
        weighs = self._weights is not None
        return {**super().data_facts(), "targets": targets, "weights": weighs}

    def know_data(self, facts: Mapping[str, Any]) -> None:
        """Take what a slave must know of data that it does not have."""
        super().know_data(facts)
        targets = facts["targets"]
        self._targets = None if targets is None else np.empty((0, *targets))
        self._weights = np.empty(0) if facts["weights"] else None
        self._labels = None
        self._raw = np.empty((0, *self.sample_shape))

    def samples_of(self, indices: NDArray[np.int64], number: int) -> dict[str, NDArray[np.generic]]:
        """Return data, labels, targets and weights of these samples."""
        labels = np.full(len(indices), -1, np.int32)
        found = {
            "minibatch_data": self.normalized(self._raw[indices]),
            "minibatch_labels": labels if self._labels is None else self._labels[indices],
        }
        if self._targets is not None:
            found["minibatch_targets"] = self._targets[indices]
        if self._weights is not None:
            found["minibatch_weights"] = self._weights[indices]
        return found

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to the saved place, with the normalization that the model was trained with."""
        super().restore(state)
        if self._data is not None:
            self._write_normalized(self._data)
        elif self._bytes is not None:
            self._place_data()


def _check(samples: Samples, path: str) -> None:
    count = len(samples.data)
    if sum(samples.lengths) != count:
        raise DataError(f"unit {path!r}: {count} samples, but class lengths {samples.lengths}")
    beside = {"labels": samples.labels, "targets": samples.targets, "weights": samples.weights}
    for what, values in beside.items():
        if values is not None and len(np.asarray(values)) != count:
            raise DataError(f"unit {path!r}: {count} samples, but {len(np.asarray(values))} {what}")
    if samples.data.dtype.kind not in "biuf":
        raise DataError(f"unit {path!r}: the samples are {samples.data.dtype}, and no numbers")
    beside = {"samples": samples.data, "targets": samples.targets, "weights": samples.weights}
    for what, values in beside.items():
        if values is not None and np.asarray(values).dtype.kind == "f":
            _check_finite(np.asarray(values), f"unit {path!r}: the {what} hold")
    if samples.weights is not None and (samples.weights.ndim != 1 or (samples.weights < 0).any()):
        raise DataError(f"unit {path!r}: weights are one number for each sample, none below 0")


def _check_finite(values: NDArray[Any], what: str) -> None:
    for first in range(0, len(values), _TOGETHER):
        part = values[first : first + _TOGETHER]
        if np.isfinite(part).all():
            continue
        bad = np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(axis=1))
        raise DataError(
            f"{what} NaN or infinity, the first in sample {first + bad[0]}; replace it or leave "
            "the sample out"
        )


@final
class ArrayLoader(FullBatchLoader):
    """A loader of arrays in memory.

    Args:
        data: (n, *sample shape) for TRAIN.
        labels: (n,) raw labels, or None.
        targets: (n, *target shape), or None.
        weights: (n,), how much each sample counts, or None for all the same; see
            :class:`~veloflow.units.Evaluator`.
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
        weights: ArrayLike | None = None,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        classes: Sequence[Label] | None = None,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        normalization: str | Normalizer = "none",
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
        for what, given in (("targets", targets), ("weights", weights)):
            if given is not None and (validation or test):
                raise InputError(f"unit {self.path!r}: {what} go with validation_ratio only")
        self._parts = [part for part in (test, validation, (data, labels)) if part is not None]
        lengths = [len(np.asarray(part[0])) if part else 0 for part in (test, validation)]
        self._lengths = (lengths[0], lengths[1], len(np.asarray(data)))
        self._classes = classes
        self._given_targets = None if targets is None else np.asarray(targets)
        self._given_weights = None if weights is None else np.asarray(weights, np.float64)

    @property
    def has_weights(self) -> bool:
        """Whether there will be ``minibatch_weights``."""
        return self._given_weights is not None

    def load_samples(self) -> Samples:
        """Return the arrays, one after another."""
        data = np.concatenate([np.asarray(part[0]) for part in self._parts])
        labels = [np.asarray(part[1]) for part in self._parts if part[1] is not None]
        if labels and len(labels) < len(self._parts):
            raise DataError(f"unit {self.path!r}: some of the parts have labels and some have none")
        joined = np.concatenate(labels) if labels else None
        return Samples(
            data, joined, self._lengths, self._given_targets, self._classes, self._given_weights
        )
