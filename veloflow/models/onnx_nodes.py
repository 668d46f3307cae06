"""How each forward unit and each normalizer becomes nodes of ONNX: one table, a function a kind.

A unit of your own joins with a few lines::

    @onnx_node(Swish)
    def _swish(unit, graph):
        x = graph.input(unit)
        return graph.op("Mul", x, graph.op("Sigmoid", x))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from veloflow.errors import GraphError
from veloflow.units.activation_layer import Activate, Mul
from veloflow.units.all2all import All2All, All2AllSoftmax
from veloflow.units.convolution import Conv
from veloflow.units.deconvolution import Deconv
from veloflow.units.dropout import Dropout
from veloflow.units.joining import Concat, Join, Product, Sum
from veloflow.units.normalization import (
    Exponential,
    ExternalMean,
    InternalMean,
    Linear,
    MeanDispersion,
    NoNormalization,
    Normalizer,
    Pointwise,
    RangeLinear,
    Standard,
)
from veloflow.units.pooling import AvgPooling, MaxPooling, Pooling
from veloflow.units.splitting import Slice, Split

if TYPE_CHECKING:
    from veloflow.core import Unit
    from veloflow.models.onnx_graph import OnnxGraph
    from veloflow.units.forward import Forward

__all__ = ["add_normalizer", "add_unit", "has_onnx_node", "onnx_node"]

#: adds a unit's nodes and returns the tensor of ``output``, or of each output by attribute
UnitNode = Callable[[Any, "OnnxGraph"], "str | Mapping[str, str]"]
NormalizerNode = Callable[[Any, "OnnxGraph", str, tuple[int, ...]], str]
F = TypeVar("F", bound=Callable[..., Any])

_UNITS: dict[type[Unit], UnitNode] = {}
_NORMALIZERS: dict[type[Normalizer], NormalizerNode] = {}


def onnx_node(*kinds: type[Unit]) -> Callable[[F], F]:
    """Let the decorated function say how units of these classes become ONNX nodes.

    It is called with the unit, set up and with its parameters, and with the graph to add to
    (:class:`OnnxGraph`). It returns the tensor of the unit's ``output``, or a mapping of attributes
    to tensors. Classes derived from these are covered too.
    """

    def register(function: F) -> F:
        _UNITS.update(dict.fromkeys(kinds, function))
        return function

    return register


def _normalizer(*kinds: type[Normalizer]) -> Callable[[F], F]:
    def register(function: F) -> F:
        _NORMALIZERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def has_onnx_node(kind: type[Unit]) -> bool:
    """Return whether units of this class can be exported."""
    return any(base in _UNITS for base in kind.__mro__)


def add_unit(unit: Unit, graph: OnnxGraph) -> None:
    """Add the nodes of ``unit`` to the graph.

    Raises:
        GraphError: nobody has said how; the message names the unit.
    """
    node = next((_UNITS[kind] for kind in type(unit).__mro__ if kind in _UNITS), None)
    if node is None:
        raise GraphError(
            f"unit {unit.path!r} ({type(unit).__name__}) has no form in ONNX; "
            "register one with veloflow.models.onnx_node"
        )
    graph.begin(unit)
    result = node(unit, graph)
    found = {"output": result} if isinstance(result, str) else result
    for attribute, tensor in found.items():
        graph.outputs[unit, attribute] = tensor


def add_normalizer(normalizer: Normalizer, graph: OnnxGraph, x: str, shape: tuple[int, ...]) -> str:
    """Add a normalizer's nodes, which compute in float64 as the normalizer does.

    Args:
        normalizer: it has learned what it learns.
        graph: what to add to.
        x: the tensor of raw samples.
        shape: of one sample.

    Raises:
        GraphError: there is no form for it.
    """
    node = _NORMALIZERS.get(type(normalizer))
    if node is None:
        raise GraphError(f"normalization {normalizer.name!r} has no form in ONNX")
    if node is _unchanged:
        return x
    return graph.cast(node(normalizer, graph, graph.cast(x, "float64"), shape), graph.dtype)


# -- layers ----------------------------------------------------------------------------------------


@onnx_node(All2All)
def _dense(unit: All2All, graph: OnnxGraph) -> str:
    assert unit.weights is not None
    operands = [graph.flat(graph.input(unit)), graph.parameter(unit.weights)]
    if unit.bias is not None:
        operands.append(graph.parameter(unit.bias))
    y = graph.op("Gemm", *operands, transB=1)
    y = graph.activation(unit.activation, y, unit.weights.shape[:1])
    return y if len(unit.output_shape) == 1 else graph.reshape(y, (0, *unit.output_shape))


@onnx_node(All2AllSoftmax)
def _softmax(unit: All2AllSoftmax, graph: OnnxGraph) -> Mapping[str, str]:
    y = graph.op("Softmax", graph.flat(_dense(unit, graph)), axis=1)
    winners = graph.cast(graph.op("ArgMax", y, axis=1, keepdims=0), "int32")
    shape = (0, *unit.output_shape)
    return {"output": graph.reshape(y, shape) if len(shape) > 2 else y, "max_idx": winners}


@onnx_node(Dropout)
def _dropout(unit: Dropout, graph: OnnxGraph) -> str:
    return graph.input(unit)


@onnx_node(Activate)
def _activate(unit: Activate, graph: OnnxGraph) -> str:
    return graph.activation(unit.activation, graph.input(unit), unit.output.shape[1:])


@onnx_node(Mul)
def _mul(unit: Mul, graph: OnnxGraph) -> str:
    return graph.op("Mul", graph.input(unit), graph.constant(unit.known_factor()))


# -- graphs with branches --------------------------------------------------------------------------


def _branches(unit: Join, graph: OnnxGraph) -> list[str]:
    return [graph.input(unit, f"branch{number}") for number in range(len(unit.branch))]


@onnx_node(Sum)
def _sum(unit: Sum, graph: OnnxGraph) -> str:
    return reduce(lambda left, right: graph.op("Add", left, right), _branches(unit, graph))


@onnx_node(Product)
def _product(unit: Product, graph: OnnxGraph) -> str:
    return reduce(lambda left, right: graph.op("Mul", left, right), _branches(unit, graph))


@onnx_node(Concat)
def _concat(unit: Concat, graph: OnnxGraph) -> str:
    return graph.op("Concat", *_branches(unit, graph), axis=-1)


@onnx_node(Slice)
def _slice(unit: Slice, graph: OnnxGraph) -> str:
    ends = [unit.start], [unit.start + unit.output.shape[-1]], [-1]
    return graph.op("Slice", graph.input(unit), *(graph.constant(one, "int64") for one in ends))


@onnx_node(Split)
def _split(unit: Split, graph: OnnxGraph) -> Mapping[str, str]:
    sizes = graph.constant(unit.sizes, "int64")
    parts = graph.ops("Split", graph.input(unit), sizes, outputs=len(unit.sizes), axis=-1)
    return {f"output{number}": part for number, part in enumerate(parts)}


# -- images ----------------------------------------------------------------------------------------


def images_of(unit: Forward, graph: OnnxGraph) -> str:
    """Return the input as (batch, channels, height, width)."""
    x = graph.input(unit)
    if len(unit.input.shape) == 3:  # one channel, which is not written
        return graph.op("Unsqueeze", x, graph.constant([1], "int64"))
    return graph.channels_first(x)


@onnx_node(Conv)
def _convolution(unit: Conv, graph: OnnxGraph) -> str:
    assert unit.weights is not None
    channels = unit.window.image[2] // unit.groups
    weights = np.array(unit.weights.value.read()).reshape(unit.kernels, *unit.size, channels)
    operands = [
        images_of(unit, graph),
        graph.parameter(unit.weights, weights.transpose(0, 3, 1, 2)),
    ]
    if unit.bias is not None:
        operands.append(graph.parameter(unit.bias))
    left, top, right, bottom = unit.padding
    y = graph.op(
        "Conv", *operands,
        kernel_shape=list(unit.size), strides=list(unit.stride), pads=[top, left, bottom, right],
        group=unit.groups,
    )  # fmt: skip
    if unit.activation.name == "sincos":  # it goes by the place in the last axis
        return graph.activation(unit.activation, graph.channels_last(y), unit.output.shape[1:])
    return graph.channels_last(graph.activation(unit.activation, y, unit.output.shape[1:]))


@onnx_node(Deconv)
def _deconvolution(unit: Deconv, graph: OnnxGraph) -> str:
    assert unit.weights is not None
    channels, own = unit.weights.shape[0], unit.kernels // unit.groups
    weights = np.array(unit.weights.value.read()).reshape(channels, *unit.size, own)
    turned = weights.transpose(0, 3, 1, 2)
    operands = [images_of(unit, graph), graph.parameter(unit.weights, turned)]
    if unit.bias is not None:
        operands.append(graph.parameter(unit.bias))
    left, top, right, bottom = unit.padding
    y = graph.op(
        "ConvTranspose", *operands,
        kernel_shape=list(unit.size), strides=list(unit.stride), pads=[top, left, bottom, right],
        group=unit.groups,
    )  # fmt: skip
    y = graph.channels_last(y)
    return graph.activation(unit.activation, y, unit.output.shape[1:])


@onnx_node(MaxPooling)
def _max_pooling(unit: MaxPooling, graph: OnnxGraph) -> str:
    y = graph.op("MaxPool", images_of(unit, graph), **pooled(unit))
    return graph.channels_last(y)


@onnx_node(AvgPooling)
def _avg_pooling(unit: AvgPooling, graph: OnnxGraph) -> str:
    y = graph.op("AveragePool", images_of(unit, graph), count_include_pad=0, **pooled(unit))
    return graph.channels_last(y)


def pooled(unit: Pooling) -> dict[str, Any]:
    """Return how windows move; those that are partial at the end reach into padding."""
    window = unit.window
    beyond = [
        max(0, (places - 1) * stride + kernel - size)
        for places, stride, kernel, size in zip(
            window.places, window.stride, window.kernel, window.image[:2], strict=True
        )
    ]
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": [0, 0, *beyond],
    }


# -- normalizers, in float64 -----------------------------------------------------------------------


@_normalizer(NoNormalization)
def _unchanged(
    normalizer: NoNormalization, graph: OnnxGraph, x: str, shape: tuple[int, ...]
) -> str:
    return x


@_normalizer(RangeLinear, Pointwise, MeanDispersion, Standard, InternalMean, ExternalMean)
def _learned(normalizer: Normalizer, graph: OnnxGraph, x: str, shape: tuple[int, ...]) -> str:
    """Each of these is y = x factor + offset, so what becomes of 0 and of 1 tells both."""
    offset = normalizer.normalize(np.zeros((1, *shape)))[0]
    factor = normalizer.normalize(np.ones((1, *shape)))[0] - offset
    y = x
    for kind, values in (("Mul", factor), ("Add", offset)):
        is_one = values.size and (values == values.flat[0]).all()
        y = graph.op(kind, y, graph.constant(values.flat[0] if is_one else values, "float64"))
    return y


@_normalizer(Linear)
def _each_by_itself(normalizer: Linear, graph: OnnxGraph, x: str, shape: tuple[int, ...]) -> str:
    flat = graph.flat(x)
    low, high = (
        graph.op(kind, flat, graph.constant([1], "int64"), keepdims=1)
        for kind in ("ReduceMin", "ReduceMax")
    )
    start, stop = normalizer.interval
    spread = graph.op("Sub", high, low)
    is_flat = graph.op("Equal", spread, graph.constant(0.0, "float64"))
    divisor = graph.op("Where", is_flat, graph.constant(1.0, "float64"), spread)
    factor = graph.op("Div", graph.constant(stop - start, "float64"), divisor)
    moved = graph.op("Mul", graph.op("Sub", flat, low), factor)
    mapped = graph.op("Add", moved, graph.constant(start, "float64"))
    middle = graph.constant((start + stop) / 2, "float64")
    return _shaped_as(graph, graph.op("Where", is_flat, middle, mapped), x)


@_normalizer(Exponential)
def _exponential(normalizer: Exponential, graph: OnnxGraph, x: str, shape: tuple[int, ...]) -> str:
    return _shaped_as(graph, graph.op("Softmax", graph.flat(x), axis=1), x)


def _shaped_as(graph: OnnxGraph, x: str, like: str) -> str:
    return graph.op("Reshape", x, graph.op("Shape", like))
