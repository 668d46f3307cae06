"""The short form: a list of layers becomes the whole training graph, the same as by hand.

    units = standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=60),
        layers=[tanh(100), dropout(0.5), softmax(10, learning_rate=0.01)],
        learning_rate=0.1,
        max_epochs=5,
    )

Units get the names, the order and the gates that the long form gives them, so both give the same
numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Unpack

from veloflow.core import Repeater, Workflow
from veloflow.errors import GraphError
from veloflow.units.all2all import GDSoftmax
from veloflow.units.checkpoint import Checkpoint
from veloflow.units.decision import DecisionGD, DecisionMSE
from veloflow.units.evaluator import (
    Evaluator,
    EvaluatorMSE,
    EvaluatorMultiLabel,
    EvaluatorSoftmax,
)
from veloflow.units.fullbatch import FullBatchLoader
from veloflow.units.gradient import Backward, GradientUnit
from veloflow.units.layer import Branches, Layer, Rates, refuse_unknown
from veloflow.units.learning_rate import LearningRateAdjust, Policy
from veloflow.units.network import layers_in, make_backward, make_forwards
from veloflow.units.rollback import EpochWatcher, Rollback

if TYPE_CHECKING:
    from veloflow.core import Unit
    from veloflow.units.device_unit import DeviceUnit
    from veloflow.units.forward import Forward
    from veloflow.units.loader import Loader
    from veloflow.units.metrics import Metric
    from veloflow.units.observing import Observer

__all__ = ["StandardUnits", "standard_workflow"]


@dataclass(frozen=True)
class StandardUnits:
    """The units of a standard workflow, to link more to them.

    Attributes:
        forwards: in the order of the layers.
        gradients: in the order of the layers; layers before all trained ones have none.
        backward: what runs on the way back, in this order: gradients, and sums of errors.
        adjust: sets the learning rates, or None.
        checkpoint: asks for checkpoints, or None.
        watchers: what goes by the epochs, right after the decision.
        observers: what looks on, after these.
    """

    repeater: Repeater
    loader: Loader
    forwards: tuple[Forward, ...]
    evaluator: Evaluator
    decision: DecisionGD | DecisionMSE
    gradients: tuple[Backward, ...]
    backward: tuple[DeviceUnit, ...]
    adjust: LearningRateAdjust | None = None
    checkpoint: Checkpoint | None = None
    watchers: tuple[EpochWatcher, ...] = ()
    observers: tuple[Observer, ...] = ()


def standard_workflow(
    wf: Workflow,
    *,
    loader: Loader,
    layers: Sequence[Layer | Branches],
    loss: Literal["softmax", "mse", "multilabel"] = "softmax",
    max_epochs: int | None = None,
    fail_iterations: int = 100,
    monitor: str | None = None,
    min_improvement: float = 0.0,
    metrics: Sequence[Metric] = (),
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    watchers: Sequence[EpochWatcher] = (),
    observers: Sequence[Observer] = (),
    policy: Policy | None = None,
    bias_policy: Policy | None = None,
    checkpoint_epochs: int | None = None,
    target: str = "minibatch_targets",
    **rates: Unpack[Rates],
) -> StandardUnits:
    """Fill ``wf`` with the graph that trains ``layers`` on the samples of ``loader``.

    Args:
        wf: an empty workflow but for ``loader``.
        loader: a loader in ``wf``.
        layers: from input to output; the last is ``softmax`` for the softmax loss. ``parallel``
            and ``residual`` hold branches of layers.
        loss: "softmax" classifies by cross-entropy; "mse" approximates ``target``; "multilabel"
            answers yes or no for each element of ``target``, of which many may be 1.
        max_epochs: passes of training at most; None for no limit.
        fail_iterations: give up after so many epochs without improvement (early stopping).
        monitor: the entry of the records by which epochs are compared, such as "loss" or the name
            of a metric.
        min_improvement: an epoch is better only when it is by more than this.
        metrics: what records say besides, such as ``[TopKError(5), AUC()]``.
        label_smoothing: the share of the truth that is spread over all classes (softmax).
        class_weights: a weight for the samples of each class (softmax).
        watchers: units of ``wf`` that go by the epochs, such as ``Rollback(wf)``.
        observers: units of ``wf`` that look on, such as ``ImageSaver(wf, "mistakes")``.
        policy: how learning rates change while training; None keeps them.
        bias_policy: the same for biases; by default ``policy``.
        checkpoint_epochs: ask for a checkpoint every so many epochs, and on improvement; None
            leaves checkpoints to the runtime.
        target: the loader's attribute that the MSE is measured against; ``minibatch_data`` makes
            an autoencoder.
        rates: of all layers that have none of their own: ``learning_rate``, ``weights_decay``,
            ``gradient_moment`` and the others of :class:`Rates`.

    Raises:
        GraphError: the list of layers makes no network, or an option does not exist.
    """
    others = [name for name in standard_workflow.__annotations__ if name not in ("rates", "return")]
    refuse_unknown("standard_workflow", rates, Rates.__optional_keys__, also=others)
    _check_layers(layers, loss)
    if loss != "softmax" and (label_smoothing or class_weights is not None):
        raise GraphError(
            "standard_workflow: label_smoothing and class_weights are for the softmax loss"
        )
    if bias_policy is not None and policy is None:
        raise GraphError("standard_workflow: bias_policy needs a policy; give Fixed() to weights")
    repeater = Repeater(wf)
    nodes = make_forwards(wf, loader, layers)
    forwards = tuple(node.forward for node in nodes)
    evaluator: Evaluator
    if loss == "softmax":
        evaluator = EvaluatorSoftmax(
            wf, metrics=metrics, label_smoothing=label_smoothing, class_weights=class_weights
        ).link_data(loader, labels="minibatch_labels")
    else:
        kind = EvaluatorMSE if loss == "mse" else EvaluatorMultiLabel
        evaluator = kind(wf, metrics=metrics).link_data(loader, "minibatch_size", target=target)
    evaluator.link_data(forwards[-1], "output")
    if isinstance(loader, FullBatchLoader) and loader.has_weights:
        evaluator.link_data(loader, sample_weights="minibatch_weights")
    decision: DecisionGD | DecisionMSE = (DecisionMSE if loss == "mse" else DecisionGD)(
        wf,
        max_epochs=max_epochs,
        fail_iterations=fail_iterations,
        monitor=monitor,
        min_improvement=min_improvement,
    )
    if loss != "mse":
        decision.link_data(evaluator, "n_err")
    if metrics:
        decision.link_data(evaluator, "asked", "measured")
    decision.link_data(evaluator, "samples", "loss").link_data(
        loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number"
    )
    checkpoint = _checkpoint(wf, loader, decision, checkpoint_epochs)
    backward = make_backward(wf, evaluator, nodes, rates)
    gradients = tuple(one for one in reversed(backward) if isinstance(one, Backward))
    adjust = _adjust(wf, loader, gradients, policy, bias_policy)
    for watcher in watchers:
        watcher.link_data(decision, "improved").link_data(loader, "epoch_ended")
        if isinstance(watcher, Rollback):
            watcher.link_data(decision, "complete")
        watcher.add(*(one for one in gradients if isinstance(one, GradientUnit)))
    units = StandardUnits(
        *(repeater, loader, forwards, evaluator, decision, gradients, backward),
        *(adjust, checkpoint, tuple(watchers), tuple(observers)),
    )
    for observer in observers:
        observer.observe(units)
    _link_control(wf, units)
    return units


def _check_layers(layers: Sequence[Layer | Branches], loss: str) -> None:
    if loss not in ("softmax", "mse", "multilabel"):
        raise GraphError(f"the loss is {loss!r}; give 'softmax', 'mse' or 'multilabel'")
    if not layers:
        raise GraphError("the list of layers is empty; give one layer at least: [softmax(10)]")
    for number, layer in enumerate(layers):
        if not isinstance(layer, Layer | Branches):
            raise GraphError(
                f"layer {number} is {layer!r}, a {type(layer).__name__}; give what tanh(), "
                "softmax(), dropout() and the others return"
            )
        is_softmax = any(one.gradient is GDSoftmax for one in layers_in([layer]))
        if is_softmax and number < len(layers) - 1:
            raise GraphError(
                f"layer {number} is {layer.text}, and {layers[number + 1].text} follows it; "
                "softmax must be the last layer"
            )
        if is_softmax and isinstance(layer, Branches):
            raise GraphError(f"softmax cannot be in a branch of {layer.text}; put it last")
    every = layers_in(layers)
    last = every[-1]
    if not any(issubclass(one.gradient, GradientUnit) for one in every):
        raise GraphError(f"{last.text} has no neurons of its own, and no layer before it has any")
    if (last.gradient is GDSoftmax) != (loss == "softmax"):
        cure = "end with softmax(classes)" if loss == "softmax" else "end with linear() or tanh()"
        raise GraphError(f"the last layer is {last.text} and the loss {loss!r}; {cure}")


def _checkpoint(
    wf: Workflow, loader: Loader, decision: DecisionGD | DecisionMSE, epochs: int | None
) -> Checkpoint | None:
    if epochs is None:
        return None
    unit = Checkpoint(wf, every_epochs=epochs)
    return unit.link_data(decision, "improved").link_data(loader, "epoch_ended", "epoch_number")


def _adjust(
    wf: Workflow,
    loader: Loader,
    gradients: Sequence[Backward],
    policy: Policy | None,
    bias_policy: Policy | None,
) -> LearningRateAdjust | None:
    if policy is None:
        return None
    unit = LearningRateAdjust(wf, policy, bias_policy=bias_policy)
    unit.add(*(one for one in gradients if isinstance(one, GradientUnit)))
    return unit.link_data(loader, "minibatch_class")


def _link_control(wf: Workflow, units: StandardUnits) -> None:
    chain: list[Unit | None] = [wf.start, units.repeater, units.loader, *units.forwards]
    chain += [units.evaluator, units.decision, *units.watchers]
    chain += [*units.observers, units.checkpoint]
    chain += units.backward
    chain += [units.adjust, units.repeater]
    for before, after in pairwise(unit for unit in chain if unit is not None):
        before >> after
    last_to_look = units.observers[-1] if units.observers else units.decision
    last_to_look >> wf.end
    wf.end.gate_block = ~units.decision.complete
    units.backward[0].gate_block = units.decision.complete
    for unit in units.backward:
        unit.gate_skip = units.decision.gd_skip
