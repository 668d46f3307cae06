"""Convolutional layers: y = f(w * x + b), and their gradients (LeCun et al., 1989).

Shapes: x is (batch, height, width, channels), or (batch, height, width) with one channel; w is
(kernels, ky * kx * channels), each row in the order height, width, channel; b is (kernels,); y is
(batch, height', width', kernels) with height' = (height + top + bottom - ky) // stride + 1. As
everywhere in the field, w is not mirrored: it is a cross-correlation.

Some images at a time are unfolded into rows of patches, which stay in the cache, and multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack, final

from veloflow.devices.expressions import element
from veloflow.devices.parameters import ALIGNMENT
from veloflow.errors import GraphError, ShapeError, nearest
from veloflow.units.activation import LINEAR, RELU, SIGMOID, SOFTPLUS, TANH
from veloflow.units.filling import Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.gradient import LayerGradient
from veloflow.units.layer import DenseOptions, Layer, trained_layer
from veloflow.units.patches import FOLD, UNFOLD, Window, padding_of, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = [
    "Conv",
    "ConvLinear",
    "ConvReLU",
    "ConvSigmoid",
    "ConvSoftplus",
    "ConvTanh",
    "GDConv",
    "GDConvLinear",
    "GDConvReLU",
    "GDConvSigmoid",
    "GDConvSoftplus",
    "GDConvTanh",
    "conv",
]

#: numbers of patches that are unfolded at a time: they should stay in the second cache
_UNFOLDED = 1 << 20


class Conv(Forward):
    """A convolutional layer. An outline: subclasses name the activation.

    Args:
        kernels: how many.
        size: of a kernel, one number or (height, width).
        stride: by how much a kernel moves, one number or (height, width).
        padding: zeros around the image: one number, (y, x), or (left, top, right, bottom).
        weights_filling, bias_filling: initial values; by default uniform in +-min(1 / sqrt(ky * kx
            * channels), 0.05), as in Veles.
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
        self.window: Window
        self._launches: list[Callable[[], None]] = []

    def initialize(self) -> None:
        """Declare output, parameters and the rows of patches.

        Raises:
            ShapeError: the input is no batch of images that are large enough.
        """
        self.window = Window.over(
            self.input.shape, f"unit {self.path!r}",
            kernel=self.size, stride=self.stride, padding=self.padding,
        )  # fmt: skip
        batch = len(self.input)
        self.output = self.declare(batch, *self.window.places, self.kernels)
        self.weights = self._declare_parameter("weights", self.kernels, self.window.length)
        if self.include_bias:
            self.bias = self._declare_parameter("bias", self.kernels)
        places = math.prod(self.window.places)
        # a part of the output must begin where a device can begin a buffer
        least = ALIGNMENT // math.gcd(ALIGNMENT, places * self.kernels)
        fitting = max(1, _UNFOLDED // (places * self.window.length))
        self._together = min(batch, -(-fitting // least) * least)
        self._rows = self.declare(self._together * places, self.window.length)

    def prepare(self) -> None:
        """Fill the parameters and bind the products."""
        assert self.weights is not None
        default = min(1 / math.sqrt(self.window.length), 0.05)
        for parameter, filling, purpose in (
            (self.weights, self.weights_filling, "weights"),
            (self.bias, self.bias_filling, "bias"),
        ):
            if parameter is not None:
                random = self._random(purpose)
                parameter.value.write(filling.fill(random, parameter.shape, default))
        unfold = self.bind_unfold(self._rows)
        for first, count in self.parts():
            multiply = self.device.gemm(
                self.rows_of(self._rows, 0, count, self.window.length),
                self.weights.value,
                self.rows_of(self.output, first, count, self.kernels),
                transpose_b=True,
                bias=None if self.bias is None else self.bias.value,
                activation=self.activation.formula,
            )
            self._launches += [unfold(first, count), multiply]

    @property
    def unfolded(self) -> Array | None:
        """The patches of the whole minibatch, if they are unfolded all at once."""
        return self._rows if self._together == len(self.input) else None

    def parts(self) -> Iterator[tuple[int, int]]:
        """Yield the first sample and the number of samples that are unfolded together."""
        batch = len(self.input)
        for first in range(0, batch, self._together):
            yield first, min(self._together, batch - first)

    def rows_of(self, array: Array, first: int, count: int, length: int) -> Array:
        """Return the rows of these samples, one for each place, as a matrix."""
        places = math.prod(self.window.places)
        return self.device.view(array, first * places * length, (count * places, length))

    def bind_unfold(self, rows: Array) -> Callable[[int, int], Callable[[], None]]:
        """Return what makes launches that unfold samples into ``rows``."""
        space = (rows.shape[0], self.window.kernel[0])
        program = self.device.program(UNFOLD, {"x": self.input, "rows": rows}, space)
        return self._with_samples(program)

    def bind_fold(self, rows: Array, target: Array) -> Callable[[int, int], Callable[[], None]]:
        """Return what makes launches that fold ``rows`` back into samples of ``target``."""
        height, width, _ = self.window.image
        space = (self._together * height, width)
        return self._with_samples(self.device.program(FOLD, {"rows": rows, "x": target}, space))

    def _with_samples(self, program: Launch) -> Callable[[int, int], Callable[[], None]]:
        scalars = self.window.scalars()

        def of(first: int, count: int) -> Callable[[], None]:
            given = {"first": first, "count": count, **scalars}
            return lambda: program(**given)

        return of

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


class GDConv(LayerGradient):
    """The gradient of a convolutional layer and the update of its weights. An outline.

    With d = err_output * f'(y) and the patches of x as rows: dL/dw = d^T rows, dL/db = sum of d
    over all places, and the rows of dL/dx = d w, which are added up where they overlap.
    """

    forward: Conv
    forward_kind: ClassVar[type[Forward]] = Conv

    def initialize(self) -> None:
        """Declare ``err_input``, d and the rows of patches."""
        super().initialize()
        forward = self.forward
        count = next(forward.parts())[1] * math.prod(forward.window.places)
        self._rows = self.declare(count, forward.window.length)

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        device, forward = self.device, self.forward
        assert forward.weights is not None
        delta, launches = self._bind_delta()
        self._launches: list[Callable[[], None]] = [*launches]
        patches = self._rows if forward.unfolded is None else forward.unfolded
        unfold = forward.bind_unfold(patches)
        fold = forward.bind_fold(self._rows, self.err_input) if self.needs_err_input else None
        for first, count in forward.parts():
            own = forward.rows_of(delta, first, count, forward.kernels)
            if forward.unfolded is None:  # otherwise they are there from the forward pass
                self._launches.append(unfold(first, count))
            rows = forward.rows_of(patches, 0, count, forward.window.length)
            self._launches.append(
                device.gemm(
                    own, rows, forward.weights.gradient,
                    transpose_a=True, beta=1.0 if first else 0.0,
                )
            )  # fmt: skip
            if fold is not None:
                rows = forward.rows_of(self._rows, 0, count, forward.window.length)
                self._launches.append(device.gemm(own, forward.weights.value, rows))
                self._launches.append(fold(first, count))
        if forward.bias is not None:
            whole = forward.rows_of(delta, 0, len(delta), forward.kernels)
            self._launches.append(
                device.reduce("sum", element("d"), {"d": whole}, forward.bias.gradient, axis=0)
            )
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


# -- the short form --------------------------------------------------------------------------------


class ConvOptions(DenseOptions, total=False):
    """What a convolutional layer may be told besides: how its kernels move."""

    stride: int | Sequence[int]
    padding: int | Sequence[int]


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
    activation: Literal["linear", "tanh", "relu", "sigmoid", "softplus"] = "relu",
    **options: Unpack[ConvOptions],
) -> Layer:
    """Return a convolutional layer of so many kernels of ``size`` with this activation.

    Raises:
        GraphError: there is no such activation or option.
    """
    text = f"conv({kernels}, {size}, {activation!r})"
    if activation not in _CONVOLUTIONS:
        raise GraphError(
            f"layer {text} has no activation {activation!r}{nearest(activation, _CONVOLUTIONS)}"
        )
    forward, gradient = _CONVOLUTIONS[activation]
    make = partial(forward, kernels=kernels, size=size)
    return trained_layer(text, make, gradient, options, ConvOptions.__optional_keys__)
