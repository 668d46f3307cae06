"""Evaluators: how wrong an output is, and the gradient of the loss by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

import numpy as np

from veloflow.core import Farm, Input, Part, Payload
from veloflow.devices import Array
from veloflow.devices.expressions import Expression, absolute, element, exp, index, scalar, where
from veloflow.errors import DataError, InputError
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.labels import listing
from veloflow.units.metrics import Metric, join_measured, measure_all
from veloflow.units.tally import Tally, Told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch

__all__ = ["Evaluator", "EvaluatorMSE", "EvaluatorMultiLabel", "EvaluatorSoftmax"]

#: the smallest normal number by the character of the dtype; asking NumPy takes 1 us
_TINY = {char: float(np.finfo(char).tiny) for char in "efd"}
#: bytes of outputs that are kept to be counted later; with more than this, a wait is no matter
_KEPT = 1 << 20


class Evaluator(DeviceUnit):
    """Compares an output with what it should be. An outline.

    ``batch_size`` may be linked to the number of samples that the gradient is the mean over, when
    that is more than this piece holds; by default it is the number of samples evaluated here.
    ``sample_weights`` (batch,) may be linked: loss and gradient of a sample are multiplied by its
    weight, and the mean is over the samples, whatever their weights. Errors and metrics count
    every sample once.

    Args:
        metrics: what to measure besides; see :mod:`veloflow.units.metrics`.

    Attributes:
        err_output: dL/d(output), a mean over the minibatch, zero in rows that are padding.
        samples: how many samples were evaluated.
        loss: the sum of their losses.
        n_err: how many of them were classified wrongly.
        asked: the metrics.
        measured: their totals over this minibatch, as ``metric/total``.
    """

    group: ClassVar[str] = "evaluator"

    output = Input[Array]("batch *sample")
    batch_size = Input[int](optional=True)
    sample_weights = Input[Array]("batch", optional=True)

    def __init__(
        self, workflow: Workflow, *, metrics: Sequence[Metric] = (), name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        self.asked = tuple(metrics)
        names = [metric.name for metric in self.asked]
        if len(set(names)) < len(names):
            raise InputError(f"unit {self.path!r}: two metrics have one name: {', '.join(names)}")
        self.measured: dict[str, Any] = {}
        self._form: dict[str, Any] = {}
        self.err_output: Array
        self.samples = 0
        self.loss = 0.0
        self.n_err = 0
        self._weight: int | None = None
        self._launch: Launch

    def initialize(self) -> None:
        """Declare the gradient."""
        self.err_output = self.declare(*self.output.shape, life="readers")
        outputs = np.zeros((1, *self.output.shape[1:]), self.settings.dtype)
        self._form = self.measured = measure_all(self.asked, outputs, self._some_targets(outputs))

    def _some_targets(self, outputs: NDArray[np.floating]) -> NDArray[Any]:
        """Return targets for these outputs: any, so that it is known what metrics say."""
        return np.zeros(outputs.shape)

    def _measure(self, outputs: NDArray[np.floating], targets: NDArray[Any]) -> dict[str, Any]:
        """Measure the samples; what is said of none has the form of what is said of some."""
        if self.asked and len(outputs) > 0:
            return measure_all(self.asked, outputs, targets)
        return self._form

    def _scale(self) -> float:
        """Return 1 / the size of the batch that the gradient is the mean over."""
        if self._weight is not None:
            return 1.0 / max(self._weight, 1)
        return 1.0 / max(self.batch_size if self.has_input("batch_size") else self.samples, 1)

    def _weighted(self, error: Expression, arrays: dict[str, Array]) -> Expression:
        """Return the error times the sample's weight, if there are weights; name their array."""
        if not self.has_input("sample_weights"):
            return error
        arrays["weight"] = self.sample_weights
        return error * element("weight")

    def _weights(self) -> NDArray[np.float64] | float:
        """Return the weights of the real samples, or 1 where there are none."""
        if not self.has_input("sample_weights"):
            return 1.0
        return np.asarray(self.sample_weights.read(), np.float64)[: self.samples]

    # -- with slaves --------------------------------------------------------------------------

    def run_as_master(self) -> None:
        """Wait for what the slaves have found."""
        self.service(Farm).collect()

    @property
    def is_steady(self) -> bool:
        """Whether it only takes in what slaves have found."""
        return type(self).run_as_master is Evaluator.run_as_master

    def make_job(self, part: Part) -> Payload:
        """Return how many samples the gradient is the mean over: those of the whole minibatch."""
        return {"weight": part.batch.weight}

    def take_job(self, payload: Payload) -> None:
        """Take the size of the whole minibatch."""
        self._weight = cast("int", payload["weight"])

    def make_update(self) -> Payload:
        """Return the sums over this part."""
        sums = {"samples": self.samples, "loss": self.loss, "n_err": self.n_err}
        return {**sums, **self.measured}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Add the sums of all parts."""
        parts = cast("Sequence[Mapping[str, Any]]", updates)
        self.samples = sum(part["samples"] for part in parts)
        self.loss = sum(part["loss"] for part in parts)
        self.n_err = sum(part["n_err"] for part in parts)
        told = [part for part in parts if part["samples"]]
        joined = join_measured(self.asked, [_metrics_of(part) for part in told])
        self.measured = joined if told else self._form


def _metrics_of(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: total for name, total in part.items() if "/" in name}


@final
class EvaluatorSoftmax(Evaluator):
    """Cross-entropy of class probabilities, against labels that may be smoothed and weighted.

    With s = ``label_smoothing``, K classes and t = (1 - s) onehot(label) + s / K, a sample of
    weight u has the loss L = -u sum of t log p and the gradient dL/d(logits) = u (p - t); without
    smoothing and weights, L = -log p[label]. The mean is over the samples, whatever their weights.

    ``output`` is (batch, classes), ``labels`` int32 (batch,). Rows with a negative label (padding,
    or unlabelled samples) are not evaluated: they count neither as right nor as wrong, and the
    mean is over the others.

    On a device that computes while the host does something else, the minibatch is counted when
    somebody first reads ``loss``, ``n_err``, ``measured`` or ``confusion_matrix``, at the latest
    when the next one is evaluated; so nobody need wait in the middle of a step. A
    :class:`DecisionGD` that is linked to all of them takes the ``tally`` of each minibatch and
    adds it up once it is counted.

    Szegedy et al., "Rethinking the inception architecture" (2016), for the smoothing.

    Args:
        compute_confusion_matrix: whether to count (predicted, true) pairs.
        label_smoothing: the share s of the truth that is spread over all classes, in [0, 1).
        class_weights: a weight for the samples of each class; times that of the sample.
        metrics: what to measure besides, of the probabilities.

    Attributes:
        confusion_matrix: int64 (classes, classes), row = predicted, column = true; of this
            minibatch; empty when it is not computed.
        tally: all that is counted of this minibatch.
    """

    loss = Told[float]()
    n_err = Told[int]()
    measured = Told[dict[str, Any]]()
    confusion_matrix = Told["NDArray[np.int64]"]()

    output = Input[Array]("batch classes")
    labels = Input[Array]("batch", dtype="int32")

    def __init__(
        self,
        workflow: Workflow,
        *,
        compute_confusion_matrix: bool = True,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        metrics: Sequence[Metric] = (),
        name: str | None = None,
    ) -> None:
        self.tally = Tally()
        super().__init__(workflow, metrics=metrics, name=name)
        if not 0 <= label_smoothing < 1:
            raise InputError(
                f"unit {self.path!r}: label_smoothing is {label_smoothing}; give a share in [0, 1)"
            )
        self.compute_confusion_matrix = compute_confusion_matrix
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else np.asarray(class_weights, float)
        if self.class_weights is not None and not (self.class_weights >= 0).all():
            raise InputError(f"unit {self.path!r}: class_weights must be numbers, none below 0")
        self._kept: Array | None = None
        self._weigh: Launch | None = None

    def initialize(self) -> None:
        """Declare the gradient.

        Raises:
            InputError: there are not as many class weights as classes.
            DataError: the data has more labels than there are classes.
        """
        super().initialize()
        classes = self.output.shape[1]
        if len(self._labels_mapping) > classes:
            self._refuse_class(len(self._labels_mapping) - 1)
        if self.class_weights is not None:
            if len(self.class_weights) != classes:
                raise InputError(
                    f"unit {self.path!r}: there are {len(self.class_weights)} class_weights, and "
                    f"the output has {classes} classes"
                )
            self._class_weights = self.declare(len(self.output), 1)
        if self.device.reads_beside and self.output.nbytes <= _KEPT:
            self._kept = self.declare(*self.output.shape, dtype=self.output.dtype)

    def prepare(self) -> None:
        """Bind the gradient."""
        label, classes = element("label"), self.output.shape[1]
        arrays = {"p": self.output, "label": self.labels, "err": self.err_output}
        truth: Expression = index(1).equals(label)
        if self.label_smoothing:
            truth = (1 - self.label_smoothing) * truth + self.label_smoothing / classes
        error = (element("p") - truth) * scalar("scale")
        if self.class_weights is not None:
            table = self.class_weights.reshape(-1, 1)
            weights = self.device.asarray(table, self.settings.dtype)
            self._weigh = self.device.gather(weights, self.labels, self._class_weights)
            arrays["class_weight"] = self._class_weights
            error = error * element("class_weight")
        error = self._weighted(error, arrays)
        formulas = {"err": where(label >= 0, error, 0.0)}
        if self._kept is not None:
            formulas["kept"], arrays["kept"] = element("p"), self._kept
        self._launch = self.device.elementwise(formulas, arrays)
        self._rows = np.arange(len(self.output))

    def run(self) -> None:
        """Evaluate a minibatch.

        Raises:
            DataError: a label is no class of the output; perhaps one of the minibatch before.
        """
        self.tally.counted()  # before this minibatch takes the place of the one before
        labels = np.array(self.labels.read())
        self.samples = int(np.count_nonzero(labels >= 0))
        if self._weigh is not None:
            self._check_labels(labels)
            self._weigh()
        # before the outputs are waited for: so it may be one launch with what makes them
        self._launch(scale=self._scale())
        outputs = self.output if self._kept is None else self._kept
        count = partial(self._count, outputs, labels, self._weights_of(labels))
        self.tally = Tally(self.samples, count=count)
        if self._kept is None:
            self.tally.counted()

    def _count(
        self,
        kept: Array,
        labels: NDArray[np.integer],
        weights: NDArray[np.float64] | None,
        tally: Tally,
    ) -> None:
        """Count a minibatch; ``labels`` and ``weights`` are of all its rows."""
        outputs = np.asarray(kept.read())
        if tally.samples < len(labels):
            known = labels >= 0
            labels, outputs = labels[known], outputs[known]
            weights = None if weights is None else weights[known]
        try:
            tally.loss = _cross_entropy(
                outputs, labels, self._rows[: tally.samples], self.label_smoothing, weights
            )
        except IndexError:
            self._check_labels(labels)
            raise
        winners = outputs.argmax(axis=1)
        tally.n_err = int(np.count_nonzero(winners != labels))
        tally.measured = self._measure(outputs, labels)
        if self.compute_confusion_matrix:
            classes = outputs.shape[1]
            pairs = np.bincount(winners * classes + labels, minlength=classes * classes)
            tally.confusion_matrix = pairs.reshape(classes, classes)

    def _some_targets(self, outputs: NDArray[np.floating]) -> NDArray[Any]:
        return np.zeros(len(outputs), np.int32)

    def _check_labels(self, labels: NDArray[np.integer]) -> None:
        if len(labels) and labels.max() >= self.output.shape[1]:
            self._refuse_class(int(labels.max()))

    @property
    def _labels_mapping(self) -> Mapping[str | int, int]:
        """The names of classes, where whoever gives the labels knows them."""
        found: Mapping[str | int, int] = {}
        if self.has_input("labels"):
            found = getattr(self.data_links["labels"].source, "labels_mapping", found)
        return found

    def _refuse_class(self, number: int) -> None:
        names = listing(self._labels_mapping, 20)
        raise DataError(
            f"unit {self.path!r}: there is a sample of class {number}, and the output has "
            f"{self.output.shape[1]} classes, from 0 on; "
            + f"the labels are {names}: mend a wrong one, or " * bool(names)
            + "widen the last layer"
        )

    def _weights_of(self, labels: NDArray[np.integer]) -> NDArray[np.float64] | None:
        """Return a weight for each row, or None where all have the same."""
        weights: NDArray[np.float64] | None = None
        if self.class_weights is not None:
            weights = self.class_weights[labels]
        if self.has_input("sample_weights"):
            own = np.array(self.sample_weights.read(), np.float64)
            weights = own if weights is None else weights * own
        return weights

    def make_update(self) -> Payload:
        """Return the sums over this part, and the pairs counted."""
        counted = {"confusion_matrix": self.confusion_matrix}
        return {**super().make_update(), **(counted if self.compute_confusion_matrix else {})}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Add the sums and the pairs of all parts."""
        super().apply_update(updates)
        self.tally.samples = self.samples
        if self.compute_confusion_matrix:
            counted = [cast("NDArray[np.int64]", part["confusion_matrix"]) for part in updates]
            self.confusion_matrix = np.sum(counted, axis=0)


def _cross_entropy(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    rows: NDArray[np.integer],
    smoothing: float,
    weights: NDArray[np.float64] | None,
) -> float:
    """Return the sum of losses, in float64; a p of 0 counts as the smallest number."""
    losses = _surprise(probabilities[rows, labels])
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * _surprise(probabilities).mean(axis=1)
    return float((losses if weights is None else losses * weights).sum())


def _surprise(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return -log p, in float64."""
    values: NDArray[np.float64] = probabilities.astype(np.float64)
    np.maximum(values, _TINY[probabilities.dtype.char], out=values)
    return np.negative(np.log(values, out=values), out=values)


@final
class EvaluatorMultiLabel(Evaluator):
    """Cross-entropy of independent yes-or-no answers, of which a sample may have several.

    ``output`` is (batch, labels): z, the logits, of a layer without activation; the probability of
    a label is p = 1 / (1 + e^-z). ``target`` is t, (batch, labels), in [0, 1]. The loss of a sample
    is the mean over its labels of -t log p - (1 - t) log(1 - p), and dL/dz = (p - t) / labels, as
    torch.nn.BCEWithLogitsLoss. ``minibatch_size`` is how many rows are real.

    A sample counts as wrong when any of its answers is, those being z > 0. Metrics get z, which is
    in the order of p.
    """

    output = Input[Array]("batch labels")
    target = Input[Array]("batch labels")
    minibatch_size = Input[int]()

    def prepare(self) -> None:
        """Bind the gradient."""
        z, t = element("z"), element("t")
        small = exp(-absolute(z))
        p = where(z >= 0, 1 / (1 + small), small / (1 + small))
        arrays = {"z": self.output, "t": self.target, "err": self.err_output}
        error = self._weighted((p - t) * scalar("scale"), arrays)
        self._launch = self.device.elementwise(
            {"err": where(index(0) < scalar("samples"), error, 0.0)}, arrays
        )

    def run(self) -> None:
        """Evaluate a minibatch.

        Raises:
            DataError: a target is outside [0, 1].
        """
        self.samples = self.minibatch_size
        outputs = np.asarray(self.output.read())[: self.samples]
        targets = np.asarray(self.target.read(), np.float64)[: self.samples]
        if not ((targets >= 0) & (targets <= 1)).all():
            raise DataError(f"unit {self.path!r}: a target is outside [0, 1]")
        self._launch(scale=self._scale() / self.output.shape[1], samples=self.samples)
        z = outputs.astype(np.float64)
        losses = np.maximum(z, 0) - z * targets + np.log1p(np.exp(-np.abs(z)))
        self.loss = float((losses.mean(axis=1) * self._weights()).sum())
        self.n_err = int(np.count_nonzero(((z > 0) != (targets > 0.5)).any(axis=1)))
        self.measured = self._measure(outputs, targets)

    def make_job(self, part: Part) -> Payload:
        """Return how many samples the gradient is the mean over: all."""
        return {"weight": part.batch.size}


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
        metrics: what to measure besides, of outputs and targets.

    Attributes:
        metrics: sum, maximum and minimum of the samples' (root) mean squared errors.
    """

    target = Input[Array]("batch *sample")
    minibatch_size = Input[int]()
    labels = Input[Array]("batch", dtype="int32", optional=True)
    class_targets = Input[Array]("classes *sample", optional=True)

    def __init__(
        self,
        workflow: Workflow,
        *,
        root: bool = True,
        metrics: Sequence[Metric] = (),
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, metrics=metrics, name=name)
        self.root = root
        self.metrics = (0.0, 0.0, 0.0)

    def prepare(self) -> None:
        """Bind the gradient."""
        arrays = {"y": self.output, "t": self.target, "err": self.err_output}
        error = self._weighted((element("y") - element("t")) * scalar("scale"), arrays)
        self._launch = self.device.elementwise(
            {"err": where(index(0) < scalar("samples"), error, 0.0)}, arrays
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
        self.loss = float((errors * self._weights()).sum())
        self.metrics = (self.loss, float(errors.max()), float(errors.min()))
        self.measured = self._measure(outputs, targets.reshape(outputs.shape))
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
