"""ONNX nodes of depooling, of self-organizing maps and of restricted Boltzmann machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from veloflow.errors import GraphError
from veloflow.models.onnx_nodes import images_of, onnx_node, pooled
from veloflow.units.depooling import Depooling
from veloflow.units.kohonen import Kohonen
from veloflow.units.picking import MaxAbsPooling
from veloflow.units.pooling import MaxPooling, Pooling
from veloflow.units.rbm import RBM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from veloflow.models.onnx_graph import OnnxGraph

__all__: list[str] = []


@onnx_node(Depooling)
def _depooling(unit: Depooling, graph: OnnxGraph) -> str:
    """Values are added at their winners' places and divided by how many windows each has won.

    It is no MaxUnpool, which writes one value over the other where windows overlap.
    """
    height, width, channels = unit.pooling.window.image
    places = _winning_places(unit.pooling, graph)
    x = images_of(unit, graph)
    if len(unit.input.shape) == 3:
        channels = 1
    rows = graph.reshape(x, (0, channels, -1))
    shape = graph.op("Shape", graph.op("ReduceSum", rows, graph.constant([2], "int64")))
    sizes = graph.op("Concat", graph.op("Slice", shape, *_first_two(graph)),
                     graph.constant([height * width], "int64"), axis=0)  # fmt: skip
    zeros = graph.op("Expand", graph.constant(0.0), sizes)
    ones = graph.op("Expand", graph.constant(1.0), graph.op("Shape", rows))
    total, wins = (
        graph.op("ScatterElements", zeros, places, one, axis=2, reduction="add")
        for one in (rows, ones)
    )
    y = graph.op("Div", total, graph.op("Max", wins, graph.constant(1.0)))
    y = graph.reshape(y, (0, channels, height, width))
    if len(unit.output.shape) == 3:
        return graph.op("Squeeze", y, graph.constant([1], "int64"))
    return graph.channels_last(y)


def _first_two(graph: OnnxGraph) -> list[str]:
    return [graph.constant([0], "int64"), graph.constant([2], "int64")]


def _winning_places(pooling: Pooling, graph: OnnxGraph) -> str:
    """Return which place of its channel each window takes, int64 (batch, channels, windows)."""
    if not isinstance(pooling, MaxPooling | MaxAbsPooling):
        raise GraphError(f"unit {pooling.path!r} picks by chance in use too, which ONNX cannot say")
    height, width, channels = pooling.window.image
    x = images_of(pooling, graph)
    if isinstance(pooling, MaxAbsPooling):
        x = graph.op("Abs", x)
    _, winners = graph.ops("MaxPool", x, outputs=2, **pooled(pooling))
    # they are numbered through the whole minibatch
    own = graph.op("Mod", winners, graph.constant(height * width, "int64"))
    return graph.reshape(own, (0, channels, -1))


@onnx_node(Kohonen)
def _kohonen(unit: Kohonen, graph: OnnxGraph) -> Mapping[str, str]:
    """The nearest neuron has the largest x w - |w|^2 / 2."""
    assert unit.weights is not None
    weights = np.array(unit.weights.value.read())
    norms = graph.constant(-0.5 * np.square(weights.astype(np.float64)).sum(axis=1))
    w = graph.parameter(unit.weights)
    nearness = graph.op("Gemm", graph.flat(graph.input(unit)), w, norms, transB=1)
    winners = graph.op("ArgMax", nearness, axis=1, keepdims=0)
    y = graph.reshape(graph.op("Gather", w, winners, axis=0), (0, *unit.input.shape[1:]))
    return {"output": y, "winners": graph.cast(winners, "int32")}


@onnx_node(RBM)
def _rbm(unit: RBM, graph: OnnxGraph) -> Mapping[str, str]:
    """What is drawn goes by the sample's place in the epoch; p(h | v) does not."""
    if unit.draw_input:
        raise GraphError(f"unit {unit.path!r} draws its input by chance, which ONNX cannot say")
    assert unit.weights is not None
    assert unit.bias is not None
    operands = [graph.flat(graph.input(unit)), *map(graph.parameter, (unit.weights, unit.bias))]
    return {"hidden_probabilities": graph.op("Sigmoid", graph.op("Gemm", *operands, transB=1))}
