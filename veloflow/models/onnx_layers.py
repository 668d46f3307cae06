"""ONNX nodes of normalisation, of pooling that picks, of decoders and of what cuts images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from veloflow.errors import GraphError
from veloflow.models.onnx_nodes import images_of, onnx_node, pooled
from veloflow.units.batch_norm import BatchNorm
from veloflow.units.cutter import Cutter
from veloflow.units.layer_norm import LayerNorm
from veloflow.units.local_response import LocalResponse
from veloflow.units.picking import MaxAbsPooling, Stochastic
from veloflow.units.tied import Tied, TiedConv
from veloflow.units.zero_filter import ZeroFilter

if TYPE_CHECKING:
    from veloflow.models.onnx_graph import OnnxGraph

__all__: list[str] = []


@onnx_node(BatchNorm)
def _batch_norm(unit: BatchNorm, graph: OnnxGraph) -> str:
    """With the running mean and variance each channel is x factor + offset."""
    state = {name: np.asarray(one, np.float64) for name, one in unit.state().items()}
    factor = 1 / np.sqrt(state["running_variance"] + unit.epsilon)
    offset = -state["running_mean"] * factor
    if unit.weights is not None and unit.bias is not None:
        scale = np.asarray(unit.weights.value.read(), np.float64)
        shift = np.asarray(unit.bias.value.read(), np.float64)
        factor, offset = factor * scale, offset * scale + shift
    y = graph.op("Mul", graph.input(unit), graph.constant(factor))
    return graph.op("Add", y, graph.constant(offset))


@onnx_node(LayerNorm)
def _layer_norm(unit: LayerNorm, graph: OnnxGraph) -> str:
    shape = unit.input.shape[-unit.axes :]
    scale = (
        graph.constant(np.ones(shape)) if unit.weights is None else graph.parameter(unit.weights)
    )
    operands = [graph.input(unit), scale]
    if unit.bias is not None:
        operands.append(graph.parameter(unit.bias))
    return graph.op("LayerNormalization", *operands, axis=-unit.axes, epsilon=unit.epsilon)


@onnx_node(LocalResponse)
def _local_response(unit: LocalResponse, graph: OnnxGraph) -> str:
    """ONNX has channels second, and divides alpha by n."""
    last = len(unit.input.shape) - 1
    first = [0, last, *range(1, last)]
    back = [0, *range(2, last + 1), 1]
    y = graph.op(
        "LRN", graph.op("Transpose", graph.input(unit), perm=first),
        alpha=unit.alpha * unit.n, beta=unit.beta, bias=unit.k, size=unit.n,
    )  # fmt: skip
    return graph.op("Transpose", y, perm=back)


@onnx_node(MaxAbsPooling)
def _max_abs_pooling(unit: MaxAbsPooling, graph: OnnxGraph) -> str:
    x = images_of(unit, graph)
    high = graph.op("MaxPool", x, **pooled(unit))
    low = graph.op("MaxPool", graph.op("Neg", x), **pooled(unit))
    is_high = graph.op("GreaterOrEqual", high, low)
    return graph.channels_last(graph.op("Where", is_high, high, graph.op("Neg", low)))


@onnx_node(Stochastic)
def _stochastic_pooling(unit: Stochastic, graph: OnnxGraph) -> str:
    """The mean of w x divided by the mean of w; the plain mean where all w are 0."""
    if unit.picks_always:
        raise GraphError(f"unit {unit.path!r} picks by chance in use too, which ONNX cannot say")
    x = images_of(unit, graph)
    weights = graph.op("Abs" if unit.is_absolute else "Relu", x)
    plain, total, sums = (
        graph.op("AveragePool", one, count_include_pad=0, **pooled(unit))
        for one in (x, weights, graph.op("Mul", weights, x))
    )
    is_empty = graph.op("Equal", total, graph.constant(0.0))
    divisor = graph.op("Where", is_empty, graph.constant(1.0), total)
    y = graph.op("Where", is_empty, plain, graph.op("Div", sums, divisor))
    return graph.channels_last(y)


@onnx_node(Cutter)
def _cutter(unit: Cutter, graph: OnnxGraph) -> str:
    left, top, _, _ = unit.border
    height, width = unit.output.shape[1:3]
    ends = [top, left], [top + height, left + width], [1, 2]
    return graph.op("Slice", graph.input(unit), *(graph.constant(one, "int64") for one in ends))


@onnx_node(ZeroFilter)
def _zero_filter(unit: ZeroFilter, graph: OnnxGraph) -> str:
    return graph.input(unit)


@onnx_node(Tied)
def _tied(unit: Tied, graph: OnnxGraph) -> str:
    assert unit.weights is not None
    operands = [graph.flat(graph.input(unit)), graph.parameter(unit.weights)]
    if unit.bias is not None:
        operands.append(graph.parameter(unit.bias))
    sample = unit.output.shape[1:]
    y = graph.activation(unit.activation, graph.op("Gemm", *operands), unit.weights.shape[1:])
    return y if len(sample) == 1 else graph.reshape(y, (0, *sample))


@onnx_node(TiedConv)
def _tied_conv(unit: TiedConv, graph: OnnxGraph) -> str:
    encoder, weights = unit.encoder, unit.weights
    assert weights is not None
    window = encoder.window
    kernels = np.array(weights.value.read()).reshape(encoder.kernels, *encoder.size, -1)
    left, top, _, _ = window.padding
    # what the windows reach over, and what of it is the image
    ends = [
        (places - 1) * stride + kernel - before
        for places, stride, kernel, before in zip(
            window.places, window.stride, window.kernel, (top, left), strict=True
        )
    ]
    height, width = window.image[:2]
    over = [size - end for size, end in zip((height, width), ends, strict=True)]
    y = graph.op(
        "ConvTranspose", graph.channels_first(graph.input(unit)),
        graph.parameter(weights, kernels.transpose(0, 3, 1, 2)),
        kernel_shape=list(encoder.size), strides=list(encoder.stride), group=encoder.groups,
        pads=[top, left, max(0, -over[0]), max(0, -over[1])],
    )  # fmt: skip
    if max(over) > 0:  # no window had looked at the last rows or columns
        beyond = [0, 0, 0, 0, 0, 0, max(0, over[0]), max(0, over[1])]
        y = graph.op("Pad", y, graph.constant(beyond, "int64"))
    y = graph.channels_last(y)
    y = graph.activation(unit.activation, y, (height, width, window.image[2]))
    return graph.reshape(y, (0, *unit.output.shape[1:]))
