"""What happens to parameters and other arrays while training: statistics, histograms, likeness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from veloflow.core import Bool, Input
from veloflow.devices import Array
from veloflow.errors import GraphError, InputError, nearest
from veloflow.units.observing import Observer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.forward import Forward
    from veloflow.units.standard import StandardUnits

__all__ = ["Accumulator", "Histogram", "ParameterStatistics", "similar_kernels"]


def similar_kernels(
    weights: NDArray[Any], threshold: float = 0.9, *, most: int = 1000
) -> list[list[int]]:
    """Return groups of kernels that have learned the same: every two of a group are alike.

    Two kernels are alike when the magnitude of their correlation is at least ``threshold``. The
    groups are the maximal cliques of that relation (Bron and Kerbosch, 1973, with Tomita's pivot).

    Args:
        weights: (kernels, ...), each row a kernel.
        threshold: in (0, 1].
        most: groups at most; with many kernels that are all half alike there are far too many.

    Returns:
        Groups of two and more, each sorted, the largest first.
    """
    rows = np.asarray(weights, np.float64).reshape(len(weights), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    likeness = np.abs(rows @ rows.T) >= threshold
    np.fill_diagonal(likeness, False)
    near = [set(np.flatnonzero(row).tolist()) for row in likeness]
    groups: list[list[int]] = []
    stack: list[tuple[list[int], set[int], set[int]]] = [
        ([], {n for n, one in enumerate(near) if one}, set())
    ]
    while stack and len(groups) < most:
        clique, candidates, done = stack.pop()
        if not candidates:
            if not done and len(clique) > 1:
                groups.append(sorted(clique))
            continue
        pivot = max(candidates | done, key=lambda n: len(near[n] & candidates))
        for kernel in sorted(candidates - near[pivot]):
            stack.append(([*clique, kernel], candidates & near[kernel], done & near[kernel]))
            candidates = candidates - {kernel}
            done = done | {kernel}
    return sorted(groups, key=lambda group: (-len(group), group))


@final
class ParameterStatistics(Observer):
    """Looks at the parameters of layers at the end of each epoch.

    Link ``epoch_ended`` and ``epoch_number`` to the loader, and put it after the decision. The
    result of a run has ``statistics``: parameter -> a list with, for each epoch, ``epoch``,
    ``minimum``, ``mean``, ``maximum``, ``deviation``, ``norm`` of the value; ``gradient_norm``, of
    the last gradient that is known here; ``change``, the norm of the difference from the epoch
    before, divided by ``norm``; and for weights ``similar``, groups of kernels that are alike.

    Args:
        forwards: the layers; none for all of a standard workflow.
        similarity: from which correlation on kernels are alike; None does not look.
    """

    epoch_ended = Input[Bool]()
    epoch_number = Input[int]()

    def __init__(
        self,
        workflow: Workflow,
        forwards: Sequence[Forward] = (),
        *,
        similarity: float | None = 0.9,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if similarity is not None and not 0 < similarity <= 1:
            raise InputError(
                f"unit {self.path!r}: similarity is {similarity}; give one in (0, 1], or None"
            )
        self.forwards = tuple(forwards)
        self.similarity = similarity
        self.records: dict[str, list[dict[str, Any]]] = {}
        self._before: dict[str, NDArray[Any]] = {}

    def observe(self, units: StandardUnits) -> None:
        """Look at all layers, unless some were named."""
        self.forwards = self.forwards or units.forwards
        self.link_data(units.loader, "epoch_ended", "epoch_number")

    def run(self) -> None:
        """Look at the parameters if an epoch has ended."""
        if not self.epoch_ended:
            return
        for forward in self.forwards:
            for parameter in forward.parameters():
                value = np.array(parameter.value.read(), np.float64)
                gradient = np.asarray(parameter.gradient.read(), np.float64)
                norm = float(np.linalg.norm(value))
                record: dict[str, Any] = {
                    "epoch": int(self.epoch_number),
                    "minimum": float(value.min()),
                    "mean": float(value.mean()),
                    "maximum": float(value.max()),
                    "deviation": float(value.std()),
                    "norm": norm,
                    "gradient_norm": float(np.linalg.norm(gradient)),
                }
                before = self._before.get(parameter.name)
                if before is not None:
                    difference = float(np.linalg.norm(value - before))
                    record["change"] = difference / norm if norm else math.inf
                if self.similarity is not None and value.ndim > 1:
                    record["similar"] = similar_kernels(value, self.similarity)
                self._before[parameter.name] = value
                self.records.setdefault(parameter.name, []).append(record)

    def results(self) -> Mapping[str, object]:
        """Return the statistics."""
        return {"statistics": self.records}

    def state(self) -> Mapping[str, object]:
        """Return the statistics so far, and the last values."""
        return {"records": self.records, "before": self._before}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take them back."""
        saved = cast("dict[str, Any]", state)
        self.records = {name: list(one) for name, one in saved["records"].items()}
        self._before = {name: np.array(one) for name, one in saved["before"].items()}


class Histogram:
    """Counts of values in bins whose range grows with the values; nothing is ever forgotten.

    Bins are as wide as a power of two, and their ends are multiples of it. A value outside doubles
    the width, and two bins become one each, so the counts stay exact.

    Args:
        bins: how many there are, an even number.

    Attributes:
        counts: int64 (bins,).
        minimum, maximum: of the values themselves.
        total: how many there were.
    """

    def __init__(self, bins: int = 64) -> None:
        if bins < 2 or bins % 2:
            raise InputError(f"a histogram of {bins} bins: give an even number")
        self.counts = np.zeros(bins, np.int64)
        self.exponent = 0  # bins are 2 ** exponent wide
        self.first = 0  # the first begins at first * 2 ** exponent
        self.minimum, self.maximum = math.inf, -math.inf
        self.total = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values; others are left out."""
        flat = np.asarray(values, np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not self.total:
            self._begin(low, high)
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        while not self._holds(low, high):
            self._widen()
        places = np.floor(np.ldexp(flat, -self.exponent)).astype(np.int64) - self.first
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.total += flat.size

    def _begin(self, low: float, high: float) -> None:
        width = (high - low) / len(self.counts) or abs(high) * 1e-6 or 1e-6
        self.exponent = math.ceil(math.log2(width))
        self.first = math.floor(math.ldexp(low, -self.exponent))

    def _holds(self, low: float, high: float) -> bool:
        first, last = (math.floor(math.ldexp(end, -self.exponent)) for end in (low, high))
        return self.first <= first and last < self.first + len(self.counts)

    def _widen(self) -> None:
        """Double the width of the bins, with room on both sides."""
        size = len(self.counts)
        start = self.first // 2
        merged = np.zeros(size // 2 + 1, np.int64)
        np.add.at(merged, (self.first + np.arange(size)) // 2 - start, self.counts)
        margin = (size - len(merged)) // 2
        self.counts = np.zeros(size, np.int64)
        self.counts[margin : margin + len(merged)] = merged
        self.first, self.exponent = start - margin, self.exponent + 1

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ends of the bins: float64 (bins + 1,)."""
        places = self.first + np.arange(len(self.counts) + 1)
        return np.ldexp(places.astype(np.float64), self.exponent)

    def as_json(self) -> dict[str, Any]:
        """Return counts, edges, minimum, maximum and total as JSON values."""
        return {
            "counts": self.counts.tolist(),
            "edges": self.edges.tolist(),
            "minimum": self.minimum if self.total else None,
            "maximum": self.maximum if self.total else None,
            "total": self.total,
        }


@final
class Accumulator(Observer):
    """The histogram of an array over a whole run, such as of a layer's outputs.

    Link ``array`` to what is to be looked at, and put it anywhere after it. It looks at what this
    process computes: a master with slaves accumulates nothing. The result of the run has it as
    ``histogram of NAME``.

    Args:
        layer: the name of the layer whose output is looked at, in a standard workflow; by default
            the last one.
        bins: of the histogram.
        every: look at each so many-th minibatch only.
    """

    array = Input[Array]()

    def __init__(
        self,
        workflow: Workflow,
        layer: str | None = None,
        *,
        bins: int = 64,
        every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if every < 1:
            raise InputError(f"unit {self.path!r}: every is {every}; give at least 1")
        self.histogram = Histogram(bins)
        self.layer = layer
        self.every = every
        self._runs = 0

    def observe(self, units: StandardUnits) -> None:
        """Look at the output of the layer.

        Raises:
            GraphError: there is no layer of that name.
        """
        known = {one.name: one for one in units.forwards}
        layer = units.forwards[-1].name if self.layer is None else self.layer
        if layer not in known:
            raise GraphError(
                f"unit {self.path!r}: there is no layer {layer!r}{nearest(layer, known)}; there "
                f"are {', '.join(known)}"
            )
        self.link_data(known[layer], array="output")

    def run(self) -> None:
        """Count the values."""
        if self._runs % self.every == 0:
            self.histogram.add(self.array.read())
        self._runs += 1

    def run_as_master(self) -> None:
        """Do nothing: the arrays are with the slaves."""

    def results(self) -> Mapping[str, object]:
        """Return the histogram, by the unit's path."""
        return {f"histogram of {self.path}": self.histogram.as_json()}

    def state(self) -> Mapping[str, object]:
        """Return the counts so far."""
        one = self.histogram
        limits = [one.minimum, one.maximum] if one.total else None
        return {
            "counts": one.counts, "first": one.first, "exponent": one.exponent,
            "limits": limits, "total": one.total, "runs": self._runs,
        }  # fmt: skip

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the counts back."""
        saved = cast("dict[str, Any]", state)
        one = self.histogram
        one.counts = np.array(saved["counts"])
        one.first, one.exponent, one.total = saved["first"], saved["exponent"], saved["total"]
        if saved["limits"]:
            one.minimum, one.maximum = saved["limits"]
        self._runs = saved["runs"]
