"""Normalizers: learned from the training samples, kept with the model, undone when asked.

The kinds and formulas are those of Veles; ``normalizer_of("pointwise")`` makes one by name. All
compute in float64, whatever the samples are. Two faults of the ancestor are not repeated: there
``range_linear`` took each sample's own range when normalizing and the common one when undoing it,
and undoing ``pointwise`` divided by zero where a feature is constant.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

import numpy as np

from veloflow.errors import CheckpointError, DataError, InputError, ShapeError, nearest
from veloflow.places import Place, place_of, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Samples = NDArray[Any]

__all__ = [
    "NORMALIZERS",
    "Exponential",
    "ExternalMean",
    "InternalMean",
    "Linear",
    "MeanDispersion",
    "NoNormalization",
    "Normalizer",
    "Pointwise",
    "RangeLinear",
    "Standard",
    "normalizer_of",
]


class Normalizer(ABC):
    """Maps samples, (n, *sample shape) of any number type, to float64 of the same shape.

    An outline. A subclass names what it is made with (``options``) and what it learns
    (``learned``): attributes of those names that are JSON values or arrays.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    learned: ClassVar[tuple[str, ...]] = ()

    def analyze(  # noqa: B027 - most kinds learn nothing
        self, samples: Samples, weights: Floats | None = None
    ) -> None:
        """Learn from a batch of training samples; batches add up, and n may be 0.

        Args:
            samples: (n, *sample shape).
            weights: (n,), how often each sample counts, not below 0; None for once.
        """

    @abstractmethod
    def normalize(self, samples: Samples) -> Floats:
        """Return the normalized samples.

        Raises:
            InputError: nothing has been analyzed yet.
            ShapeError: the samples have another shape than those that were analyzed.
        """

    @abstractmethod
    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Return the samples whose normalization gives ``values``.

        Args:
            values: (n, *sample shape).
            context: what :meth:`context` gave for these samples; only the kinds that look at
                each sample by itself need it.
        """

    def context(self, samples: Samples) -> dict[str, Floats]:
        """Return what normalizing forgets of each sample and undoing it needs."""
        return {}

    @property
    def needs_analysis(self) -> bool:
        """Whether it learns from the training samples."""
        return bool(self.learned)

    def reset(self) -> None:
        """Forget what was learned."""
        for name in self.learned:
            setattr(self, name, None)

    def state(self) -> dict[str, object]:
        """Return name, options and what was learned: JSON values and arrays."""
        parts = (*self.options, *self.learned)
        return {"name": self.name, **{name: getattr(self, name) for name in parts}}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            CheckpointError: the state is that of another kind of normalizer.
        """
        if state.get("name") != self.name:
            raise CheckpointError(
                f"the model was trained with normalization {state.get('name')!r}, "
                f"and here it is {self.name!r}"
            )
        for name in (*self.options, *self.learned):
            setattr(self, name, state[name])

    def _known(self, value: Samples | None, samples: Samples) -> Samples:
        """Return a learned array, which must fit the samples."""
        if value is None:
            raise InputError(f"normalization {self.name!r} has not analyzed any samples yet")
        if value.shape != samples.shape[1:]:
            raise ShapeError(
                f"normalization {self.name!r} knows samples of shape {value.shape}, "
                f"and these have {samples.shape[1:]}"
            )
        return value


@final
class NoNormalization(Normalizer):
    """Leaves samples as they are."""

    name = "none"

    def normalize(self, samples: Samples) -> Floats:
        """Return the samples as float64."""
        return samples.astype(np.float64)

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Return the values."""
        return values.astype(np.float64)


# -- each sample by itself ------------------------------------------------------------------------


class _Interval(Normalizer):
    """What maps a range to an interval. An outline."""

    options: ClassVar[tuple[str, ...]] = ("interval",)

    def __init__(self, interval: tuple[float, float] = (-1.0, 1.0)) -> None:
        low, high = (float(end) for end in interval)
        if not (math.isfinite(low) and math.isfinite(high)) or low == high:
            raise InputError(f"normalization {self.name!r}: {interval} is no interval")
        self.interval = (low, high)

    def _to_interval(self, x: Floats, low: Floats, high: Floats) -> Floats:
        """Map [low, high] to the interval; where both are one, to its middle."""
        start, stop = self.interval
        spread = high - low
        flat = spread == 0
        mapped: Floats = (x - low) * ((stop - start) / np.where(flat, 1.0, spread)) + start
        return np.where(flat, (start + stop) / 2, mapped)

    def _from_interval(self, y: Floats, low: Floats, high: Floats) -> Floats:
        start, stop = self.interval
        spread = high - low
        return np.asarray((y - start) * (spread / (stop - start)) + low, np.float64)


@final
class Linear(_Interval):
    """Maps each sample by itself from its own range to an interval.

    y = low + (x - min(x)) (high - low) / (max(x) - min(x)); a uniform sample goes to the middle.

    Args:
        interval: (low, high).
    """

    name = "linear"

    def normalize(self, samples: Samples) -> Floats:
        """Return the mapped samples."""
        x = samples.astype(np.float64)
        found = self.context(x)
        return self._to_interval(x, found["minimum"], found["maximum"])

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Map back; ``context`` holds each sample's range."""
        known = _needed(self.name, context)
        return self._from_interval(values, known["minimum"], known["maximum"])

    def context(self, samples: Samples) -> dict[str, Floats]:
        """Return ``minimum`` and ``maximum`` of each sample, of shape (n, 1, …)."""
        axes = tuple(range(1, samples.ndim))
        x = samples.astype(np.float64)
        return {
            "minimum": x.min(axis=axes, keepdims=True),
            "maximum": x.max(axis=axes, keepdims=True),
        }


@final
class Exponential(Normalizer):
    """Makes the elements of each sample positive with the sum 1: y = exp(x - max) / sum."""

    name = "exp"

    def normalize(self, samples: Samples) -> Floats:
        """Return the softmax of each sample."""
        x = samples.astype(np.float64)
        found = self.context(x)
        return np.asarray(np.exp(x - found["maximum"]) / found["sum"], np.float64)

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Take logarithms; ``context`` holds each sample's maximum and sum."""
        known = _needed(self.name, context)
        with np.errstate(divide="ignore"):  # what was far below the maximum is zero, and -inf now
            return np.asarray(np.log(values * known["sum"]) + known["maximum"], np.float64)

    def context(self, samples: Samples) -> dict[str, Floats]:
        """Return ``maximum`` and ``sum`` of each sample, of shape (n, 1, …)."""
        axes = tuple(range(1, samples.ndim))
        x = samples.astype(np.float64)
        maximum = x.max(axis=axes, keepdims=True)
        return {"maximum": maximum, "sum": np.exp(x - maximum).sum(axis=axes, keepdims=True)}


def _needed(name: str, context: Mapping[str, Floats] | None) -> Mapping[str, Floats]:
    if context is None:
        raise InputError(
            f"normalization {name!r} looks at each sample by itself: to undo it, give the "
            "context(samples) of the samples"
        )
    return context


# -- learned from the training samples ------------------------------------------------------------


@final
class RangeLinear(_Interval):
    """Maps the range of all training samples together to an interval.

    y = low + (x - min) (high - low) / (max - min); constant data goes to the middle.

    Args:
        interval: (low, high).
        known: the range of the data when it is known beforehand, such as (0, 255) for bytes;
            then nothing is learned.
    """

    name = "range_linear"
    options = ("interval", "known")
    learned = ("minimum", "maximum")

    def __init__(
        self,
        interval: tuple[float, float] = (-1.0, 1.0),
        *,
        known: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(interval)
        self.known = known
        self.minimum: float | None = None
        self.maximum: float | None = None
        self.reset()

    @property
    def needs_analysis(self) -> bool:
        """Whether the range is not known beforehand."""
        return self.known is None

    def reset(self) -> None:
        """Forget what was learned, but not what was known."""
        self.minimum, self.maximum = (None, None) if self.known is None else self.known

    def analyze(self, samples: Samples, weights: Floats | None = None) -> None:
        """Widen the range."""
        samples = _counted(samples, weights)
        if samples.size and self.known is None:
            low, high = float(samples.min()), float(samples.max())
            self.minimum = low if self.minimum is None else min(self.minimum, low)
            self.maximum = high if self.maximum is None else max(self.maximum, high)

    def normalize(self, samples: Samples) -> Floats:
        """Return the mapped samples."""
        return self._to_interval(samples.astype(np.float64), *self._range())

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Map back."""
        return self._from_interval(values, *self._range())

    def _range(self) -> tuple[Floats, Floats]:
        if self.minimum is None or self.maximum is None:
            raise InputError(f"normalization {self.name!r} has not analyzed any samples yet")
        return np.asarray(self.minimum, np.float64), np.asarray(self.maximum, np.float64)


class _Extremes(Normalizer):
    """What learns each feature's range. An outline."""

    learned: ClassVar[tuple[str, ...]] = ("minimum", "maximum")

    def __init__(self) -> None:
        self.minimum: Floats | None = None
        self.maximum: Floats | None = None

    def analyze(self, samples: Samples, weights: Floats | None = None) -> None:
        """Widen the ranges."""
        samples = _counted(samples, weights)
        if not len(samples):
            return
        low = samples.min(axis=0).astype(np.float64)
        high = samples.max(axis=0).astype(np.float64)
        if self.minimum is not None and self.maximum is not None:
            self._known(self.minimum, samples)
            low, high = np.minimum(self.minimum, low), np.maximum(self.maximum, high)
        self.minimum, self.maximum = low, high


@final
class Pointwise(_Extremes):
    """Maps each feature from its own range to [-1, 1]; a constant feature to 0.

    y = x m + a, with m = 2 / (max - min) and a = -1 - min m.
    """

    name = "pointwise"

    def normalize(self, samples: Samples) -> Floats:
        """Return the mapped samples."""
        factor, offset, _ = self._coefficients(samples)
        return np.asarray(samples * factor + offset, np.float64)

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Map back; a constant feature gets its constant."""
        factor, offset, low = self._coefficients(values)
        flat = factor == 0
        return np.where(flat, low, (values - offset) / np.where(flat, 1.0, factor))

    def _coefficients(self, samples: Samples) -> tuple[Floats, Floats, Floats]:
        low, high = self._known(self.minimum, samples), self._known(self.maximum, samples)
        flat = high == low
        factor = np.where(flat, 0.0, 2.0 / np.where(flat, 1.0, high - low))
        return factor, np.where(flat, 0.0, -1.0 - low * factor), low


@final
class MeanDispersion(_Extremes):
    """Subtracts each feature's mean and divides by its range: y = (x - mean) / (max - min).

    A constant feature is divided by 1. It is no division by the standard deviation.
    """

    name = "mean_disp"
    learned = ("sum", "count", "minimum", "maximum")

    def __init__(self) -> None:
        super().__init__()
        self.sum: Floats | None = None
        self.count: float | None = None

    def analyze(self, samples: Samples, weights: Floats | None = None) -> None:
        """Add to the sums and widen the ranges."""
        super().analyze(samples, weights)
        self.sum, self.count = _added(self.sum, self.count, samples, weights)

    def normalize(self, samples: Samples) -> Floats:
        """Return the shifted and scaled samples."""
        mean, spread = self._coefficients(samples)
        return np.asarray((samples - mean) / spread, np.float64)

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Scale and shift back."""
        mean, spread = self._coefficients(values)
        return np.asarray(values * spread + mean, np.float64)

    def _coefficients(self, samples: Samples) -> tuple[Floats, Floats]:
        spread = self._known(self.maximum, samples) - self._known(self.minimum, samples)
        mean = self._known(self.sum, samples) / (self.count or 1)
        return mean, np.where(spread == 0, 1.0, spread)


@final
class Standard(Normalizer):
    """Subtracts each feature's mean and divides by its standard deviation: y = (x - mean) / std.

    The deviation is that of the training samples themselves (divided by n); a constant feature is
    divided by 1. Batches are merged as Chan, Golub and LeVeque do (1979), which loses no digits.
    """

    name = "standard"
    learned = ("count", "mean", "squares")

    def __init__(self) -> None:
        self.count: float | None = None
        self.mean: Floats | None = None
        self.squares: Floats | None = None  # sum of squared differences from the mean

    def analyze(self, samples: Samples, weights: Floats | None = None) -> None:
        """Merge the samples' mean and squares with those so far."""
        if not len(_counted(samples, weights)):
            return
        x = samples.astype(np.float64)
        count: float
        if weights is None:
            count, mean = len(x), x.mean(axis=0)
            squares = np.square(x - mean).sum(axis=0)
        else:
            count, mean = float(weights.sum()), np.average(x, axis=0, weights=weights)
            squares = np.tensordot(weights, np.square(x - mean), 1)
        if self.count and self.mean is not None and self.squares is not None:
            before, total = self.count, self.count + count
            step = mean - self._known(self.mean, samples)
            squares = self.squares + squares + np.square(step) * (before * count / total)
            mean = self.mean + step * (count / total)
            count = total
        self.count, self.mean, self.squares = count, np.asarray(mean), np.asarray(squares)

    def normalize(self, samples: Samples) -> Floats:
        """Return the shifted and scaled samples."""
        mean, deviation = self._coefficients(samples)
        return np.asarray((samples - mean) / deviation, np.float64)

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Scale and shift back."""
        mean, deviation = self._coefficients(values)
        return np.asarray(values * deviation + mean, np.float64)

    def _coefficients(self, samples: Samples) -> tuple[Floats, Floats]:
        mean, squares = self._known(self.mean, samples), self._known(self.squares, samples)
        deviation = np.sqrt(squares / (self.count or 1))
        # what is left of a constant by rounding is no deviation
        is_flat = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return mean, np.where(is_flat, 1.0, deviation)


def _counted(samples: Samples, weights: Floats | None) -> Samples:
    """Return the samples that count at all."""
    return samples if weights is None else samples[weights > 0]


def _added(
    total: Floats | None, count: float | None, samples: Samples, weights: Floats | None
) -> tuple[Floats | None, float | None]:
    """Return the sum over the samples so far and their number, each as often as it counts."""
    if not len(_counted(samples, weights)):
        return total, count
    part: Floats
    if weights is None:
        part, more = samples.sum(axis=0, dtype=np.float64), float(len(samples))
    else:
        part, more = np.tensordot(weights, samples.astype(np.float64), 1), float(weights.sum())
    return (part, more) if total is None else (total + part, (count or 0) + more)


# -- a mean sample --------------------------------------------------------------------------------


class _Mean(Normalizer):
    """What subtracts a mean sample: y = (x - mean) scale. An outline."""

    options: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self, scale: float = 1.0) -> None:
        if not math.isfinite(scale) or scale == 0:
            raise InputError(f"normalization {self.name!r}: scale is {scale}; give a number")
        self.scale = float(scale)

    @abstractmethod
    def _mean(self, samples: Samples) -> Floats:
        """Return the mean sample."""

    def normalize(self, samples: Samples) -> Floats:
        """Return the shifted and scaled samples."""
        return np.asarray((samples - self._mean(samples)) * self.scale, np.float64)

    def denormalize(self, values: Floats, context: Mapping[str, Floats] | None = None) -> Floats:
        """Scale and shift back."""
        return np.asarray(values / self.scale + self._mean(values), np.float64)


@final
class InternalMean(_Mean):
    """Subtracts the mean of the training samples and multiplies by ``scale``."""

    name = "internal_mean"
    learned = ("sum", "count")

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.sum: Floats | None = None
        self.count: float | None = None

    def analyze(self, samples: Samples, weights: Floats | None = None) -> None:
        """Add to the sum."""
        self.sum, self.count = _added(self.sum, self.count, samples, weights)

    def _mean(self, samples: Samples) -> Floats:
        return np.asarray(self._known(self.sum, samples) / (self.count or 1), np.float64)


@final
class ExternalMean(_Mean):
    """Subtracts a given mean sample and multiplies by ``scale``.

    Args:
        source: the mean, of a sample's shape; or a file with it, .npy or an image.
        scale: the factor.

    Raises:
        DataError: the file is missing or damaged.
    """

    name = "external_mean"
    options = ("scale", "mean")

    def __init__(self, source: NDArray[Any] | str | Place, scale: float = 1.0) -> None:
        super().__init__(scale)
        found = source if isinstance(source, np.ndarray) else _read_mean(place_of(source))
        if found.dtype.kind not in "biuf":
            raise DataError(f"the mean sample holds {found.dtype}, and no numbers")
        self.mean: Floats = found.astype(np.float64)

    def _mean(self, samples: Samples) -> Floats:
        return self._known(self.mean, samples)


def _read_mean(path: Place) -> NDArray[Any]:
    """Read a mean sample from an .npy file or an image."""
    if not path.is_file():
        raise DataError(f"the mean sample {path} is missing; give an .npy file or an image")
    try:
        if path.suffix == ".npy":
            return cast("NDArray[Any]", np.load(whole(path), allow_pickle=False))
        from PIL import Image

        with Image.open(whole(path)) as image:
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(
            f"the mean sample {path} is damaged, or neither .npy nor an image: {error}"
        ) from error


# -- by name --------------------------------------------------------------------------------------

#: by the names that loaders take
NORMALIZERS: Mapping[str, type[Normalizer]] = {
    kind.name: kind
    for kind in (
        NoNormalization,
        Linear,
        RangeLinear,
        MeanDispersion,
        Exponential,
        Pointwise,
        ExternalMean,
        InternalMean,
        Standard,
    )
}


def normalizer_of(kind: str | Normalizer) -> Normalizer:
    """Return the normalizer itself, or a new one of that name with its default options.

    Raises:
        InputError: there is none of that name, or it must be made with options.
    """
    if isinstance(kind, Normalizer):
        return kind
    if kind not in NORMALIZERS:
        raise InputError(
            f"no normalization {kind!r}{nearest(kind, NORMALIZERS)}; there are "
            f"{', '.join(NORMALIZERS)}"
        )
    if kind == ExternalMean.name:
        raise InputError(
            "normalization 'external_mean' needs a mean: give ExternalMean(file or array)"
        )
    return NORMALIZERS[kind]()
