"""Decisions: the bookkeeping of epochs, and when a run is complete."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict, Unpack, cast, final

from veloflow.core import Bool, EpochDone, Events, Input, Settings, Unit
from veloflow.errors import InputError, NumericsError, nearest
from veloflow.units.evaluator import EvaluatorSoftmax
from veloflow.units.loader import CLASS_NAMES, TEST, TRAIN, VALIDATION
from veloflow.units.metrics import Metric, join_measured, values_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.tally import Tally

__all__ = ["Decision", "DecisionGD", "DecisionMSE"]


class _Found(Protocol):
    """What was found in a minibatch: a tally, or the linked inputs of a decision."""

    @property
    def samples(self) -> int: ...

    @property
    def loss(self) -> float: ...

    @property
    def n_err(self) -> int: ...

    @property
    def measured(self) -> dict[str, Any]: ...

    @property
    def confusion_matrix(self) -> NDArray[np.int64]: ...


#: inputs that a tally says
_TOLD = ("samples", "loss", "n_err", "measured", "confusion_matrix")


class DecisionOptions(TypedDict, total=False):
    """What a decision may be told, as :class:`Decision` says."""

    max_epochs: int | None
    fail_iterations: int
    monitor: str | None
    min_improvement: float
    name: str | None


class Decision(Unit):
    """Adds up what the evaluator finds and decides at the end of each epoch. An outline.

    An epoch's record pairs the validation (and test) errors measured after n passes of training
    with the training errors of the n-th pass; epoch 0 is the untrained model. Without a
    validation set an epoch ends with its training pass, and the training error decides; test
    errors were then measured before that pass.

    A run is complete when ``max_epochs`` passes are done, when there was no improvement for
    ``fail_iterations`` epochs, when nothing is wrong any more, or, in testing, after one
    evaluation. A class without evaluated samples decides nothing. As in Veles, a complete run
    makes no further step; so without a validation set the last minibatch of all is measured and
    not trained on, and a finished run that is given more epochs goes on without that one step.

    With ``asked`` and ``measured`` of an evaluator linked, records have the values of its metrics.

    Args:
        max_epochs: how many passes of training at most; None for no limit.
        fail_iterations: give up after so many epochs without improvement (early stopping).
        monitor: the entry of a record by which epochs are compared, such as ``loss`` or a metric's
            name; by default the number of errors, or the loss where there is none.
        min_improvement: an epoch is better only when it is by more than this.

    Attributes:
        complete: whether the run is done.
        improved: whether the present minibatch ends the best epoch so far.
        gd_skip: whether the present minibatch is not to be trained on.
        epochs: the records, as in the result file.
        best: the number of the best epoch, and its errors.
    """

    group: ClassVar[str] = "decision"

    minibatch_class = Input[int]()
    last_minibatch = Input[Bool]()
    epoch_ended = Input[Bool]()
    epoch_number = Input[int]()
    samples = Input[int]()
    loss = Input[float]()
    asked = Input[tuple[Metric, ...]](optional=True)
    measured = Input[dict[str, Any]](optional=True)

    def __init__(
        self,
        workflow: Workflow,
        *,
        max_epochs: int | None = None,
        fail_iterations: int = 100,
        monitor: str | None = None,
        min_improvement: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if max_epochs is not None and max_epochs < 0:
            raise InputError(f"unit {self.path!r}: max_epochs is {max_epochs}; give 0 or more")
        if fail_iterations < 1:
            raise InputError(
                f"unit {self.path!r}: fail_iterations is {fail_iterations}; give at least 1"
            )
        if not (math.isfinite(min_improvement) and min_improvement >= 0):
            raise InputError(
                f"unit {self.path!r}: min_improvement is {min_improvement}; give 0 or more"
            )
        self.max_epochs = max_epochs
        self.fail_iterations = fail_iterations
        self.monitor = monitor
        self.min_improvement = min_improvement
        self._measured: dict[str, dict[str, Any]] = {}
        self.complete = Bool()
        self.improved = Bool()
        self.gd_skip = Bool()
        self.epochs: list[Mapping[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._best_value = math.inf
        self._sums: list[dict[str, float]] = [{}, {}, {}]
        self._records: list[dict[str, Any] | None] = [None, None, None]
        self._is_testing = False

    # -- what subclasses fill in --------------------------------------------------------------

    def _measure(self, found: _Found) -> dict[str, float]:
        """Return the sums that a minibatch adds to its class."""
        return {"samples": found.samples, "loss": found.loss}

    def _record(self, sums: Mapping[str, float]) -> dict[str, Any]:
        """Return the entry of a class in an epoch's record."""
        samples = int(sums["samples"])
        return {"samples": samples, "loss": sums["loss"] / max(samples, 1)}

    def _value(self, record: Mapping[str, Any]) -> float:
        """Return the number by which epochs are compared; less is better."""
        return float(record["loss"])

    def _best(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the result says of the best epoch besides its number."""
        return {}

    # -- the work -----------------------------------------------------------------------------

    def initialize(self) -> None:
        """Look whether the run is a test."""
        self._is_testing = self.service(Settings).testing

    def run(self) -> None:
        """Take in a minibatch; at the end of an epoch decide.

        Raises:
            NumericsError: the loss is NaN or infinite, perhaps that of a minibatch before.
        """
        kind = self.minibatch_class
        self.gd_skip.set(kind != TRAIN or self._is_testing)
        self._take_in(kind)
        if self.last_minibatch:
            sums = self._sums[kind]
            self._records[kind] = {**self._record(sums), **self._metric_values(kind)}
            self._sums[kind] = {}
        self.improved.set(False)
        if self.epoch_ended:
            self._end_epoch()

    def _take_in(self, kind: int) -> None:
        """Add up what was found in this minibatch."""
        self._add(kind, self.epoch_number, cast("_Found", self))

    def _add(self, kind: int, epoch: int, found: _Found) -> None:
        """Add what was found in a minibatch to the sums of its class."""
        loss = found.loss
        if not math.isfinite(loss):
            raise NumericsError(
                f"the loss is {loss} in epoch {epoch} ({CLASS_NAMES[kind]} minibatch)"
            )
        sums = self._sums[kind]
        for name, value in self._measure(found).items():
            sums[name] = sums.get(name, 0) + value
        if self.has_input("measured") and found.samples:
            parts = [self._measured.get(CLASS_NAMES[kind], {}), found.measured]
            self._measured[CLASS_NAMES[kind]] = join_measured(self.asked, parts)

    def _metric_values(self, kind: int) -> dict[str, float]:
        totals = self._measured.pop(CLASS_NAMES[kind], {})
        return values_of(self.asked, totals) if totals else {}

    @property
    def is_steady(self) -> bool:
        """Yes: it decides at the end of a class."""
        return True

    def run_as_slave(self) -> None:
        """Look whether to train on what the slave has; to decide is the master's."""
        self.gd_skip.set(self.minibatch_class != TRAIN or self._is_testing)

    def _end_epoch(self) -> None:
        number = self.epoch_number
        record: dict[str, Any] = {"epoch": number}
        for kind in (TRAIN, VALIDATION, TEST):
            entry = self._records[kind]
            if entry is not None:
                record[CLASS_NAMES[kind]] = entry
        self._records = [None, None, None]
        self.epochs.append(record)
        value = self._value_of(record)
        if value < self._best_value - self.min_improvement or not self.best:
            self._best_value = value
            monitored = {} if self.monitor is None else _of_classes(record, self.monitor)
            self.best = {"epoch": number, **self._best(record), **monitored}
            self.improved.set(True)
        self.complete.set(self._is_complete(record))
        self.service(Events).publish(EpochDone(record, self.improved.value))

    def _value_of(self, record: Mapping[str, Any]) -> float:
        """Return the value of the class that decides, infinity when none has samples."""
        for kind in (VALIDATION, TRAIN, TEST):
            entry = record.get(CLASS_NAMES[kind])
            if entry is not None and entry["samples"]:
                return self._value(entry) if self.monitor is None else self._monitored(entry)
        return math.inf

    def _monitored(self, entry: Mapping[str, Any]) -> float:
        """Return the entry that is monitored; what is better when it is higher is turned over."""
        assert self.monitor is not None
        if self.monitor not in entry:
            raise InputError(
                f"unit {self.path!r}: monitor is {self.monitor!r}, and records have no such entry"
                f"{nearest(self.monitor, entry)}; they have {', '.join(entry)}"
            )
        asked = self.asked if self.has_input("asked") else ()
        is_higher_better = any(
            metric.higher_is_better for metric in asked if metric.name == self.monitor
        )
        value = float(entry[self.monitor])
        return math.inf if math.isnan(value) else -value if is_higher_better else value

    def _is_complete(self, record: Mapping[str, Any]) -> bool:
        number = int(record["epoch"])
        return (
            self._is_testing
            or (self.max_epochs is not None and number >= self.max_epochs)
            or number - int(self.best["epoch"]) >= self.fail_iterations
            or (self.monitor is None and self._value_of(record) == 0)
        )

    def results(self) -> Mapping[str, object]:
        """Return the epochs and the best of them."""
        return {"epochs": self.epochs, "best": self.best}

    # -- checkpoints --------------------------------------------------------------------------

    def state(self) -> Mapping[str, object]:
        """Return the records and sums so far."""
        return {
            "epochs": self.epochs,
            "best": self.best,
            "best_value": None if math.isinf(self._best_value) else self._best_value,
            "sums": self._sums,
            "records": self._records,
            "measured": self._measured,
            "improved": self.improved.value,
            "gd_skip": self.gd_skip.value,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the records and sums back, and decide anew by the limits that hold now.

        So a finished run goes on when it is given more epochs. A test starts with none.
        """
        if self._is_testing:
            return
        saved = cast("dict[str, Any]", state)
        self.epochs = list(saved["epochs"])
        self.best = dict(saved["best"])
        value = saved["best_value"]
        self._best_value = math.inf if value is None else value
        self._sums = [dict(one) for one in saved["sums"]]
        self._records = list(saved["records"])
        self._measured = {kind: dict(totals) for kind, totals in saved["measured"].items()}
        self.improved.set(saved["improved"])
        self.gd_skip.set(saved["gd_skip"])
        self.complete.set(bool(self.epochs) and self._is_complete(self.epochs[-1]))


@final
class DecisionGD(Decision):
    """Decides by the number of misclassified samples.

    Attributes:
        confusion_matrices: class name -> int64 (classes, classes), row = predicted, column =
            true, of the last whole evaluation; filled when ``confusion_matrix`` is linked.
    """

    n_err = Input[int]()
    confusion_matrix = Input["NDArray[np.int64]"]("classes classes", optional=True)

    def __init__(
        self,
        workflow: Workflow,
        **options: Unpack[DecisionOptions],
    ) -> None:
        super().__init__(workflow, **options)
        self.confusion_matrices: dict[str, NDArray[np.int64]] = {}
        self._pairs: dict[str, NDArray[np.int64]] = {}
        #: class, epoch and tally of the minibatches that are not counted yet
        self._awaited: deque[tuple[int, int, Tally]] = deque()

    def _take_in(self, kind: int) -> None:
        evaluator = self._evaluator()
        if evaluator is None:
            super()._take_in(kind)
        else:
            self._awaited.append((kind, self.epoch_number, evaluator.tally))
            self._add_counted(is_waiting=bool(self.last_minibatch))
        name = CLASS_NAMES[kind]
        if self.last_minibatch and name in self._pairs:
            self.confusion_matrices[name] = self._pairs.pop(name)

    def _evaluator(self) -> EvaluatorSoftmax | None:
        """Return the evaluator whose tallies say all that is linked; None where there is none."""
        source = self.data_links["loss"].source
        if not isinstance(source, EvaluatorSoftmax):
            return None
        for name in _TOLD:
            link = self.data_links.get(name)
            if link is not None and (link.source is not source or link.attribute != name):
                return None
        return source

    def _add_counted(self, *, is_waiting: bool) -> None:
        """Add the tallies that are counted, in their order; all of them if ``is_waiting``."""
        while self._awaited and (is_waiting or self._awaited[0][2].count is None):
            kind, epoch, tally = self._awaited.popleft()
            self._add(kind, epoch, tally.counted())

    def _add(self, kind: int, epoch: int, found: _Found) -> None:
        super()._add(kind, epoch, found)
        if self.has_input("confusion_matrix"):
            name = CLASS_NAMES[kind]
            self._pairs[name] = self._pairs.get(name, 0) + found.confusion_matrix

    def _measure(self, found: _Found) -> dict[str, float]:
        return {**super()._measure(found), "n_errors": found.n_err}

    def _record(self, sums: Mapping[str, float]) -> dict[str, Any]:
        entry = super()._record(sums)
        wrong, samples = int(sums["n_errors"]), entry["samples"]
        return {
            "samples": samples,
            "n_errors": wrong,
            "error_percent": 100 * wrong / max(samples, 1),
            "loss": entry["loss"],
        }

    def _value(self, record: Mapping[str, Any]) -> float:
        return float(record["n_errors"])

    def _best(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return _of_classes(record, "error_percent")

    def results(self) -> Mapping[str, object]:
        """Return the epochs, the best of them, and the confusion matrices if they are counted."""
        found = dict(super().results())
        if self.confusion_matrices:
            found["confusion_matrix"] = {
                kind: pairs.tolist() for kind, pairs in self.confusion_matrices.items()
            }
        return found

    def state(self) -> Mapping[str, object]:
        """Return the records, sums and confusion matrices so far; all that was found is in them.

        Raises:
            NumericsError: a loss that was not looked at yet is NaN or infinite.
        """
        self._add_counted(is_waiting=True)
        whole, begun = self.confusion_matrices, self._pairs
        return {**super().state(), "confusion_matrices": dict(whole), "pairs": dict(begun)}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take everything back, and decide anew by the limits that hold now."""
        super().restore(state)
        if not self._is_testing:
            saved = cast("dict[str, Any]", state)
            self.confusion_matrices = dict(saved["confusion_matrices"])
            self._pairs = dict(saved["pairs"])
            self._awaited.clear()


@final
class DecisionMSE(Decision):
    """Decides by the mean of the samples' (root) mean squared errors.

    With ``metrics`` linked the records say the largest and smallest error of a sample too; with
    ``n_err`` linked, how many samples are nearer to the target of another class.
    """

    n_err = Input[int](optional=True)
    metrics = Input[tuple[float, float, float]](optional=True)

    def __init__(
        self,
        workflow: Workflow,
        **options: Unpack[DecisionOptions],
    ) -> None:
        super().__init__(workflow, **options)
        self._extremes: dict[str, tuple[float, float]] = {}

    def run(self) -> None:
        """Take in a minibatch; at the end of an epoch decide."""
        if self.has_input("metrics"):
            kind = CLASS_NAMES[self.minibatch_class]
            largest, smallest = self._extremes.get(kind, (-math.inf, math.inf))
            _, high, low = self.metrics
            self._extremes[kind] = max(largest, high), min(smallest, low)
        super().run()

    def _measure(self, found: _Found) -> dict[str, float]:
        wrong = {"n_errors": found.n_err} if self.has_input("n_err") else {}
        return {**super()._measure(found), **wrong}

    def _record(self, sums: Mapping[str, float]) -> dict[str, Any]:
        entry = super()._record(sums)
        if "n_errors" in sums:
            wrong = int(sums["n_errors"])
            entry["n_errors"] = wrong
            entry["error_percent"] = 100 * wrong / max(entry["samples"], 1)
        if self.has_input("metrics"):
            largest, smallest = self._extremes.pop(CLASS_NAMES[self.minibatch_class])
            entry["loss_max"], entry["loss_min"] = largest, smallest
        return entry

    def _best(self, record: Mapping[str, Any]) -> dict[str, Any]:
        wrong = _of_classes(record, "error_percent") if self.has_input("n_err") else {}
        return {**_of_classes(record, "loss"), **wrong}

    def state(self) -> Mapping[str, object]:
        """Return the records, sums and extremes so far."""
        return {**super().state(), "extremes": {k: list(v) for k, v in self._extremes.items()}}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take everything back, and decide anew by the limits that hold now."""
        super().restore(state)
        if not self._is_testing:
            saved = cast("dict[str, Any]", state)
            self._extremes = {kind: (high, low) for kind, (high, low) in saved["extremes"].items()}


def _of_classes(record: Mapping[str, Any], entry: str) -> dict[str, Any]:
    """Return an entry of the validation and training records, as ``validation_entry`` …."""
    return {
        f"{name}_{entry}": record[name][entry]
        for name in ("validation", "train")
        if entry in record.get(name, {})
    }
