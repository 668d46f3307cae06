"""Decoders of auto-encoders with tied weights: they use those of their encoders, transposed.

Dense: y = f(x W + b), W being the (neurons, inputs) of a fully connected layer, the encoder, that
made f(x' W^T + b'). Shapes: x is (batch, neurons) or (batch, ...); y is like the encoder's input.
With d = err_output * f': dL/dW = x^T d, which is added to the encoder's own gradient; dL/db = sum
of d over the batch; dL/dx = d W^T. Vincent et al., "Stacked denoising autoencoders" (2010).

Convolutional: y = f(w^T x), each value of x adding its kernel to the image y where the convolution
had looked; what Veles called deconvolution. With d as above: dL/dw is what a convolution of d would
have for the error x, and dL/dx is the convolution of d. Masci et al., "Stacked convolutional
auto-encoders" (2011).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Unpack, final

from veloflow.devices.expressions import element
from veloflow.errors import ShapeError
from veloflow.units.activation import LINEAR, Activation, activation_of
from veloflow.units.all2all import All2All
from veloflow.units.convolution import Conv
from veloflow.units.filling import Constant, Filling
from veloflow.units.forward import Forward
from veloflow.units.gradient import LayerGradient
from veloflow.units.layer import Layer, Rates, trained_layer, unit_named

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices import Launch

__all__ = ["GDTied", "GDTiedConv", "Tied", "TiedConv", "tied", "tied_conv"]


@final
class Tied(Forward):
    """A fully connected layer with the transposed weights of another.

    Args:
        encoder: the other.
        activation: f, one of :data:`~veloflow.units.activation.ACTIVATIONS` or its name.
        bias_filling: initial values of the layer's own bias, by default 0.
        include_bias: whether there is one.
    """

    def __init__(
        self,
        workflow: Workflow,
        encoder: All2All,
        activation: str | Activation = LINEAR,
        *,
        bias_filling: Filling | None = None,
        include_bias: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.encoder = encoder
        self.activation = activation_of(activation, f"unit {self.path!r}")
        self.bias_filling = Constant(0.0) if bias_filling is None else bias_filling
        self.include_bias = include_bias
        self._launches: list[Launch] = []

    def initialize(self) -> None:
        """Declare output, bias and the part of the gradient.

        Raises:
            ShapeError: the input is not of the size of the encoder's output.
        """
        sample = self.encoder.input.shape[1:]
        neurons, inputs = math.prod(self.encoder.output_shape), math.prod(sample)
        if math.prod(self.input.shape[1:]) != neurons:
            raise ShapeError(
                f"unit {self.path!r}: its input has shape {self.input.shape}, and "
                f"{self.encoder.path!r} has {neurons} neurons"
            )
        self.output = self.declare(len(self.input), *sample)
        self.weights = self._borrow(self.encoder, "weights", (neurons, inputs))
        if self.include_bias:
            self.bias = self._declare_parameter("bias", inputs)
        if self.activation.needs_input:
            self.sums = self.declare(*self.output.shape)

    def prepare(self) -> None:
        """Fill the bias and bind the multiplication."""
        assert self.weights is not None
        self._fill_parameter(self.bias, self.bias_filling, 0.0)
        formula = self.activation.formula
        is_apart = self.sums is not None and formula is not None
        self._launches = [
            self.device.gemm(
                self.input,
                self.weights.value,
                self.sums if self.sums is not None else self.output,
                bias=None if self.bias is None else self.bias.value,
                activation=None if is_apart else formula,
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
class GDTied(LayerGradient):
    """The gradient of :class:`Tied`; the encoder's gradient unit moves the weights, later."""

    forward: Tied
    forward_kind: ClassVar[type[Forward]] = Tied

    def prepare(self) -> None:
        """Bind the gradients and the update of the bias."""
        device, forward = self.device, self.forward
        assert forward.weights is not None
        delta, launches = self._bind_delta()
        if self.needs_err_input:
            back = device.gemm(delta, forward.weights.value, self.err_input, transpose_b=True)
            launches.append(back)
        launches.append(
            device.gemm(forward.input, delta, forward.weights.gradient, transpose_a=True)
        )
        if forward.bias is not None:
            launches.append(
                device.reduce("sum", element("d"), {"d": delta}, forward.bias.gradient, axis=0)
            )
        self._launches = tuple(launches)
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


@final
class TiedConv(Forward):
    """The transpose of a convolution, with its weights and without a bias.

    Shapes: x is of the shape of the convolution's output, y of that of its input.

    Args:
        encoder: the convolution.
        activation: f, one of :data:`~veloflow.units.activation.ACTIVATIONS` or its name.
    """

    def __init__(
        self,
        workflow: Workflow,
        encoder: Conv,
        activation: str | Activation = LINEAR,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.encoder = encoder
        self.activation = activation_of(activation, f"unit {self.path!r}")
        self._launches: list[Launch] = []

    def initialize(self) -> None:
        """Declare output and the part of the gradient.

        Raises:
            ShapeError: the input is not of the shape of the encoder's output.
        """
        if self.input.shape != self.encoder.output.shape:
            raise ShapeError(
                f"unit {self.path!r}: its input has shape {self.input.shape}, and the output of "
                f"{self.encoder.path!r} has {self.encoder.output.shape}"
            )
        weights = self.encoder.weights
        assert weights is not None
        self.output = self.declare(*self.encoder.input.shape)
        self.weights = self._borrow(self.encoder, "weights", weights.shape)
        if not self.activation.is_linear:
            self.sums = self.declare(*self.output.shape)

    def prepare(self) -> None:
        """Bind the way back of the convolution."""
        encoder, formula = self.encoder, self.activation.formula
        assert self.weights is not None
        target = self.output if self.sums is None else self.sums
        self._launches = [
            self.device.convolution_gradient(
                self.input,
                encoder.input,
                self.weights.value,
                encoder.window,
                groups=encoder.groups,
                input_gradient=target,
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
class GDTiedConv(LayerGradient):
    """The gradient of :class:`TiedConv`; the encoder's gradient unit moves the weights, later."""

    forward: TiedConv
    forward_kind: ClassVar[type[Forward]] = TiedConv

    def prepare(self) -> None:
        """Bind the gradients."""
        forward, device = self.forward, self.device
        encoder, weights = forward.encoder, forward.weights
        assert weights is not None
        delta, self._launches = self._bind_delta()
        self._launches.append(
            device.convolution_gradient(
                forward.input,
                delta,
                weights.value,
                encoder.window,
                groups=encoder.groups,
                weights_gradient=weights.gradient,
            )
        )
        if self.needs_err_input:
            self._launches.append(
                device.convolution(
                    delta, weights.value, self.err_input, encoder.window, groups=encoder.groups
                )
            )
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


class TiedOptions(Rates, total=False):
    """What a tied layer may be told: its bias's own rates, and how it begins."""

    bias_filling: Filling
    include_bias: bool
    name: str


def tied(
    encoder: str, activation: str | Activation = "linear", **options: Unpack[TiedOptions]
) -> Layer:
    """Return a decoding layer with the weights of the layer named ``encoder``, transposed."""
    text = f"tied({encoder!r})"
    activation = activation_of(activation, f"layer {text}")

    def make(wf: Workflow, **own: Unpack[TiedOptions]) -> Tied:
        unit = unit_named(wf, encoder, All2All, f"layer {text}")
        return Tied(wf, unit, activation, **own)  # type: ignore[misc] # rates are taken out

    return trained_layer(text, make, GDTied, options, TiedOptions.__optional_keys__)


def tied_conv(
    encoder: str, activation: str | Activation = "linear", *, name: str | None = None
) -> Layer:
    """Return a layer that transposes the convolution named ``encoder``, with its weights."""
    text = f"tied_conv({encoder!r})"
    activation = activation_of(activation, f"layer {text}")

    def make(wf: Workflow) -> TiedConv:
        unit = unit_named(wf, encoder, Conv, f"layer {text}")
        return TiedConv(wf, unit, activation, name=name)

    return Layer(text, make, GDTiedConv)
