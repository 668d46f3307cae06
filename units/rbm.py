"""Restricted Boltzmann machines: binary units, trained by contrastive divergence.

Hinton (2002), Training products of experts by minimizing contrastive divergence; Hinton (2012), A
practical guide to training restricted Boltzmann machines. With s the sigmoid, visible units v and
hidden units h, 0 or 1:

    E(v, h) = -a v - b h - h W v        p(h | v) = s(W v + b)        p(v | h) = s(h W + a)

Shapes: v is (batch, ...), seen as (batch, visible); W is (hidden, visible); b is (hidden,); a is
(visible,); the output, the reconstruction of the input, has the input's shape.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Unpack, cast, final

from veloflow.core import Input, Part, Payload
from veloflow.devices.expressions import element, index, scalar, where
from veloflow.devices.random import key_of
from veloflow.errors import InputError, ShapeError
from veloflow.units.activation import SIGMOID
from veloflow.units.filling import Constant, Filling, Gaussian
from veloflow.units.forward import Forward
from veloflow.units.gradient import GradientUnit
from veloflow.units.layer import Layer, Rates, trained_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch
    from veloflow.devices.parameters import Parameter

__all__ = ["RBM", "GDContrastive", "rbm"]


@final
class RBM(Forward):
    """A restricted Boltzmann machine; running it makes ``k`` steps of Gibbs sampling.

    The chain begins at the input v0 and goes v0 -> h0 -> v1 -> h1 ... vk -> hk. Of hidden units
    states are drawn, but for the last, whose probabilities stand for them; visible units are
    represented by their probabilities (Hinton 2012, section 3), unless they are to be drawn as
    well. What is drawn depends on the seed, the unit's path, the epoch and the sample's place in
    it only: the same on every device, whoever computes a sample, and after a resumption.

    Args:
        hidden: how many hidden units.
        k: how many steps, from 1 on.
        draw_input: take the input as probabilities and draw v0 from them.
        draw_visible: draw the states of visible units too.
        weights_filling: of W; by default normal with standard deviation 0.01 (Hinton 2012).
        bias_filling, visible_bias_filling: of b and a; by default 0.

    Attributes:
        visible_bias: a.
        visible: v0, (batch, visible).
        hidden_probabilities: p(h | v0), (batch, hidden).
        hidden_states: what is drawn of it last, (batch, hidden).
        last_probabilities: p(h | vk), (batch, hidden).
    """

    loader_inputs: ClassVar[tuple[str, ...]] = (
        "minibatch_size", "minibatch_position", "epoch_number",
    )  # fmt: skip

    #: what is drawn differs from use to use; its features are p(h | v0)
    output_in_use: ClassVar[str] = "hidden_probabilities"

    minibatch_size = Input[int]()
    minibatch_position = Input[int]()
    epoch_number = Input[int]()

    def __init__(
        self,
        workflow: Workflow,
        hidden: int,
        *,
        k: int = 1,
        draw_input: bool = False,
        draw_visible: bool = False,
        weights_filling: Filling | None = None,
        bias_filling: Filling | None = None,
        visible_bias_filling: Filling | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if hidden < 1:
            raise ShapeError(f"unit {self.path!r}: {hidden} hidden units; give at least one")
        if k < 1:
            raise InputError(f"unit {self.path!r}: k is {k}; give at least one step of sampling")
        self.hidden, self.k = hidden, k
        self.draw_input, self.draw_visible = draw_input, draw_visible
        self.weights_filling = Gaussian() if weights_filling is None else weights_filling
        self.bias_filling = Constant(0.0) if bias_filling is None else bias_filling
        self.visible_bias_filling = (
            Constant(0.0) if visible_bias_filling is None else visible_bias_filling
        )
        self.visible_bias: Parameter
        self.visible: Array
        self.hidden_probabilities: Array
        self.hidden_states: Array
        self.last_probabilities: Array
        self._draws: list[Callable[[], None]] = []

    def parameters(self) -> list[Parameter]:
        """Return W, b and a."""
        return [*super().parameters(), self.visible_bias]

    def initialize(self) -> None:
        """Declare output, parameters and the states of the chain."""
        batch, visible = len(self.input), math.prod(self.input.shape[1:])
        self.output = self.declare(*self.input.shape)
        self.weights = self._declare_parameter("weights", self.hidden, visible)
        self.bias = self._declare_parameter("bias", self.hidden)
        self.visible_bias = self._declare_parameter("visible_bias", visible)
        self.visible = self.declare(batch, visible)
        self.hidden_probabilities = self.declare(batch, self.hidden)
        self.hidden_states = self.declare(batch, self.hidden)
        self.last_probabilities = self.declare(batch, self.hidden)
        self._hidden_noise = self.declare(batch, self.hidden)
        if self.draw_input or self.draw_visible:
            self._visible_noise = self.declare(batch, visible)

    def prepare(self) -> None:
        """Fill the parameters and bind the chain."""
        assert self.weights is not None
        assert self.bias is not None
        for parameter, filling, purpose in (
            (self.weights, self.weights_filling, "weights"),
            (self.bias, self.bias_filling, "bias"),
            (self.visible_bias, self.visible_bias_filling, "visible_bias"),
        ):
            # the default of Gaussian is three standard deviations
            values = filling.fill(self._random(purpose), parameter.shape, 0.03)
            parameter.value.write(values)
        given = self.input.reshape(*self.visible.shape)
        if self.draw_input:
            self._launches = self._drawing("input", given, self.visible, self._visible_noise)
        else:
            self._launches = [self.device.copy(given, self.visible)]
        output = self.output.reshape(*self.visible.shape)
        source, probabilities = self.visible, self.hidden_probabilities
        for step in range(self.k):
            self._launches.append(self._up(source, probabilities))
            self._launches += self._drawing(
                f"hidden {step}", probabilities, self.hidden_states, self._hidden_noise
            )
            self._launches.append(self._down(output))
            if self.draw_visible:
                self._launches += self._drawing(
                    f"visible {step}", output, output, self._visible_noise
                )
            source, probabilities = output, self.last_probabilities
        self._launches.append(self._up(source, probabilities))

    def _up(self, visible: Array, target: Array) -> Launch:
        assert self.weights is not None
        assert self.bias is not None
        return self.device.gemm(
            visible, self.weights.value, target, transpose_b=True, bias=self.bias.value,
            activation=SIGMOID.formula,
        )  # fmt: skip

    def _down(self, target: Array) -> Launch:
        assert self.weights is not None
        return self.device.gemm(
            self.hidden_states, self.weights.value, target, bias=self.visible_bias.value,
            activation=SIGMOID.formula,
        )  # fmt: skip

    def _drawing(
        self, purpose: str, probabilities: Array, states: Array, noise: Array
    ) -> list[Callable[[], None]]:
        """Bind states = 1 with these probabilities, else 0."""
        draw = self.device.uniform(noise, key_of(self.settings.seed, self.path, purpose))
        compare = self.device.elementwise(
            {"states": element("noise") < element("p")},
            {"states": states, "noise": noise, "p": probabilities},
        )
        return [
            lambda: draw(stream=self.epoch_number, row=self.minibatch_position),
            compare,
        ]

    def run(self) -> None:
        """Run the chain."""
        for launch in self._launches:
            launch()


@final
class GDContrastive(GradientUnit):
    """Contrastive divergence: what leads away from vk and towards v0, as if it were a gradient.

    For a minibatch of n samples, as a loss would be descended along its gradient:

        W: -(p(h | v0)^T v0 - p(h | vk)^T vk) / n
        b: -(sum of p(h | v0) - p(h | vk)) / n        a: -(sum of v0 - vk) / n

    No error comes from behind it: ``err_output`` is linked for the order of the graph only, and
    ``err_input`` is 0, for a machine below is trained before this one.
    """

    forward: RBM
    forward_kind: ClassVar[type[Forward]] = RBM

    def __init__(
        self, workflow: Workflow, forward: Forward, *, name: str | None = None,
        **rates: Unpack[Rates],
    ) -> None:  # fmt: skip
        super().__init__(workflow, forward, name=name, **rates)
        self._weight: int | None = None

    def is_bias(self, parameter: Parameter) -> bool:
        """Whether it moves as a bias does: both biases do."""
        return parameter is self.forward.visible_bias or super().is_bias(parameter)

    def initialize(self) -> None:
        """Declare what solvers keep, and the differences."""
        super().initialize()
        forward = self.forward
        shapes = (forward.visible.shape, forward.hidden_probabilities.shape)
        # of both ends of the chain, with 0 in rows that are padding
        self._firsts, self._lasts = [[self.declare(*one) for one in shapes] for _ in range(2)]

    def prepare(self) -> None:
        """Bind the differences and the updates."""
        device, forward = self.device, self.forward
        assert forward.weights is not None
        assert forward.bias is not None
        output = forward.output.reshape(*forward.visible.shape)
        self._ends: list[Launch] = []
        is_sample = index(0) < scalar("samples")
        for source, target in (
            (forward.visible, self._firsts[0]),
            (forward.hidden_probabilities, self._firsts[1]),
            (output, self._lasts[0]),
            (forward.last_probabilities, self._lasts[1]),
        ):
            formula = where(is_sample, element("source"), 0.0)
            arrays = {"source": source, "target": target}
            self._ends.append(device.elementwise({"target": formula}, arrays))
        (v0, h0), (vk, hk) = self._firsts, self._lasts
        self._launches: list[Callable[..., None]] = [
            device.gemm(hk, vk, forward.weights.gradient, transpose_a=True),
            device.gemm(h0, v0, forward.weights.gradient, transpose_a=True, alpha=-1.0, beta=1.0),
        ]
        for bias, first, last in ((forward.bias, h0, hk), (forward.visible_bias, v0, vk)):
            difference = element("last") - element("first")
            arrays = {"first": first, "last": last}
            self._launches.append(device.reduce("sum", difference, arrays, bias.gradient, axis=0))
        self._means = [
            device.elementwise({"g": element("g") * scalar("scale")}, {"g": one.gradient})
            for one in forward.parameters()
        ]
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the differences."""
        samples = self.forward.minibatch_size
        for launch in self._ends:
            launch(samples=samples)
        for launch in self._launches:
            launch()
        scale = 1.0 / max(samples if self._weight is None else self._weight, 1)
        for launch in self._means:
            launch(scale=scale)
        if self.needs_err_input:
            self.err_input.write(0)

    # -- with slaves --------------------------------------------------------------------------

    def make_job(self, part: Part) -> Payload:
        """Return how many samples the mean is over: those of the whole minibatch."""
        return {"samples": part.batch.size}

    def take_job(self, payload: Payload) -> None:
        """Take the size of the whole minibatch."""
        self._weight = cast("int", payload["samples"])


# -- the short form --------------------------------------------------------------------------------


class RBMOptions(Rates, total=False):
    """What a restricted Boltzmann machine may be told."""

    k: int
    draw_input: bool
    draw_visible: bool
    weights_filling: Filling
    bias_filling: Filling
    visible_bias_filling: Filling
    name: str


def rbm(hidden: int, **options: Unpack[RBMOptions]) -> Layer:
    """Return a restricted Boltzmann machine, the only layer of a network that is trained by it.

    Its loss is "mse", its target the input: ``standard_workflow(wf, loader=..., layers=[rbm(100)],
    loss="mse", target="minibatch_data")``.
    """
    make = partial(RBM, hidden=hidden)
    return trained_layer(
        f"rbm({hidden})", make, GDContrastive, options, RBMOptions.__optional_keys__
    )
