"""Layer normalisation: each sample by its own mean and variance (Ba, Kiros, Hinton, 2016).

y = (x - mean) / sqrt(variance + epsilon) * scale + shift, mean and variance being over the last
``axes`` axes; scale and shift have the shape of these axes.

Shapes: x and y are (batch, ..., *normalized).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypedDict, Unpack, final

import numpy as np

from veloflow.devices.expressions import element, sqrt
from veloflow.errors import InputError, ShapeError
from veloflow.units.forward import Forward
from veloflow.units.gradient import GradientUnit
from veloflow.units.layer import Layer, Rates, trained_layer

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = ["GDLayerNorm", "LayerNorm", "layer_norm"]


class NormOptions(TypedDict, total=False):
    """What a normalising layer may be told."""

    epsilon: float
    affine: bool
    name: str | None


class Norm(Forward):
    """A layer that normalises, then scales and shifts: ``weights`` and ``bias``. An outline.

    Args:
        epsilon: is added to the variance.
        affine: whether there are scale and shift; they begin with 1 and 0.

    Attributes:
        normalized: (x - mean) / sqrt(variance + epsilon), of the input's shape.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        epsilon: float = 1e-5,
        affine: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if not epsilon > 0:
            raise InputError(f"unit {self.path!r}: epsilon is {epsilon}; give a number above 0")
        self.epsilon = epsilon
        self.affine = affine
        self.normalized: Array

    def _declare_all(self, *normalized: int) -> None:
        """Declare arrays, and scale and shift of the shape ``normalized``."""
        self.output = self.declare(*self.input.shape)
        self.normalized = self.declare(*self.input.shape)
        if self.affine:
            self.weights = self._declare_parameter("scale", *normalized)
            self.bias = self._declare_parameter("shift", *normalized)

    def _begin(self) -> None:
        if self.weights is not None and self.bias is not None:
            self.weights.value.write(np.ones(self.weights.shape))
            self.bias.value.write(0.0)

    def row(self, array: Array) -> Array:
        """Return an array of one number a column as a row."""
        return array.reshape(1, array.size)

    @abstractmethod
    def matrix(self, array: Array) -> Array:
        """Return an array of the input's shape as (rows, columns that have a scale each)."""


@final
class LayerNorm(Norm):
    """Layer normalisation, the same in training and in use.

    Args:
        axes: over how many of the last axes; 1 is that of transformers.
        epsilon, affine: as :class:`Norm` says.
    """

    def __init__(self, workflow: Workflow, axes: int = 1, **more: Unpack[NormOptions]) -> None:
        super().__init__(workflow, **more)
        self.axes = axes
        self.deviation: Array
        self._launches: list[Launch] = []

    def initialize(self) -> None:
        """Declare output, scale and shift.

        Raises:
            ShapeError: the input has not so many axes.
        """
        shape = self.input.shape
        if not 1 <= self.axes < len(shape):
            raise ShapeError(
                f"unit {self.path!r}: axes is {self.axes}, and an input of shape {shape} has from "
                f"1 to {len(shape) - 1} to normalise over"
            )
        self._declare_all(*shape[-self.axes :])
        rows = math.prod(shape[: -self.axes])
        self._sums, self._squares = self.declare(rows), self.declare(rows)
        self.deviation = self.declare(rows)

    def matrix(self, array: Array) -> Array:
        """Return an array as (rows that are normalised, numbers of a row)."""
        return array.reshape(len(self._sums), array.size // len(self._sums))

    def prepare(self) -> None:
        """Bind sums and formulas."""
        self._begin()
        x, n = element("x"), self.input.size // len(self._sums)
        source = self.matrix(self.input)
        centred = x - element("sum") * (1 / n)
        arrays = {"x": source, "sum": self._sums, "squares": self._squares}
        inverse = 1 / sqrt(element("squares") * (1 / n) + self.epsilon)
        formulas = {"normalized": centred * element("inverse")}
        arrays["inverse"] = self.deviation
        arrays["normalized"] = self.matrix(self.normalized)
        arrays["y"] = self.matrix(self.output)
        formulas["y"] = formulas["normalized"]
        if self.weights is not None and self.bias is not None:
            formulas["y"] = formulas["y"] * element("scale") + element("shift")
            arrays["scale"] = self.row(self.weights.value)
            arrays["shift"] = self.row(self.bias.value)
        device = self.device
        small = {"squares": self._squares, "inverse": self.deviation}
        self._launches = [
            device.reduce("sum", x, {"x": source}, self._sums, axis=1),
            device.reduce(
                "sum", centred * centred, {"x": source, "sum": self._sums}, self._squares, axis=1
            ),
            device.elementwise({"inverse": inverse}, small),
            device.elementwise(formulas, arrays),
        ]

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


class GDNorm(GradientUnit):
    """The gradient of a normalising layer, and the update of scale and shift. An outline."""

    forward: Norm
    forward_kind: ClassVar[type[Forward]] = Norm

    def _bind_parameters(self) -> list[Launch]:
        """Bind dL/dscale = sum of err * normalized over the rows, and dL/dshift = sum of err."""
        forward = self.forward
        if forward.weights is None or forward.bias is None:
            return []
        arrays = {"e": forward.matrix(self.err_output), "n": forward.matrix(forward.normalized)}
        product = element("e") * element("n")
        device = self.device
        return [
            device.reduce("sum", product, arrays, forward.weights.gradient, axis=0),
            device.reduce("sum", element("e"), {"e": arrays["e"]}, forward.bias.gradient, axis=0),
        ]


@final
class GDLayerNorm(GDNorm):
    """The gradient of :class:`LayerNorm`.

    With g = err * scale, and means over a row: dL/dx = (g - mean of g - n * mean of g n) / sqrt(
    variance + epsilon), n being the normalised x.
    """

    forward: LayerNorm
    forward_kind = LayerNorm

    def initialize(self) -> None:
        """Declare ``err_input``, the velocities and sums of rows."""
        super().initialize()
        rows = len(self.forward.deviation)
        self._sums, self._products = self.declare(rows), self.declare(rows)

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        forward, device = self.forward, self.device
        self._launches = self._bind_parameters()
        if self.needs_err_input:
            n = element("n")
            count = self.err_output.size // len(self._sums)
            arrays = {"e": forward.matrix(self.err_output), "n": forward.matrix(forward.normalized)}
            g = element("e")
            if forward.weights is not None:
                g = g * element("scale")
                arrays["scale"] = forward.row(forward.weights.value)
            only = {name: array for name, array in arrays.items() if name != "n"}
            back = g - element("sum") * (1 / count) - n * (element("product") * (1 / count))
            self._launches += [
                device.reduce("sum", g, only, self._sums, axis=1),
                device.reduce("sum", g * n, arrays, self._products, axis=1),
                device.elementwise(
                    {"target": back * element("inverse")},
                    {
                        **arrays, "sum": self._sums, "product": self._products,
                        "inverse": forward.deviation, "target": forward.matrix(self.err_input),
                    },
                ),
            ]  # fmt: skip
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


class NormLayerOptions(NormOptions, Rates, total=False):
    """What a normalising layer of the short form may be told: its own rates besides."""


def layer_norm(axes: int = 1, **options: Unpack[NormLayerOptions]) -> Layer:
    """Return a layer that normalises each sample over its last ``axes`` axes."""
    make = partial(LayerNorm, axes=axes)
    known = NormLayerOptions.__optional_keys__
    return trained_layer(f"layer_norm({axes})", make, GDLayerNorm, options, known)
