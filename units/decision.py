"""Decisions: the bookkeeping of epochs, and when a run is complete."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

from veloflow.core import Bool, EpochDone, Events, Input, Settings, Unit
from veloflow.errors import NumericsError
from veloflow.units.loader import CLASS_NAMES, TEST, TRAIN, VALIDATION

if TYPE_CHECKING:
    from veloflow.core import Workflow

__all__ = ["Decision", "DecisionGD", "DecisionMSE"]


class Decision(Unit):
    """Adds up what the evaluator finds and decides at the end of each epoch. An outline.

    An epoch's record pairs the validation (and test) errors measured after n passes of training
    with the training errors of the n-th pass; epoch 0 is the untrained model. Without a
    validation set an epoch ends with its training pass, and the training error decides.

    Args:
        max_epochs: how many passes of training at most; None for no limit.
        fail_iterations: give up after so many epochs without improvement.

    Attributes:
        complete: whether the run is done.
        improved: whether the last epoch was the best so far.
        gd_skip: whether the present minibatch is not to be trained on.
        epochs: the records, as in the result file.
    """

    group: ClassVar[str] = "decision"

    minibatch_class = Input[int]()
    last_minibatch = Input[Bool]()
    epoch_ended = Input[Bool]()
    epoch_number = Input[int]()
    samples = Input[int]()
    loss = Input[float]()

    def __init__(
        self,
        workflow: Workflow,
        *,
        max_epochs: int | None = None,
        fail_iterations: int = 100,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.max_epochs = max_epochs
        self.fail_iterations = fail_iterations
        self.complete = Bool()
        self.improved = Bool()
        self.gd_skip = Bool()
        self.epochs: list[Mapping[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._sums: list[dict[str, float]] = [{}, {}, {}]
        self._records: list[dict[str, Any] | None] = [None, None, None]
        self._best_value = math.inf

    # -- what subclasses fill in --------------------------------------------------------------

    def _measure(self) -> dict[str, float]:
        """Return the sums that a minibatch adds to its class."""
        return {"samples": self.samples, "loss": self.loss}

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

    def run(self) -> None:
        """Take in a minibatch; at the end of an epoch decide."""
        kind = self.minibatch_class
        self.gd_skip.set(kind != TRAIN or self.service(Settings).testing)
        if not math.isfinite(self.loss):
            raise NumericsError(
                f"the loss is {self.loss} in epoch {self.epoch_number} "
                f"({CLASS_NAMES[kind]} minibatch)"
            )
        sums = self._sums[kind]
        for name, value in self._measure().items():
            sums[name] = sums.get(name, 0) + value
        if self.last_minibatch:
            self._records[kind] = self._record(sums)
            self._sums[kind] = {}
        self.improved.set(False)
        if self.epoch_ended:
            self._end_epoch()

    def _end_epoch(self) -> None:
        number = self.epoch_number
        record: dict[str, Any] = {"epoch": number}
        for kind in (TRAIN, VALIDATION, TEST):
            entry = self._records[kind]
            if entry is not None:
                record[CLASS_NAMES[kind]] = entry
        self._records = [None, None, None]
        self.epochs.append(record)
        deciding = next(
            CLASS_NAMES[kind] for kind in (VALIDATION, TRAIN, TEST) if CLASS_NAMES[kind] in record
        )
        value = self._value(record[deciding])
        if value < self._best_value or not self.best:
            self._best_value = value
            self.best = {"epoch": number, **self._best(record)}
            self.improved.set(True)
        self.complete.set(self._is_complete(number, value))
        self.service(Events).publish(EpochDone(record, self.improved.value))

    def _is_complete(self, number: int, value: float) -> bool:
        return (
            self.service(Settings).testing
            or (self.max_epochs is not None and number >= self.max_epochs)
            or number - int(self.best["epoch"]) >= self.fail_iterations
            or value == 0
        )

    def results(self) -> Mapping[str, object]:
        """Return the epochs and the best of them."""
        return {"epochs": self.epochs, "best": self.best}

    def state(self) -> Mapping[str, object]:
        """Return the records and sums so far."""
        return {
            "epochs": self.epochs,
            "best": self.best,
            "best_value": None if math.isinf(self._best_value) else self._best_value,
            "sums": self._sums,
            "records": self._records,
            "complete": self.complete.value,
            "improved": self.improved.value,
            "gd_skip": self.gd_skip.value,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the records and sums back; a run with a higher limit is not complete any more."""
        saved = cast("dict[str, Any]", state)
        self.epochs = list(saved["epochs"])
        self.best = dict(saved["best"])
        value = saved["best_value"]
        self._best_value = math.inf if value is None else value
        self._sums = [dict(one) for one in saved["sums"]]
        self._records = list(saved["records"])
        self.improved.set(saved["improved"])
        self.gd_skip.set(saved["gd_skip"])
        self.complete.set(saved["complete"])


@final
class DecisionGD(Decision):
    """Decides by the number of misclassified samples."""

    n_err = Input[int]()

    def _measure(self) -> dict[str, float]:
        return {**super()._measure(), "n_errors": self.n_err}

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
        return {
            f"{name}_error_percent": record[name]["error_percent"]
            for name in ("validation", "train")
            if name in record
        }


@final
class DecisionMSE(Decision):
    """Decides by the mean of the samples' (root) mean squared errors."""

    def _best(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {
            f"{name}_loss": record[name]["loss"]
            for name in ("validation", "train")
            if name in record
        }
