"""Evaluators: how wrong an output is, and the gradient of the loss by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array
from veloflow.devices.expressions import element, index, scalar, where
from veloflow.units.device_unit import DeviceUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch

__all__ = ["Evaluator", "EvaluatorMSE", "EvaluatorSoftmax"]


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
        self._launch: Launch

    def initialize(self) -> None:
        """Declare the gradient."""
        self.err_output = self.declare(*self.output.shape)

    def _divisor(self) -> int:
        """The size of the batch that the gradient is the mean over, at least 1."""
        return max(self.batch_size if self.has_input("batch_size") else self.samples, 1)


@final
class EvaluatorSoftmax(Evaluator):
    """Cross-entropy of class probabilities: L = -log p[label], dL/d(logits) = p - onehot(label).

    Rows with a negative label (padding, or unlabelled samples) are not evaluated.

    Args:
        compute_confusion_matrix: whether to count (predicted, true) pairs.

    Attributes:
        confusion_matrix: int64 (classes, classes), row = predicted, column = true; of this
            minibatch; None when it is not computed.
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
        self.confusion_matrix: NDArray[np.int64] | None = None

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
        """Evaluate a minibatch."""
        labels = np.asarray(self.labels.read())
        rows = self._rows[labels >= 0]
        self.samples = len(rows)
        self._launch(scale=1.0 / self._divisor())
        outputs = np.asarray(self.output.read())
        labels = labels[rows]
        probabilities = outputs[rows]
        winners = probabilities.argmax(axis=1)
        self.n_err = int(np.count_nonzero(winners != labels))
        likely = probabilities[np.arange(len(rows)), labels].astype(np.float64)
        tiny = float(np.finfo(outputs.dtype).tiny)
        self.loss = -float(np.log(np.maximum(likely, tiny)).sum())
        if self.compute_confusion_matrix:
            classes = outputs.shape[1]
            pairs = np.bincount(winners * classes + labels, minlength=classes * classes)
            self.confusion_matrix = pairs.reshape(classes, classes)


@final
class EvaluatorMSE(Evaluator):
    """Mean squared error: the loss of a sample is the mean of its squared differences.

    As in Veles the gradient is (output - target) / batch size, without the factor 2 and without
    the division by the size of a sample; so rates mean the same as there.

    Args:
        root: report root mean squared errors.

    Attributes:
        metrics: sum, maximum and minimum of the samples' (root) mean squared errors.
    """

    target = Input[Array]("batch *sample")
    labels = Input[Array]("batch", dtype="int32", optional=True)
    #: class -> its target, (classes, *sample): the nearest target to an output is its class
    class_targets = Input[Array]("classes *sample", optional=True)
    samples_here = Input[int](optional=True)

    def __init__(
        self, workflow: Workflow, *, root: bool = True, name: str | None = None
    ) -> None:
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
        self.samples = self.samples_here if self.has_input("samples_here") else len(self.output)
        self._launch(scale=1.0 / self._divisor(), samples=self.samples)
        outputs = np.asarray(self.output.read(), np.float64)[: self.samples]
        outputs = outputs.reshape(self.samples, -1)
        targets = np.asarray(self.target.read(), np.float64)[: self.samples]
        errors = np.square(outputs - targets.reshape(self.samples, -1)).mean(axis=1)
        if self.root:
            errors = np.sqrt(errors)
        self.loss = float(errors.sum())
        self.metrics = (self.loss, float(errors.max()), float(errors.min()))
        if self.has_input("class_targets") and self.has_input("labels"):
            self._classify(outputs)

    def _classify(self, outputs: NDArray[np.float64]) -> None:
        centres = np.asarray(self.class_targets.read(), np.float64)
        centres = centres.reshape(len(centres), -1)
        distances = np.square(outputs[:, None, :] - centres[None]).sum(axis=2)
        labels = np.asarray(self.labels.read())[: self.samples]
        wrong = (distances.argmin(axis=1) != labels) & (labels >= 0)
        self.n_err = int(np.count_nonzero(wrong))
