"""Drift: whether two sets of samples look as if they were drawn from one source.

Labels are compared by Pearson's chi-squared test of homogeneity (1900), features one by one by the
Kolmogorov-Smirnov test (1933, 1948). A small p means that they differ: were they of one source, so
much difference would come by chance with that probability only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from veloflow.core import Events, Message, Settings
from veloflow.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Unit
    from veloflow.units.labels import Label

__all__ = [
    "Drift",
    "DriftTest",
    "checked_drift",
    "feature_drift",
    "label_drift",
    "places_to_compare",
    "warn_of_drift",
]

#: what is compared
DriftTest: TypeAlias = Literal["none", "labels", "all"]

#: what is warned of, divided by the number of tests (Bonferroni)
ALPHA = 0.001
#: samples of each set and features that are looked at, spread evenly
_SAMPLES, _FEATURES = 2000, 2000
_KNOWN = ("none", "labels", "all")


@dataclass(frozen=True)
class Drift:
    """A test of two sets.

    Attributes:
        what: what differs most, in words.
        statistic: chi-squared, or the largest distance of the distribution functions.
        p: the probability of so much difference by chance.
        tests: of how many tests this is the one with the smallest p.
    """

    what: str
    statistic: float
    p: float
    tests: int = 1

    @property
    def is_warning(self) -> bool:
        """Whether it is too much for chance."""
        return self.p * self.tests < ALPHA


def checked_drift(drift: str, path: str, known: tuple[str, ...] = _KNOWN) -> DriftTest:
    """Return what is to be compared.

    Raises:
        InputError: it is none of those known.
    """
    if drift not in known:
        raise InputError(
            f"unit {path!r}: drift is {drift!r}; give {', '.join(map(repr, known[:-1]))} or "
            f"{known[-1]!r}"
        )
    return cast("DriftTest", drift)


def warn_of_drift(
    unit: Unit,
    drift: DriftTest,
    counts: Mapping[str, Mapping[Label, int]],
    features: Mapping[str, Callable[[], NDArray[Any]]],
) -> None:
    """Publish a message for validation or test samples that differ from those for training.

    Args:
        unit: whose samples they are.
        drift: what is compared.
        counts: class of samples -> label -> how many; empty when there are no labels.
        features: class of samples -> what gives them, or :func:`places_to_compare` of them,
            (n, *sample shape); classes without samples are not in it.
    """
    others = [name for name in ("validation", "test") if name in features]
    is_told = unit.service(Settings).role == "slave"  # by the master
    if drift == "none" or is_told or "train" not in features or not others:
        return

    def tell(test: str, name: str, found: Drift) -> None:
        if found.is_warning:
            text = f"train and {name} samples differ: {found.what} ({test} {found.statistic:.3g}, "
            text += f"p = {found.p:.1g}, {found.tests} tests)"
            unit.service(Events).publish(Message(f"unit {unit.path!r}: {text}"))

    train = features["train"]() if drift == "all" else None
    for name in others:
        if counts:
            tell("chi-squared", name, label_drift(counts["train"], counts[name]))
        if train is not None:
            tell("Kolmogorov-Smirnov", name, feature_drift(train, features[name]()))


def places_to_compare(first: int, count: int) -> NDArray[np.int64]:
    """Return which of ``count`` samples from ``first`` on are looked at, evenly spread."""
    return np.arange(first, first + count, max(1, -(-count // _SAMPLES)))


def label_drift(first: Mapping[Label, int], second: Mapping[Label, int]) -> Drift:
    """Compare how many samples have each label in two sets."""
    known = [raw for raw in {**first, **second} if first.get(raw, 0) + second.get(raw, 0)]
    table = np.array([[one.get(raw, 0) for raw in known] for one in (first, second)], np.float64)
    if len(known) < 2 or not table.sum(axis=1).all():
        return Drift("labels", 0.0, 1.0)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    parts = np.square(table - expected) / expected
    statistic = float(parts.sum())
    shares = table / table.sum(axis=1, keepdims=True) * 100
    worst = int(parts.sum(axis=0).argmax())
    what = f"label {known[worst]!r} has {shares[0, worst]:.1f} % and {shares[1, worst]:.1f} %"
    return Drift(what, statistic, _chi_squared_tail(len(known) - 1, statistic))


def _chi_squared_tail(freedom: int, statistic: float) -> float:
    """Return the probability of such a statistic or a larger one.

    Abramowitz and Stegun, 26.4.4 and 26.4.5: SciPy has it too, and every run would wait for it.
    """
    half = statistic / 2
    if not half:
        return 1.0
    tail, shape = (math.erfc(math.sqrt(half)), 0.5) if freedom % 2 else (math.exp(-half), 1.0)
    while shape < freedom / 2:
        tail += math.exp(shape * math.log(half) - half - math.lgamma(shape + 1))
        shape += 1
    return tail


def feature_drift(first: NDArray[Any], second: NDArray[Any]) -> Drift:
    """Compare each feature of two sets, (n, *sample shape) and (m, *sample shape)."""
    from scipy.special import kolmogorov

    a, b = _thinned(first), _thinned(second)
    if not a.size or not b.size:
        return Drift("features", 0.0, 1.0)
    both = np.concatenate([a, b])
    order = both.argsort(axis=0, kind="stable")
    steps = np.where(order < len(a), 1 / len(a), -1 / len(b))
    distances = np.abs(steps.cumsum(axis=0))
    values = np.take_along_axis(both, order, axis=0)
    distances[:-1][values[1:] == values[:-1]] = 0  # equal values step together
    largest = distances.max(axis=0)
    root = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    chances = kolmogorov((root + 0.12 + 0.11 / root) * largest)  # Stephens, 1970
    worst = int(np.argmin(chances))
    what = f"feature {worst * _stride(first)} has means {a[:, worst].mean():.4g} and "
    what += f"{b[:, worst].mean():.4g}"
    return Drift(what, float(largest[worst]), float(chances[worst]), tests=a.shape[1])


def _stride(samples: NDArray[Any]) -> int:
    return max(1, -(-int(np.prod(samples.shape[1:])) // _FEATURES))


def _thinned(samples: NDArray[Any]) -> NDArray[np.float64]:
    step = max(1, -(-len(samples) // _SAMPLES))
    flat = samples[::step].reshape(len(samples[::step]), -1)
    return flat[:, :: _stride(samples)].astype(np.float64)
