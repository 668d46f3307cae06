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
from veloflow.units.evaluator import EvaluatorMSE, EvaluatorSoftmax
from veloflow.units.gradient import Backward, GradientUnit
from veloflow.units.layer import Branches, Layer, Rates, refuse_unknown
from veloflow.units.learning_rate import LearningRateAdjust, Policy
from veloflow.units.network import layers_in, make_backward, make_forwards

if TYPE_CHECKING:
    from veloflow.core import Unit
    from veloflow.units.device_unit import DeviceUnit
    from veloflow.units.forward import Forward
    from veloflow.units.loader import Loader

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
    """

    repeater: Repeater
    loader: Loader
    forwards: tuple[Forward, ...]
    evaluator: EvaluatorSoftmax | EvaluatorMSE
    decision: DecisionGD | DecisionMSE
    gradients: tuple[Backward, ...]
    backward: tuple[DeviceUnit, ...]
    adjust: LearningRateAdjust | None = None
    checkpoint: Checkpoint | None = None


def standard_workflow(
    wf: Workflow,
    *,
    loader: Loader,
    layers: Sequence[Layer | Branches],
    loss: Literal["softmax", "mse"] = "softmax",
    max_epochs: int | None = None,
    fail_iterations: int = 100,
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
        loss: "softmax" classifies by cross-entropy; "mse" approximates ``target``.
        max_epochs: passes of training at most; None for no limit.
        fail_iterations: give up after so many epochs without improvement.
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
    if bias_policy is not None and policy is None:
        raise GraphError("standard_workflow: bias_policy needs a policy; give Fixed() to weights")
    repeater = Repeater(wf)
    nodes = make_forwards(wf, loader, layers)
    forwards = tuple(node.forward for node in nodes)
    evaluator, decision = (
        _softmax_loss(wf, loader, forwards[-1], max_epochs, fail_iterations)
        if loss == "softmax"
        else _mse_loss(wf, loader, forwards[-1], target, max_epochs, fail_iterations)
    )
    decision.link_data(evaluator, "samples", "loss").link_data(
        loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number"
    )
    checkpoint = _checkpoint(wf, loader, decision, checkpoint_epochs)
    backward = make_backward(wf, evaluator, nodes, rates)
    gradients = tuple(one for one in reversed(backward) if isinstance(one, Backward))
    adjust = _adjust(wf, loader, gradients, policy, bias_policy)
    units = StandardUnits(
        *(repeater, loader, forwards, evaluator, decision, gradients, backward),
        *(adjust, checkpoint),
    )
    _link_control(wf, units)
    return units


def _check_layers(layers: Sequence[Layer | Branches], loss: str) -> None:
    if loss not in ("softmax", "mse"):
        raise GraphError(f"the loss is {loss!r}; give 'softmax' or 'mse'")
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


def _softmax_loss(
    wf: Workflow, loader: Loader, last: Forward, max_epochs: int | None, fail_iterations: int
) -> tuple[EvaluatorSoftmax, DecisionGD]:
    evaluator = EvaluatorSoftmax(wf)
    evaluator.link_data(last, "output").link_data(loader, labels="minibatch_labels")
    decision = DecisionGD(wf, max_epochs=max_epochs, fail_iterations=fail_iterations)
    return evaluator, decision.link_data(evaluator, "n_err")


def _mse_loss(
    wf: Workflow,
    loader: Loader,
    last: Forward,
    target: str,
    max_epochs: int | None,
    fail_iterations: int,
) -> tuple[EvaluatorMSE, DecisionMSE]:
    evaluator = EvaluatorMSE(wf)
    evaluator.link_data(last, "output").link_data(loader, "minibatch_size", target=target)
    return evaluator, DecisionMSE(wf, max_epochs=max_epochs, fail_iterations=fail_iterations)


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
    chain += [units.evaluator, units.decision, units.checkpoint, *units.backward]
    chain += [units.adjust, units.repeater]
    for before, after in pairwise(unit for unit in chain if unit is not None):
        before >> after
    units.decision >> wf.end
    wf.end.gate_block = ~units.decision.complete
    units.backward[0].gate_block = units.decision.complete
    for unit in units.backward:
        unit.gate_skip = units.decision.gd_skip
