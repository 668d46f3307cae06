"""How good a self-organizing map is: quantization error, winners, and which classes neurons are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from veloflow.core import Input, Payload
from veloflow.devices import Array
from veloflow.units.decision import Decision
from veloflow.units.evaluator import Evaluator
from veloflow.units.loader import CLASS_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow

__all__ = ["DecisionKohonen", "EvaluatorKohonen"]


@final
class EvaluatorKohonen(Evaluator):
    """How far samples lie from their winners, how often each neuron won, and whose samples.

    The loss of a sample is its Euclidean distance from its winner: their mean is the quantization
    error. No gradient comes of it: ``err_output`` is 0.

    Args:
        classes: how many classes ``labels``, if they are linked, may name.

    Attributes:
        hits: int64 (neurons,), how often each neuron won.
        coincidences: int64 (neurons, classes), how often it won samples of each class; of no
            columns where no labels are linked.
    """

    target = Input[Array]("batch *sample")
    winners = Input[Array]("batch", dtype="int32")
    minibatch_size = Input[int]()
    neurons = Input[int]()
    labels = Input[Array]("batch", dtype="int32", optional=True)

    def __init__(self, workflow: Workflow, *, classes: int = 0, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self.classes = classes
        self.hits: NDArray[np.int64] = np.zeros(0, np.int64)
        self.coincidences: NDArray[np.int64] = np.zeros((0, classes), np.int64)

    def run(self) -> None:
        """Evaluate a minibatch."""
        count = self.samples = self.minibatch_size
        apart = np.asarray(self.output.read(), np.float64) - np.asarray(self.target.read())
        distances = np.sqrt(np.square(apart.reshape(len(apart), -1)[:count]).sum(axis=1))
        self.loss = float(distances.sum())
        winners = np.asarray(self.winners.read())[:count]
        self.hits = np.bincount(winners, minlength=self.neurons)
        if self.has_input("labels") and self.classes:
            labels = np.asarray(self.labels.read())[:count]
            known = (labels >= 0) & (labels < self.classes)
            pairs = winners[known] * self.classes + labels[known]
            counts = np.bincount(pairs, minlength=self.neurons * self.classes)
            self.coincidences = counts.reshape(self.neurons, self.classes)

    def make_update(self) -> Payload:
        """Return the sums over this part, and the counts."""
        counts = {"hits": self.hits, "coincidences": self.coincidences}
        return {**super().make_update(), **counts}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Add the sums and the counts of all parts."""
        super().apply_update(updates)
        parts = cast("Sequence[Mapping[str, Any]]", updates)
        self.hits = np.sum([part["hits"] for part in parts], axis=0)
        self.coincidences = np.sum([part["coincidences"] for part in parts], axis=0)


@final
class DecisionKohonen(Decision):
    """Decides by the quantization error; says how often each neuron won, and which class it is.

    A neuron belongs to the class whose training samples it won most often, the first of equals; to
    none, -1, if it won none. A sample is wrong whose winner belongs to another class.

    Args:
        max_epochs, fail_iterations: see :class:`Decision`.
        min_change: stop when an epoch has moved weights by less, on average.

    Attributes:
        hits: class name -> int64 (neurons,), of the last whole evaluation.
        neuron_labels: int64 (neurons,), after the first pass of training.
    """

    hits_now = Input["NDArray[np.int64]"]("neurons")
    coincidences = Input["NDArray[np.int64]"]("neurons classes")
    change = Input[float]()

    def __init__(
        self,
        workflow: Workflow,
        *,
        max_epochs: int | None = None,
        fail_iterations: int = 100,
        min_change: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, max_epochs=max_epochs, fail_iterations=fail_iterations, name=name
        )
        self.min_change = min_change
        self.hits: dict[str, NDArray[np.int64]] = {}
        self.neuron_labels: NDArray[np.int64] = np.zeros(0, np.int64)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._pairs: dict[str, NDArray[np.int64]] = {}

    def run(self) -> None:
        """Take in a minibatch; at the end of an epoch decide."""
        kind = CLASS_NAMES[self.minibatch_class]
        self._counts[kind] = self._counts.get(kind, 0) + self.hits_now
        self._pairs[kind] = self._pairs.get(kind, 0) + self.coincidences
        super().run()

    def _record(self, sums: Mapping[str, float]) -> dict[str, Any]:
        entry = super()._record(sums)
        kind = CLASS_NAMES[self.minibatch_class]
        self.hits[kind], pairs = self._counts.pop(kind), self._pairs.pop(kind)
        record = {"samples": entry["samples"], "quantization_error": entry["loss"], **entry}
        if pairs.size:
            if kind == "train":
                self.neuron_labels = np.where(pairs.any(axis=1), pairs.argmax(axis=1), -1)
            if len(self.neuron_labels):
                own = np.arange(pairs.shape[1]) == self.neuron_labels[:, None]
                wrong = int(pairs[~own].sum())
                record["n_errors"] = wrong
                record["error_percent"] = 100 * wrong / max(int(pairs.sum()), 1)
        return record

    def _best(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {
            f"{name}_quantization_error": record[name]["quantization_error"]
            for name in ("validation", "train")
            if name in record
        }

    def _is_complete(self, record: Mapping[str, Any]) -> bool:
        return super()._is_complete(record) or self.change < self.min_change

    def results(self) -> Mapping[str, object]:
        """Return the epochs, the best of them, how often neurons won, and their classes."""
        found = {**super().results(), "hits": {k: v.tolist() for k, v in self.hits.items()}}
        return {**found, "neuron_labels": self.neuron_labels.tolist()}

    def state(self) -> Mapping[str, object]:
        """Return the records, sums and counts so far."""
        return {
            **super().state(),
            "hits": dict(self.hits),
            "neuron_labels": self.neuron_labels,
            "counts": dict(self._counts),
            "pairs": dict(self._pairs),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take everything back, and decide anew by the limits that hold now."""
        saved = cast("dict[str, Any]", state)
        if not self._is_testing:
            self.hits, self.neuron_labels = dict(saved["hits"]), np.array(saved["neuron_labels"])
            self._counts, self._pairs = dict(saved["counts"]), dict(saved["pairs"])
        super().restore(state)
