"""Evaluators: how wrong an output is, and the gradient of the loss by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

import numpy as np

from veloflow.core import Farm, Input, Part, Payload
from veloflow.devices import Array
from veloflow.devices.expressions import element, index, scalar, where
from veloflow.errors import DataError
from veloflow.units.device_unit import DeviceUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch

__all__ = ["Evaluator", "EvaluatorMSE", "EvaluatorSoftmax"]

#: the smallest normal number by the character of the dtype; asking NumPy takes 1 us
_TINY = {char: float(np.finfo(char).tiny) for char in "efd"}


class Evaluator(DeviceUnit):
    """Compares an output with what it should be. An outline.

    ``batch_size`` may be linked to the number of samples that the gradient is the mean over, when
    that is more than this piece holds; by default it is the number of samples evaluated here.

    Attributes:
        err_output: dL/d(output), a mean over the minibatch, zero in rows that are padding.
        samples: how many samples were evaluated.
        loss: the sum of their losses.
        n_err: how many of them were classified wrongly.
    """

    group: ClassVar[str] = "evaluator"

    output = Input[Array]("batch *sample")
    batch_size = Input[int](optional=True)

    def __init__(self, workflow: Workflow, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self.err_output: Array
        self.samples = 0
        self.loss = 0.0
        self.n_err = 0
        self._weight: int | None = None
        self._launch: Launch

    def initialize(self) -> None:
        """Declare the gradient."""
        self.err_output = self.declare(*self.output.shape, life="readers")

    def _scale(self) -> float:
        """Return 1 / the size of the batch that the gradient is the mean over."""
        if self._weight is not None:
            return 1.0 / max(self._weight, 1)
        return 1.0 / max(self.batch_size if self.has_input("batch_size") else self.samples, 1)

    # -- with slaves --------------------------------------------------------------------------

    def run_as_master(self) -> None:
        """Wait for what the slaves have found."""
        self.service(Farm).collect()

    def make_job(self, part: Part) -> Payload:
        """Return how many samples the gradient is the mean over: those of the whole minibatch."""
        return {"weight": part.batch.weight}

    def take_job(self, payload: Payload) -> None:
        """Take the size of the whole minibatch."""
        self._weight = cast("int", payload["weight"])

    def make_update(self) -> Payload:
        """Return the sums over this part."""
        return {"samples": self.samples, "loss": self.loss, "n_err": self.n_err}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Add the sums of all parts."""
        parts = cast("Sequence[Mapping[str, Any]]", updates)
        self.samples = sum(part["samples"] for part in parts)
        self.loss = sum(part["loss"] for part in parts)
        self.n_err = sum(part["n_err"] for part in parts)


@final
class EvaluatorSoftmax(Evaluator):
    """Cross-entropy of class probabilities: L = -log p[label], dL/d(logits) = p - onehot(label).

    ``output`` is (batch, classes), ``labels`` int32 (batch,). Rows with a negative label (padding,
    or unlabelled samples) are not evaluated: they count neither as right nor as wrong, and the
    mean is over the others.

    Args:
        compute_confusion_matrix: whether to count (predicted, true) pairs.

    Attributes:
        confusion_matrix: int64 (classes, classes), row = predicted, column = true; of this
            minibatch; empty when it is not computed.
    """

    output = Input[Array]("batch classes")
    labels = Input[Array]("batch", dtype="int32")

    def __init__(
        self,
        workflow: Workflow,
        *,
        compute_confusion_matrix: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.compute_confusion_matrix = compute_confusion_matrix
        self.confusion_matrix: NDArray[np.int64] = np.zeros((0, 0), np.int64)

    def prepare(self) -> None:
        """Bind the gradient."""
        label = element("label")
        error = (element("p") - index(1).equals(label)) * scalar("scale")
        self._launch = self.device.elementwise(
            {"err": where(label >= 0, error, 0.0)},
            {"p": self.output, "label": self.labels, "err": self.err_output},
        )
        self._rows = np.arange(len(self.output))

    def run(self) -> None:
        """Evaluate a minibatch.

        Raises:
            DataError: a label is no class of the output.
        """
        labels = np.asarray(self.labels.read())
        outputs = np.asarray(self.output.read())
        known = labels >= 0
        self.samples = int(np.count_nonzero(known))
        # everything is read: nothing waits for the gradient, and the backward pass follows it
        self._launch(scale=self._scale())
        if self.samples < len(labels):
            labels, outputs = labels[known], outputs[known]
        self.loss = _cross_entropy(outputs, labels, self._rows[: self.samples], self.path)
        winners = outputs.argmax(axis=1)
        self.n_err = int(np.count_nonzero(winners != labels))
        if self.compute_confusion_matrix:
            classes = outputs.shape[1]
            pairs = np.bincount(winners * classes + labels, minlength=classes * classes)
            self.confusion_matrix = pairs.reshape(classes, classes)

    def make_update(self) -> Payload:
        """Return the sums over this part, and the pairs counted."""
        counted = {"confusion_matrix": self.confusion_matrix}
        return {**super().make_update(), **(counted if self.compute_confusion_matrix else {})}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Add the sums and the pairs of all parts."""
        super().apply_update(updates)
        if self.compute_confusion_matrix:
            counted = [cast("NDArray[np.int64]", part["confusion_matrix"]) for part in updates]
            self.confusion_matrix = np.sum(counted, axis=0)


def _cross_entropy(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    rows: NDArray[np.integer],
    path: str,
) -> float:
    """Return the sum of -log p[label], in float64; a p of 0 counts as the smallest number."""
    try:
        likely = probabilities[rows, labels].astype(np.float64)
    except IndexError:
        raise DataError(
            f"unit {path!r}: there is a sample of class {labels.max()}, and the output has "
            f"{probabilities.shape[1]} classes, from 0 on; widen the last layer"
        ) from None
    np.maximum(likely, _TINY[probabilities.dtype.char], out=likely)
    return -float(np.log(likely, out=likely).sum())


@final
class EvaluatorMSE(Evaluator):
    """Mean squared error: the loss of a sample is the mean of its squared differences, or its root.

    As in Veles the gradient is (output - target) / batch size, without the factor 2 and without
    the division by the size of a sample; so rates mean the same as there. It is that of
    sum((output - target)^2) / 2, whatever ``root`` says of the reported loss.

    ``minibatch_size`` is how many rows are real: those beyond are padding. With ``class_targets``
    (classes, *sample) and ``labels`` linked, an output belongs to the class whose target is
    nearest, and ``n_err`` counts the labelled samples for which that is another class.

    Args:
        root: report root mean squared errors.

    Attributes:
        metrics: sum, maximum and minimum of the samples' (root) mean squared errors.
    """

    target = Input[Array]("batch *sample")
    minibatch_size = Input[int]()
    labels = Input[Array]("batch", dtype="int32", optional=True)
    class_targets = Input[Array]("classes *sample", optional=True)

    def __init__(self, workflow: Workflow, *, root: bool = True, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self.root = root
        self.metrics = (0.0, 0.0, 0.0)

    def prepare(self) -> None:
        """Bind the gradient."""
        error = (element("y") - element("t")) * scalar("scale")
        self._launch = self.device.elementwise(
            {"err": where(index(0) < scalar("samples"), error, 0.0)},
            {"y": self.output, "t": self.target, "err": self.err_output},
        )

    def run(self) -> None:
        """Evaluate a minibatch."""
        self.samples = self.minibatch_size
        outputs = np.asarray(self.output.read(), np.float64)[: self.samples]
        targets = np.asarray(self.target.read(), np.float64)[: self.samples]
        self._launch(scale=self._scale(), samples=self.samples)
        outputs = outputs.reshape(self.samples, -1)
        errors = np.square(outputs - targets.reshape(self.samples, -1)).mean(axis=1)
        if self.root:
            errors = np.sqrt(errors)
        self.loss = float(errors.sum())
        self.metrics = (self.loss, float(errors.max()), float(errors.min()))
        if self.has_input("class_targets") and self.has_input("labels"):
            self._classify(outputs)

    def make_job(self, part: Part) -> Payload:
        """Return how many samples the gradient is the mean over: all, labelled or not."""
        return {"weight": part.batch.size}

    def make_update(self) -> Payload:
        """Return the sums over this part, and its extremes."""
        return {**super().make_update(), "extremes": list(self.metrics[1:])}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Add the sums and join the extremes of all parts."""
        super().apply_update(updates)
        extremes = [cast("list[float]", part["extremes"]) for part in updates]
        largest, smallest = max(high for high, _ in extremes), min(low for _, low in extremes)
        self.metrics = (self.loss, largest, smallest)

    def _classify(self, outputs: NDArray[np.float64]) -> None:
        centres = np.asarray(self.class_targets.read(), np.float64)
        centres = centres.reshape(len(centres), -1)
        distances = np.square(outputs[:, None, :] - centres[None]).sum(axis=2)
        labels = np.asarray(self.labels.read())[: self.samples]
        wrong = (distances.argmin(axis=1) != labels) & (labels >= 0)
        self.n_err = int(np.count_nonzero(wrong))
