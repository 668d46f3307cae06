"""How layers of sequences become nodes of ONNX: recurrent ones, embeddings, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.models.onnx_nodes import onnx_node
from veloflow.units.attention import SelfAttention
from veloflow.units.embedding import Embedding, MeanOverTime, PositionalEncoding
from veloflow.units.recurrent import GRU, LSTM, RNN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.devices.parameters import Parameter
    from veloflow.models.onnx_graph import OnnxGraph
    from veloflow.units.recurrence import Recurrent

__all__: list[str] = []


def _int64(graph: OnnxGraph, *values: int) -> str:
    return graph.constant(values, "int64")


def _seen(graph: OnnxGraph, lengths: str, time: int) -> str:
    """Return which steps are real: bool (batch, time)."""
    ends = graph.op("Unsqueeze", lengths, _int64(graph, 1))
    return graph.op("Less", graph.constant([[*range(time)]], "int32"), ends)


# -- recurrent layers ------------------------------------------------------------------------------


def _recurrent(
    unit: Recurrent,
    graph: OnnxGraph,
    kind: str,
    order: Sequence[int],
    *,
    recurrent_bias: Parameter | None = None,
    **more: Any,
) -> str:
    """Add a recurrent layer; ``order`` says which of our gates is each of ONNX's."""
    assert unit.weights is not None
    cells = unit.cells

    def ordered(parameter: Parameter | None) -> NDArray[Any]:
        if parameter is None:
            return np.zeros(len(order) * cells)
        blocks = np.split(np.array(parameter.value.read()), len(order))
        return np.concatenate([blocks[place] for place in order])

    bias = np.concatenate([ordered(unit.bias), ordered(recurrent_bias)])
    time = unit.input.shape[1]
    size = math.prod(unit.input.shape[2:])
    x = graph.op("Transpose", graph.reshape(graph.input(unit), (0, time, size)), perm=[1, 0, 2])
    lengths = graph.input(unit, "minibatch_lengths") if unit.is_masked else ""
    operands = [
        x,
        graph.parameter(unit.weights, ordered(unit.weights)[None]),
        graph.parameter(unit.recurrent, ordered(unit.recurrent)[None]),
        graph.constant(bias[None]),
        *([lengths] if lengths else []),
    ]
    steps, last = graph.ops(kind, *operands, outputs=2, hidden_size=cells, **more)
    if not unit.return_sequences:
        return graph.op("Squeeze", last, _int64(graph, 0))
    rows = graph.op("Transpose", steps, perm=[2, 0, 1, 3])
    return graph.op("Squeeze", rows, _int64(graph, 2))


@onnx_node(LSTM)
def _lstm(unit: LSTM, graph: OnnxGraph) -> str:
    return _recurrent(unit, graph, "LSTM", (0, 3, 1, 2))  # ours i f g o, theirs i o f c


@onnx_node(GRU)
def _gru(unit: GRU, graph: OnnxGraph) -> str:
    return _recurrent(  # ours r z n, theirs z r h
        unit, graph, "GRU", (1, 0, 2), recurrent_bias=unit.recurrent_bias, linear_before_reset=1
    )


@onnx_node(RNN)
def _rnn(unit: RNN, graph: OnnxGraph) -> str:
    return _recurrent(unit, graph, "RNN", (0,), activations=[unit.nonlinearity.capitalize()])


# -- tokens and attention --------------------------------------------------------------------------


@onnx_node(Embedding)
def _embedding(unit: Embedding, graph: OnnxGraph) -> str:
    assert unit.weights is not None
    tokens = graph.cast(graph.input(unit), "int64")
    rows = graph.op("Gather", graph.parameter(unit.weights), tokens, axis=0)
    if unit.padding is None:
        return rows
    is_padding = graph.op("Equal", tokens, graph.constant(unit.padding, "int64"))
    is_padding = graph.op("Unsqueeze", is_padding, _int64(graph, -1))
    return graph.op("Where", is_padding, graph.constant(0.0), rows)


@onnx_node(PositionalEncoding)
def _positional_encoding(unit: PositionalEncoding, graph: OnnxGraph) -> str:
    return graph.op("Add", graph.input(unit), graph.constant(unit.waves()[None]))


@onnx_node(MeanOverTime)
def _mean_over_time(unit: MeanOverTime, graph: OnnxGraph) -> str:
    x = graph.input(unit)
    if not unit.is_masked:
        return graph.op("ReduceMean", x, _int64(graph, 1), keepdims=0)
    time = unit.input.shape[1]
    lengths = graph.input(unit, "minibatch_lengths")
    seen = graph.op("Unsqueeze", _seen(graph, lengths, time), _int64(graph, 2))
    kept = graph.op("Where", seen, x, graph.constant(0.0))
    total = graph.op("ReduceSum", kept, _int64(graph, 1), keepdims=0)
    count = graph.op("Clip", graph.cast(lengths, graph.dtype), graph.constant(1.0),
                     graph.constant(float(time)))  # fmt: skip
    return graph.op("Div", total, graph.op("Unsqueeze", count, _int64(graph, 1)))


@onnx_node(SelfAttention)
def _attention(unit: SelfAttention, graph: OnnxGraph) -> str:
    assert unit.weights is not None
    assert unit.bias is not None
    _, time, size = unit.input.shape
    depth = size // unit.heads

    def mixed(x: str, weights: Parameter, bias: Parameter) -> str:
        matrix = graph.parameter(weights, np.array(weights.value.read()).T)
        return graph.op("Add", graph.op("MatMul", x, matrix), graph.parameter(bias))

    rows = mixed(graph.input(unit), unit.weights, unit.bias)
    parts = graph.ops("Split", rows, _int64(graph, size, size, size), outputs=3, axis=-1)
    q, k, v = (
        graph.op("Transpose", graph.reshape(part, (0, time, unit.heads, depth)), perm=perm)
        for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = graph.op("Mul", graph.op("MatMul", q, k), graph.constant(1 / math.sqrt(depth)))
    lowest = graph.constant(np.finfo(graph.dtype).min / 2)
    if unit.causal:
        past = graph.constant(np.tri(time, dtype=bool), bool)
        scores = graph.op("Where", past, scores, lowest)
    if unit.is_masked:
        lengths = graph.input(unit, "minibatch_lengths")
        seen = graph.op("Unsqueeze", _seen(graph, lengths, time), _int64(graph, 1, 2))
        scores = graph.op("Where", seen, scores, lowest)
    found = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
    found = graph.op("Transpose", found, perm=[0, 2, 1, 3])
    return mixed(graph.reshape(found, (0, time, size)), unit.out_weights, unit.out_bias)
