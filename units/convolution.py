"""Convolutional layers: y = f(w * x + b), and their gradients (LeCun et al., 1989).

Shapes: x is (batch, height, width, channels), or (batch, height, width) with one channel; w is
(kernels, ky * kx * channels / groups), each row in the order height, width, channel; b is
(kernels,); y is (batch, height', width', kernels) with height' = (height + top + bottom - ky) //
stride + 1. As everywhere in the field, w is not mirrored: it is a cross-correlation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypedDict, Unpack, final

from veloflow.devices.expressions import element
from veloflow.errors import ShapeError
from veloflow.units.activation import LINEAR, RELU, SIGMOID, SOFTPLUS, TANH, activation_of
from veloflow.units.filling import Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.gradient import LayerGradient
from veloflow.units.layer import DenseOptions, Layer, trained_layer
from veloflow.units.patches import Window, padding_of, pair

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices import Launch
    from veloflow.units.activation import Activation

__all__ = [
    "Conv",
    "ConvArguments",
    "ConvLinear",
    "ConvReLU",
    "ConvSigmoid",
    "ConvSoftplus",
    "ConvTanh",
    "Convolution",
    "GDConv",
    "GDConvLinear",
    "GDConvReLU",
    "GDConvSigmoid",
    "GDConvSoftplus",
    "GDConvTanh",
    "GDConvolution",
    "conv",
]


class ConvArguments(TypedDict, total=False):
    """What a convolutional unit may be told, as :class:`Conv` says."""

    stride: int | Sequence[int]
    padding: int | Sequence[int]
    groups: int
    weights_filling: Filling | None
    bias_filling: Filling | None
    include_bias: bool
    name: str | None


class Conv(Forward):
    """A convolutional layer. An outline: subclasses name the activation.

    Args:
        kernels: how many.
        size: of a kernel, one number or (height, width).
        stride: by how much a kernel moves, one number or (height, width).
        padding: zeros around the image: one number, (y, x), or (left, top, right, bottom).
        groups: the kernels of each group see the channels of that group alone.
        weights_filling, bias_filling: initial values; by default uniform in +-min(1 / sqrt(ky * kx
            * channels / groups), 0.05), as in Veles.
        include_bias: whether there is a bias.

    Attributes:
        window: how the kernels move, after ``initialize``.
    """

    def __init__(
        self,
        workflow: Workflow,
        kernels: int,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        groups: int = 1,
        weights_filling: Filling | None = None,
        bias_filling: Filling | None = None,
        include_bias: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        what = f"unit {self.path!r}:"
        if kernels < 1:
            raise ShapeError(f"{what} {kernels} kernels; give at least one")
        self.kernels = kernels
        self.size = pair(size, f"{what} size")
        self.stride = pair(stride, f"{what} stride")
        self.padding = padding_of(padding, f"{what} padding")
        self.weights_filling = Uniform() if weights_filling is None else weights_filling
        self.bias_filling = self.weights_filling if bias_filling is None else bias_filling
        self.include_bias = include_bias
        self.groups = groups
        self.window: Window
        self._launches: list[Launch] = []

    def initialize(self) -> None:
        """Declare output and parameters.

        Raises:
            ShapeError: the input is no batch of images that are large enough, or its channels or
                the kernels do not divide into the groups.
        """
        what = f"unit {self.path!r}"
        self.window = Window.over(
            self.input.shape, what, kernel=self.size, stride=self.stride, padding=self.padding
        )
        channels = self.window.image[2]
        if self.groups < 1 or channels % self.groups or self.kernels % self.groups:
            raise ShapeError(
                f"{what}: {channels} channels and {self.kernels} kernels do not divide into "
                f"{self.groups} groups"
            )
        self.output = self.declare(len(self.input), *self.window.places, self.kernels)
        length = self.window.length // self.groups
        self.weights = self._declare_parameter("weights", self.kernels, length)
        if self.include_bias:
            self.bias = self._declare_parameter("bias", self.kernels)
        if self.activation.needs_input:
            self.sums = self.declare(*self.output.shape)

    def prepare(self) -> None:
        """Fill the parameters and bind the convolution."""
        assert self.weights is not None
        default = min(1 / math.sqrt(self.weights.shape[1]), 0.05)
        channels = self.window.image[2] // self.groups
        shape = (self.kernels, *self.size, channels)
        self._fill_parameter(self.weights, self.weights_filling, default, shape)
        self._fill_parameter(self.bias, self.bias_filling, default)
        formula = self.activation.formula
        self._launches = [
            self.device.convolution(
                self.input,
                self.weights.value,
                self.output if self.sums is None else self.sums,
                self.window,
                groups=self.groups,
                bias=None if self.bias is None else self.bias.value,
                activation=formula if self.sums is None else None,
            )
        ]
        if self.sums is not None and formula is not None:
            arrays = {"x": self.sums, "y": self.output}
            self._launches.append(self.device.elementwise({"y": formula}, arrays))

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class ConvLinear(Conv):
    """A convolutional layer without activation."""

    activation = LINEAR


@final
class ConvTanh(Conv):
    """A convolutional layer with LeCun's tanh, y = 1.7159 tanh(0.6666 x)."""

    activation = TANH


@final
class ConvSoftplus(Conv):
    """A convolutional layer with y = log(1 + e^x) (what Veles called "relu")."""

    activation = SOFTPLUS


@final
class ConvReLU(Conv):
    """A convolutional layer with y = max(0, x) (what Veles called "str")."""

    activation = RELU


@final
class ConvSigmoid(Conv):
    """A convolutional layer with y = 1 / (1 + e^-x)."""

    activation = SIGMOID


@final
class Convolution(Conv):
    """A convolutional layer with any activation.

    Args:
        kernels, size, more: as :class:`Conv` takes them.
        activation: one of :data:`~veloflow.units.activation.ACTIVATIONS` or its name.
    """

    def __init__(
        self,
        workflow: Workflow,
        kernels: int,
        size: int | Sequence[int],
        activation: str | Activation = LINEAR,
        **more: Unpack[ConvArguments],
    ) -> None:
        super().__init__(workflow, kernels, size, **more)
        self.activation = activation_of(activation, f"unit {self.path!r}")


class GDConv(LayerGradient):
    """The gradient of a convolutional layer and the update of its weights. An outline.

    With d = err_output * f'(y) and the patches of x as rows: dL/dw = d^T rows, dL/db = sum of d
    over all places, and the rows of dL/dx = d w, which are added up where they overlap.
    """

    forward: Conv
    forward_kind: ClassVar[type[Forward]] = Conv

    def _needs_delta(self) -> bool:
        """Whether d must be in memory: where f' is written from y, the kernels make it."""
        return self.forward.sums is not None

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        forward = self.forward
        assert forward.weights is not None
        delta, launches = self._bind_delta()
        derivative = forward.activation.derivative if delta is self.err_output else None
        gradient = self.device.convolution_gradient(
            delta,
            forward.input,
            forward.weights.value,
            forward.window,
            groups=forward.groups,
            y=forward.output,
            slope=None if derivative is None else derivative(element("y")),
            weights_gradient=forward.weights.gradient,
            bias_gradient=None if forward.bias is None else forward.bias.gradient,
            input_gradient=self.err_input if self.needs_err_input else None,
        )
        self._launches = [*launches, gradient]
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


@final
class GDConvLinear(GDConv):
    """The gradient of :class:`ConvLinear`."""

    forward_kind = ConvLinear


@final
class GDConvTanh(GDConv):
    """The gradient of :class:`ConvTanh`."""

    forward_kind = ConvTanh


@final
class GDConvSoftplus(GDConv):
    """The gradient of :class:`ConvSoftplus`."""

    forward_kind = ConvSoftplus


@final
class GDConvReLU(GDConv):
    """The gradient of :class:`ConvReLU`."""

    forward_kind = ConvReLU


@final
class GDConvSigmoid(GDConv):
    """The gradient of :class:`ConvSigmoid`."""

    forward_kind = ConvSigmoid


@final
class GDConvolution(GDConv):
    """The gradient of :class:`Convolution`."""

    forward_kind = Convolution


# -- the short form --------------------------------------------------------------------------------


class ConvOptions(DenseOptions, total=False):
    """What a convolutional layer may be told besides: how its kernels move."""

    stride: int | Sequence[int]
    padding: int | Sequence[int]
    groups: int


_CONVOLUTIONS: dict[str, tuple[type[Conv], type[GDConv]]] = {
    "linear": (ConvLinear, GDConvLinear),
    "tanh": (ConvTanh, GDConvTanh),
    "relu": (ConvReLU, GDConvReLU),
    "sigmoid": (ConvSigmoid, GDConvSigmoid),
    "softplus": (ConvSoftplus, GDConvSoftplus),
}


def conv(
    kernels: int,
    size: int | Sequence[int],
    activation: str | Activation = "relu",
    **options: Unpack[ConvOptions],
) -> Layer:
    """Return a convolutional layer of so many kernels of ``size``.

    ``activation`` is one of :data:`~veloflow.units.activation.ACTIVATIONS`, or its name.

    Raises:
        GraphError: there is no such option.
        InputError: there is no such activation.
    """
    text = f"conv({kernels}, {size}, {getattr(activation, 'name', activation)!r})"
    own = activation_of(activation, f"layer {text}")
    make: Callable[..., Conv] = partial(Convolution, activation=own)
    gradient: type[GDConv] = GDConvolution
    if isinstance(activation, str) and activation in _CONVOLUTIONS:
        make, gradient = _CONVOLUTIONS[activation]
    make = partial(make, kernels=kernels, size=size)
    return trained_layer(text, make, gradient, options, ConvOptions.__optional_keys__)
