"""Metrics: what an epoch's record says of a class of samples, besides loss and errors.

A metric is given to an evaluator: ``EvaluatorSoftmax(wf, metrics=[TopKError(5), AUC()])``. It turns
a minibatch into totals, which are numbers and arrays. Totals are joined in the order of the shards
and of the minibatches, so a run with slaves gives the same value to the last bit. At the end of a
class of samples they become a value, which stands in the record, the result and the terminal under
the metric's name. To write one of your own, derive from :class:`Metric`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast, final

import numpy as np

from veloflow.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AUC",
    "F1",
    "R2",
    "Accuracy",
    "MeanAbsoluteError",
    "Metric",
    "TopKError",
    "Totals",
    "join_measured",
    "measure_all",
    "values_of",
]

#: what a metric keeps of samples: numbers and arrays of numbers, by name
Totals: TypeAlias = "Mapping[str, float | NDArray[Any]]"


class Metric(ABC):
    """A value measured over all samples of a class. An outline.

    Attributes:
        higher_is_better: which way it improves, for a decision that goes by it.
    """

    higher_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in records; without a slash."""

    @abstractmethod
    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Return the totals of a minibatch.

        Args:
            outputs: (samples, ...), of the run's dtype; no padding, no unlabelled samples.
            targets: int32 (samples,) for classes, otherwise of the shape of ``outputs``.
        """

    def join(self, first: Totals, second: Totals) -> Totals:
        """Return the totals of both; by default their sums."""
        return {name: first[name] + second[name] for name in first}

    @abstractmethod
    def value(self, totals: Totals) -> float:
        """Return the value."""


def measure_all(
    metrics: Sequence[Metric], outputs: NDArray[np.floating], targets: NDArray[Any]
) -> dict[str, Any]:
    """Return the totals of all metrics, as ``metric/total``; none for no samples."""
    if not len(outputs):
        return {}
    return {
        f"{metric.name}/{name}": total
        for metric in metrics
        for name, total in metric.measure(outputs, targets).items()
    }


def join_measured(metrics: Sequence[Metric], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the totals of all parts, joined in their order."""
    found: dict[str, Any] = {}
    for part in parts:
        if not (found and part):
            found = found or dict(part)
            continue
        found = {
            f"{metric.name}/{name}": total
            for metric in metrics
            for name, total in metric.join(
                _of_metric(found, metric), _of_metric(part, metric)
            ).items()
        }
    return found


def values_of(metrics: Sequence[Metric], measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the values by the metrics' names."""
    if not measured:
        return {}
    return {metric.name: float(metric.value(_of_metric(measured, metric))) for metric in metrics}


def _of_metric(measured: Mapping[str, Any], metric: Metric) -> Totals:
    first = f"{metric.name}/"
    return {
        name.removeprefix(first): total
        for name, total in measured.items()
        if name.startswith(first)
    }


@final
@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of samples whose most probable class is the right one."""

    @property
    def name(self) -> str:
        """``accuracy``."""
        return "accuracy"

    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Count samples, and the right ones."""
        right = int(np.count_nonzero(outputs.argmax(axis=1) == targets))
        return {"right": right, "samples": len(targets)}

    def value(self, totals: Totals) -> float:
        """Return right / samples."""
        return float(totals["right"]) / float(totals["samples"])


@final
@dataclass(frozen=True)
class TopKError(Metric):
    """The share, in percent, of samples whose class is not among the k most probable ones.

    Of equally probable classes the lower number goes first.
    """

    k: int = 5

    higher_is_better = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"TopKError: k is {self.k}; give at least 1")

    @property
    def name(self) -> str:
        """``top5_error_percent``, for k = 5."""
        return f"top{self.k}_error_percent"

    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Count samples, and those missed."""
        own = np.take_along_axis(outputs, targets[:, None], axis=1)
        lower = np.arange(outputs.shape[1])[None] < targets[:, None]
        before = (outputs > own) | ((outputs == own) & lower)
        missed = int(np.count_nonzero(before.sum(axis=1) >= self.k))
        return {"missed": missed, "samples": len(targets)}

    def value(self, totals: Totals) -> float:
        """Return the share of missed samples."""
        return 100 * float(totals["missed"]) / float(totals["samples"])


@final
@dataclass(frozen=True)
class F1(Metric):
    """The mean over classes of F1 = 2 precision recall / (precision + recall).

    A class that is neither present nor ever predicted is left out; as scikit-learn's
    ``f1_score(average="macro")`` over the classes that occur.
    """

    @property
    def name(self) -> str:
        """``f1``."""
        return "f1"

    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Count, of each class, what is right, predicted, present."""
        classes = outputs.shape[1]
        winners = outputs.argmax(axis=1)
        return {
            "right": np.bincount(targets[winners == targets], minlength=classes),
            "predicted": np.bincount(winners, minlength=classes),
            "present": np.bincount(targets, minlength=classes),
        }

    def value(self, totals: Totals) -> float:
        """Return the mean of the classes' F1."""
        right = cast("NDArray[np.int64]", totals["right"])
        seen = cast("NDArray[np.int64]", totals["predicted"] + totals["present"])
        occurs = seen > 0
        return float((2 * right[occurs] / seen[occurs]).mean())


@final
@dataclass(frozen=True)
class AUC(Metric):
    """The area under the ROC curve: how likely a sample of a class is ranked above one of others.

    For two classes, that of class 1; for more, the mean over the classes, each against the rest, as
    scikit-learn's ``roc_auc_score(multi_class="ovr")``; a class that is missing, or alone, is left
    out. For multi-label outputs, the mean over the labels. Ties count a half. It keeps all outputs
    of a class of samples until its end.
    """

    @property
    def name(self) -> str:
        """``auc``."""
        return "auc"

    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Keep outputs and targets."""
        return {"outputs": np.array(outputs), "targets": np.array(targets)}

    def join(self, first: Totals, second: Totals) -> Totals:
        """Return one after the other."""
        return {
            name: np.concatenate([cast("Any", first[name]), cast("Any", second[name])])
            for name in first
        }

    def value(self, totals: Totals) -> float:
        """Return the mean of the areas; NaN when no class can be told from others."""
        scores = cast("NDArray[np.floating]", totals["outputs"])
        targets = cast("NDArray[Any]", totals["targets"])
        if targets.ndim == 1:
            classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
            pairs = [(scores[:, one], targets == one) for one in classes]
        else:
            pairs = [(scores[:, one], targets[:, one] > 0.5) for one in range(scores.shape[1])]
        areas = [_area(score, is_in) for score, is_in in pairs if 0 < is_in.sum() < len(is_in)]
        return float(np.mean(areas)) if areas else float("nan")


def _area(scores: NDArray[np.floating], is_in: NDArray[np.bool_]) -> float:
    """Return the area by ranks (Mann and Whitney), ties sharing the mean of their ranks."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[places]
    n = int(is_in.sum())
    return float((ranks[is_in].sum() - n * (n + 1) / 2) / (n * (len(is_in) - n)))


@final
@dataclass(frozen=True)
class MeanAbsoluteError(Metric):
    """The mean of |output - target| over samples and elements."""

    higher_is_better = False

    @property
    def name(self) -> str:
        """``mean_absolute_error``."""
        return "mean_absolute_error"

    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Add up differences, in float64."""
        errors = np.abs(outputs.astype(np.float64) - targets)
        return {"sum": float(errors.sum()), "elements": errors.size}

    def value(self, totals: Totals) -> float:
        """Return the mean."""
        return float(totals["sum"]) / float(totals["elements"])


@final
@dataclass(frozen=True)
class R2(Metric):
    """1 - sum of squared errors / sum of squares around the mean, for each element of a sample.

    The value is the mean over the elements. As scikit-learn's ``r2_score``, where targets differ.
    """

    @property
    def name(self) -> str:
        """``r2``."""
        return "r2"

    def measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> Totals:
        """Add up what mean and squares need, in float64, for each element of a sample."""
        y = outputs.reshape(len(outputs), -1).astype(np.float64)
        t = targets.reshape(len(targets), -1).astype(np.float64)
        mean = t.mean(axis=0)
        return {
            "errors": np.square(y - t).sum(axis=0),
            "mean": mean,
            "squares": np.square(t - mean).sum(axis=0),
            "samples": len(t),
        }

    def join(self, first: Totals, second: Totals) -> Totals:
        """Join means and squares around them without loss (Chan, Golub and LeVeque, 1979)."""
        n, m = float(first["samples"]), float(second["samples"])
        gap = second["mean"] - first["mean"]
        return {
            "errors": first["errors"] + second["errors"],
            "mean": first["mean"] + gap * (m / (n + m)),
            "squares": first["squares"] + second["squares"] + gap * gap * (n * m / (n + m)),
            "samples": n + m,
        }

    def value(self, totals: Totals) -> float:
        """Return the mean of the elements' values."""
        errors, squares = cast("Any", totals["errors"]), cast("Any", totals["squares"])
        return float((1 - errors / squares).mean())
