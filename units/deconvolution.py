"""Transposed convolutions: y = f(the adjoint of a convolution, applied to x, + b).

Shapes: x is (batch, height, width, channels), or (batch, height, width) with one channel; w is
(channels, ky * kx * kernels / groups), as a convolution from y to x has it; b is (kernels,); y is
(batch, height', width', kernels) with height' = (height - 1) * stride + ky - top - bottom. Each
value of x adds itself times its kernel to a window of y (Zeiler et al., 2010).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Unpack, final

from veloflow.devices.expressions import Expression, element
from veloflow.errors import ShapeError
from veloflow.units.activation import LINEAR, Activation, activation_of
from veloflow.units.convolution import ConvOptions
from veloflow.units.filling import Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.gradient import LayerGradient
from veloflow.units.layer import Layer, trained_layer
from veloflow.units.patches import Window, padding_of, pair

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = ["Deconv", "GDDeconv", "deconv"]


@final
class Deconv(Forward):
    """A transposed convolution, the way back of a convolution's gradient, as a layer.

    Args:
        kernels: how many channels the output has.
        size: of a kernel, one number or (height, width).
        activation: one of :data:`~veloflow.units.activation.ACTIVATIONS` or its name.
        stride: by how much windows of the output lie apart, one number or (height, width).
        padding: what is cut off the output: one number, (y, x), or (left, top, right, bottom).
        groups: the kernels of each group see the channels of that group alone.
        weights_filling, bias_filling: initial values; by default uniform in +-min(1 / sqrt(ky * kx
            * channels / groups), 0.05).
        include_bias: whether there is a bias.

    Attributes:
        window: how windows move over the output, after ``initialize``.
    """

    def __init__(
        self,
        workflow: Workflow,
        kernels: int,
        size: int | Sequence[int],
        activation: str | Activation = LINEAR,
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
        what = f"unit {self.path!r}"
        if kernels < 1:
            raise ShapeError(f"{what}: {kernels} kernels; give at least one")
        self.kernels = kernels
        self.size = pair(size, f"{what}: size")
        self.stride = pair(stride, f"{what}: stride")
        self.padding = padding_of(padding, f"{what}: padding")
        self.groups = groups
        self.activation = activation_of(activation, what)
        self.weights_filling = Uniform() if weights_filling is None else weights_filling
        self.bias_filling = self.weights_filling if bias_filling is None else bias_filling
        self.include_bias = include_bias
        self.window: Window
        self._launches: list[Launch] = []

    def initialize(self) -> None:
        """Declare output and parameters.

        Raises:
            ShapeError: the input is no batch of images, nothing would be left of the output, or
                channels and kernels do not divide into the groups.
        """
        what, shape = f"unit {self.path!r}", self.input.shape
        if len(shape) not in (3, 4):
            raise ShapeError(f"{what} takes images, and its input has shape {shape}")
        batch, height, width, channels = (*shape, 1)[:4]
        if self.groups < 1 or channels % self.groups or self.kernels % self.groups:
            raise ShapeError(
                f"{what}: {channels} channels and {self.kernels} kernels do not divide into "
                f"{self.groups} groups"
            )
        left, top, right, bottom = self.padding
        image = (
            (height - 1) * self.stride[0] + self.size[0] - top - bottom,
            (width - 1) * self.stride[1] + self.size[1] - left - right,
            self.kernels,
        )
        if min(image) < 1:
            raise ShapeError(f"{what}: the padding {self.padding} leaves {image} of the output")
        self.window = Window(image, self.size, self.stride, self.padding)
        self.output = self.declare(batch, *image)
        length = self.window.length // self.groups
        self.weights = self._declare_parameter("weights", channels, length)
        if self.include_bias:
            self.bias = self._declare_parameter("bias", self.kernels)
        if self.activation.needs_input:
            self.sums = self.declare(*self.output.shape)

    def prepare(self) -> None:
        """Fill the parameters and bind the launches."""
        assert self.weights is not None
        seen = math.prod(self.size) * self.weights.shape[0] // self.groups
        default = min(1 / math.sqrt(seen), 0.05)
        shape = (self.weights.shape[0], *self.size, self.kernels // self.groups)
        self._fill_parameter(self.weights, self.weights_filling, default, shape)
        self._fill_parameter(self.bias, self.bias_filling, default)
        sums = self.output if self.sums is None else self.sums
        adjoint = self.device.convolution_gradient(
            self.input, sums, self.weights.value, self.window,
            groups=self.groups, input_gradient=sums,
        )  # fmt: skip
        self._launches = [adjoint, *self._finish(sums)]

    def _finish(self, sums: Array) -> list[Launch]:
        """Return the launch that adds the bias and applies the activation, if there are any."""
        places = (sums.size // self.kernels, self.kernels)
        arrays = {"s": self.device.view(sums, 0, places)}
        value: Expression = element("s")
        if self.bias is not None:
            value = value + element("b")
            arrays["b"] = self.bias.value.reshape(1, self.kernels)
        formulas = {"s": value}
        if self.activation.forward is not None:
            target = "s" if self.sums is None else "y"
            formulas[target] = self.activation.forward(value)
            arrays[target] = self.device.view(self.output, 0, places)
        is_needed = self.bias is not None or self.activation.forward is not None
        return [self.device.elementwise(formulas, arrays)] if is_needed else []

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class GDDeconv(LayerGradient):
    """The gradient of a transposed convolution and the update of its weights.

    With d = err_output * f': dL/dx is the convolution of d, dL/dw that of x as errors and d as
    images, and dL/db the sum of d over all places.
    """

    forward: Deconv
    forward_kind: ClassVar[type[Forward]] = Deconv

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        device, forward = self.device, self.forward
        assert forward.weights is not None
        delta, launches = self._bind_delta()
        weights, window, groups = forward.weights, forward.window, forward.groups
        if self.needs_err_input:
            launches.append(
                device.convolution(delta, weights.value, self.err_input, window, groups=groups)
            )
        launches.append(
            device.convolution_gradient(
                forward.input, delta, weights.value, window,
                groups=groups, weights_gradient=weights.gradient,
            )
        )  # fmt: skip
        if forward.bias is not None:
            rows = device.view(delta, 0, (delta.size // forward.kernels, forward.kernels))
            launches.append(
                device.reduce("sum", element("d"), {"d": rows}, forward.bias.gradient, axis=0)
            )
        self._launches = launches
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


def deconv(
    kernels: int,
    size: int | Sequence[int],
    activation: str | Activation = "linear",
    **options: Unpack[ConvOptions],
) -> Layer:
    """Return a transposed convolution with so many channels of output.

    Raises:
        GraphError: there is no such option.
        InputError: there is no such activation.
    """
    text = f"deconv({kernels}, {size}, {getattr(activation, 'name', activation)!r})"
    own = activation_of(activation, f"layer {text}")
    make = partial(Deconv, kernels=kernels, size=size, activation=own)
    return trained_layer(text, make, GDDeconv, options, ConvOptions.__optional_keys__)
