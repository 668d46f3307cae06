"""Fully connected layers: forward y = f(x W^T + b), and their gradients.

Shapes: x is (batch, inputs) or (batch, ...), seen as (batch, all the rest); W is (neurons,
inputs); b is (neurons,); y is (batch, neurons), or (batch, *output_shape).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypedDict, Unpack, final

import numpy as np

from veloflow.errors import ShapeError
from veloflow.units.activation import (
    LINEAR,
    RELU,
    SIGMOID,
    SOFTPLUS,
    TANH,
    Activation,
    activation_of,
)
from veloflow.units.filling import Filling, Uniform, magnitude
from veloflow.units.forward import Forward
from veloflow.units.gradient import GradientUnit, LayerGradient
from veloflow.units.layer import DenseOptions, Layer, trained_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = [
    "All2All",
    "All2AllLinear",
    "All2AllReLU",
    "All2AllSigmoid",
    "All2AllSoftmax",
    "All2AllSoftplus",
    "All2AllTanh",
    "Dense",
    "GDDense",
    "GDLinear",
    "GDReLU",
    "GDSigmoid",
    "GDSoftmax",
    "GDSoftplus",
    "GDTanh",
    "GradientDescent",
    "dense",
    "linear",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
]


class AllOptions(TypedDict, total=False):
    """What a fully connected unit may be told, as :class:`All2All` says."""

    weights_filling: Filling | None
    bias_filling: Filling | None
    include_bias: bool
    name: str | None


class All2All(Forward):
    """A fully connected layer. An outline: subclasses name the activation.

    Args:
        output_shape: the number of neurons, or the shape of one output sample.
        weights_filling, bias_filling: initial values; by default uniform in +-min(sqrt(C / (in +
            out)), 0.5), where C is the activation's gain, as in Veles.
        include_bias: whether there is a bias.
    """

    def __init__(
        self,
        workflow: Workflow,
        output_shape: int | Sequence[int],
        *,
        weights_filling: Filling | None = None,
        bias_filling: Filling | None = None,
        include_bias: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        if not shape or any(size < 1 for size in shape):
            raise ShapeError(f"unit {self.path!r}: an output of shape {shape} has no neurons")
        self.output_shape = shape
        self.weights_filling = Uniform() if weights_filling is None else weights_filling
        self.bias_filling = self.weights_filling if bias_filling is None else bias_filling
        self.include_bias = include_bias
        self._launches: list[Launch] = []

    def initialize(self) -> None:
        """Declare output and parameters."""
        inputs, neurons = math.prod(self.input.shape[1:]), math.prod(self.output_shape)
        self.output = self.declare(len(self.input), *self.output_shape)
        self.weights = self._declare_parameter("weights", neurons, inputs)
        if self.include_bias:
            self.bias = self._declare_parameter("bias", neurons)
        if self.activation.needs_input:
            self.sums = self.declare(*self.output.shape)

    def prepare(self) -> None:
        """Fill the parameters and bind the multiplication."""
        assert self.weights is not None
        neurons, inputs = self.weights.shape
        default = magnitude(self.activation.gain, inputs, neurons)
        self._fill_parameter(self.weights, self.weights_filling, default)
        self._fill_parameter(self.bias, self.bias_filling, default)
        self._bind()

    def _bind(self) -> None:
        formula = self.activation.formula
        if self.sums is None or formula is None:
            self._launches = [self._multiplication(self.output, self.activation)]
        else:
            arrays = {"x": self.sums, "y": self.output}
            self._launches = [
                self._multiplication(self.sums, LINEAR),
                self.device.elementwise({"y": formula}, arrays),
            ]

    def _multiplication(self, out: Array, activation: Activation) -> Launch:
        assert self.weights is not None
        return self.device.gemm(
            self.input,
            self.weights.value,
            out,
            transpose_b=True,
            bias=None if self.bias is None else self.bias.value,
            activation=activation.formula,
        )

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class All2AllLinear(All2All):
    """A fully connected layer without activation."""

    activation = LINEAR


@final
class All2AllTanh(All2All):
    """A fully connected layer with LeCun's tanh, y = 1.7159 tanh(0.6666 x)."""

    activation = TANH


@final
class All2AllSoftplus(All2All):
    """A fully connected layer with y = log(1 + e^x) (what Veles called "relu")."""

    activation = SOFTPLUS


@final
class All2AllReLU(All2All):
    """A fully connected layer with y = max(0, x) (what Veles called "strict relu")."""

    activation = RELU


@final
class All2AllSigmoid(All2All):
    """A fully connected layer with y = 1 / (1 + e^-x)."""

    activation = SIGMOID


@final
class Dense(All2All):
    """A fully connected layer with any activation.

    Args:
        output_shape, more: as :class:`All2All` takes them.
        activation: one of :data:`~veloflow.units.activation.ACTIVATIONS` or its name.
    """

    def __init__(
        self,
        workflow: Workflow,
        output_shape: int | Sequence[int],
        activation: str | Activation = LINEAR,
        **more: Unpack[AllOptions],
    ) -> None:
        super().__init__(workflow, output_shape, **more)
        self.activation = activation_of(activation, f"unit {self.path!r}")


@final
class All2AllSoftmax(All2All):
    """A fully connected layer whose rows of output are probabilities.

    Attributes:
        max_idx: the most probable class of each row, int32 (batch,).
    """

    activation = LINEAR
    max_idx: Array

    def initialize(self) -> None:
        """Declare output, parameters and winners."""
        super().initialize()
        self.max_idx = self.declare(len(self.output), dtype="int32")

    def _bind(self) -> None:
        softmax = self.device.softmax(self.output, self.output, self.max_idx)
        self._launches = [self._multiplication(self.output, LINEAR), softmax]


class GradientDescent(LayerGradient):
    """The gradient of a fully connected layer and the update of its weights. An outline.

    With d = err_output * f'(y): dL/dW = d^T x, dL/db = sum of d over the batch, dL/dx = d W.
    """

    forward: All2All
    forward_kind: ClassVar[type[Forward]] = All2All

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        device, forward = self.device, self.forward
        assert forward.weights is not None
        delta, launches = self._bind_delta()
        self._factors = (delta, forward.input)
        if self.needs_err_input:
            launches.append(device.gemm(delta, forward.weights.value, self.err_input))
        launches.append(
            device.gemm(delta, forward.input, forward.weights.gradient, transpose_a=True)
        )
        if forward.bias is not None:
            # a sum over the batch: the product with a row of ones
            ones = device.asarray(np.ones((1, len(delta))), delta.dtype)
            gradient = forward.bias.gradient.reshape(1, forward.bias.gradient.size)
            launches.append(device.gemm(ones, delta, gradient))
        self._launches = tuple(launches)
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()

    def factors(self) -> Mapping[str, tuple[Array, Array]]:
        """Return d and x, whose product is the gradient of the weights."""
        assert self.forward.weights is not None
        return {self.forward.weights.name: self._factors}


@final
class GDLinear(GradientDescent):
    """The gradient of :class:`All2AllLinear`."""

    forward_kind = All2AllLinear


@final
class GDTanh(GradientDescent):
    """The gradient of :class:`All2AllTanh`."""

    forward_kind = All2AllTanh


@final
class GDSoftplus(GradientDescent):
    """The gradient of :class:`All2AllSoftplus`."""

    forward_kind = All2AllSoftplus


@final
class GDReLU(GradientDescent):
    """The gradient of :class:`All2AllReLU`."""

    forward_kind = All2AllReLU


@final
class GDSigmoid(GradientDescent):
    """The gradient of :class:`All2AllSigmoid`."""

    forward_kind = All2AllSigmoid


@final
class GDDense(GradientDescent):
    """The gradient of :class:`Dense`."""

    forward_kind = Dense


@final
class GDSoftmax(GradientDescent):
    """The gradient of :class:`All2AllSoftmax` behind a cross-entropy evaluator.

    The evaluator gives dL/d(input of the softmax), p - t, so nothing is left to multiply.
    """

    forward_kind = All2AllSoftmax


# -- the short form --------------------------------------------------------------------------------


def tanh(neurons: int | Sequence[int], **options: Unpack[DenseOptions]) -> Layer:
    """Return a fully connected layer with LeCun's tanh, y = 1.7159 tanh(0.6666 x)."""
    return _dense("tanh", All2AllTanh, GDTanh, neurons, options)


def sigmoid(neurons: int | Sequence[int], **options: Unpack[DenseOptions]) -> Layer:
    """Return a fully connected layer with y = 1 / (1 + e^-x)."""
    return _dense("sigmoid", All2AllSigmoid, GDSigmoid, neurons, options)


def relu(neurons: int | Sequence[int], **options: Unpack[DenseOptions]) -> Layer:
    """Return a fully connected layer with y = max(0, x)."""
    return _dense("relu", All2AllReLU, GDReLU, neurons, options)


def softplus(neurons: int | Sequence[int], **options: Unpack[DenseOptions]) -> Layer:
    """Return a fully connected layer with y = log(1 + e^x), which Veles called "relu"."""
    return _dense("softplus", All2AllSoftplus, GDSoftplus, neurons, options)


def linear(neurons: int | Sequence[int], **options: Unpack[DenseOptions]) -> Layer:
    """Return a fully connected layer without activation."""
    return _dense("linear", All2AllLinear, GDLinear, neurons, options)


def dense(
    neurons: int | Sequence[int],
    activation: str | Activation = "linear",
    **options: Unpack[DenseOptions],
) -> Layer:
    """Return a fully connected layer with this activation, given or by name, such as "gelu"."""
    text = f"dense({neurons}, {getattr(activation, 'name', activation)!r})"
    activation = activation_of(activation, f"layer {text}")
    make = partial(Dense, output_shape=neurons, activation=activation)
    return trained_layer(text, make, GDDense, options, DenseOptions.__optional_keys__)


def softmax(classes: int, **options: Unpack[DenseOptions]) -> Layer:
    """Return a fully connected layer that gives probabilities of classes; it must be the last."""
    return _dense("softmax", All2AllSoftmax, GDSoftmax, classes, options)


def _dense(
    kind: str,
    forward: type[All2All],
    gradient: type[GradientUnit],
    neurons: int | Sequence[int],
    options: DenseOptions,
) -> Layer:
    make = partial(forward, output_shape=neurons)
    return trained_layer(
        f"{kind}({neurons})", make, gradient, options, DenseOptions.__optional_keys__
    )
