"""Multi-head self-attention (Vaswani et al., 2017), causal or not, with sequences that end early.

Shapes: x and y are (batch, time, size); there are h heads of d = size / h numbers each. Weights W
(3 size, size) and bias b (3 size,) give queries, keys and values, in torch's order; output weights
V (size, size) and output bias c (size,) mix what the heads have found:

    q, k, v = x W^T + b                      each (batch, time, size), head by head
    p = softmax(q k^T / sqrt(d))             over the steps that may be seen, in each head
    y = (p v) V^T + c
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, final

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array, Program
from veloflow.devices.expressions import element
from veloflow.errors import ShapeError
from veloflow.units.filling import Constant, Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.gradient import GradientUnit
from veloflow.units.layer import Layer, Rates, trained_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch
    from veloflow.devices.parameters import Parameter

    Floats = NDArray[np.floating[Any]]
    Lengths = NDArray[np.int32]

__all__ = ["GDSelfAttention", "SelfAttention", "attention"]

_SCALARS: tuple[Any, ...] = (
    ("batch", "int"), ("time", "int"), ("heads", "int"), ("depth", "int"), ("causal", "int"),
    ("scale", "real"),
)  # fmt: skip

_PARAMETERS = (
    "const int batch, const int time, const int heads, const int depth, const int causal, "
    "const real scale"
)

#: what every kernel begins with: one step of one sample in one head. The rows of projections are
#: [q | k | v], 3 * heads * depth numbers; ``seen`` steps, from the first on, may be looked at
_PLACE = """
    const int row = get_global_id(0), head = get_global_id(1);
    if (row >= batch * time || head >= heads)
        return;
    const int sample = row / time, step = row % time;
    const int size = heads * depth;
    const int length = max(0, min(lengths[sample], time));
    const int seen = causal ? min(step + 1, length) : length;
    const long first = (long)sample * time;
    const long at = ((long)sample * heads + head) * time * time;
"""


def _heads(rows: Floats, batch: int, time: int, heads: int, depth: int) -> list[Floats]:
    """Return views (batch, heads, time, depth) of the blocks that stand side by side in rows."""
    blocks = rows.reshape(batch, time, -1, heads, depth)
    return [blocks[:, :, n].transpose(0, 2, 1, 3) for n in range(blocks.shape[2])]


def _hidden(batch: int, time: int, causal: int, lengths: Lengths) -> NDArray[np.bool_]:
    """Return which steps (batch, 1, time of query, time of key) may not be looked at."""
    steps = np.arange(time)
    hidden = np.broadcast_to(steps >= lengths[:, None], (time, batch, time)).transpose(1, 0, 2)
    if causal:
        hidden = hidden | (steps > steps[:, None])
    return hidden[:, None]


def _attend(
    projections: Floats, weights: Floats, found: Floats, lengths: Lengths,
    *, batch: int, time: int, heads: int, depth: int, causal: int, scale: float,
) -> None:  # fmt: skip
    if not batch:
        return
    q, k, v = _heads(projections, batch, time, heads, depth)
    np.matmul(q, k.swapaxes(2, 3), out=weights)
    weights *= weights.dtype.type(scale)
    hidden = _hidden(batch, time, causal, lengths)
    np.copyto(weights, -np.inf, where=hidden)
    most = weights.max(axis=3, keepdims=True)
    weights -= np.where(np.isfinite(most), most, 0)
    np.exp(weights, out=weights)
    sums = weights.sum(axis=3, keepdims=True)
    weights /= np.where(sums > 0, sums, 1)
    np.matmul(weights, v, out=_heads(found, batch, time, heads, depth)[0])


def _attend_back(
    projections: Floats, weights: Floats, err: Floats, scores: Floats, deltas: Floats,
    lengths: Lengths,
    *, batch: int, time: int, heads: int, depth: int, causal: int, scale: float,
) -> None:  # fmt: skip
    if not batch:
        return
    _, k, v = _heads(projections, batch, time, heads, depth)
    own = _heads(err, batch, time, heads, depth)[0]
    np.matmul(own, v.swapaxes(2, 3), out=scores)
    scores -= (scores * weights).sum(axis=3, keepdims=True)
    scores *= weights
    scores *= scores.dtype.type(scale)
    np.matmul(scores, k, out=_heads(deltas, batch, time, heads, depth)[0])


def _attended_back(
    projections: Floats, weights: Floats, err: Floats, scores: Floats, deltas: Floats,
    lengths: Lengths,
    *, batch: int, time: int, heads: int, depth: int, causal: int, scale: float,
) -> None:  # fmt: skip
    if not batch:
        return
    q = _heads(projections, batch, time, heads, depth)[0]
    own = _heads(err, batch, time, heads, depth)[0]
    _, dk, dv = _heads(deltas, batch, time, heads, depth)
    np.matmul(scores.swapaxes(2, 3), q, out=dk)
    np.matmul(weights.swapaxes(2, 3), own, out=dv)


#: weights (batch, heads, time, time) and what is found with them (batch * time, size)
_ATTEND = Program(
    "attend",
    f"""
kernel void attend(global const real *projections, global real *weights, global real *found,
                   global const int *lengths, {_PARAMETERS})
{{{_PLACE}
    global const real *q = projections + (long)row * 3 * size + head * depth;
    global const real *k = projections + first * 3 * size + size + head * depth;
    global const real *v = k + size;
    global real *p = weights + at + (long)step * time;
    global real *out = found + (long)row * size + head * depth;
    real most = -INFINITY, sum = 0;
    for (int t = 0; t < seen; ++t) {{
        real score = 0;
        for (int n = 0; n < depth; ++n)
            score += q[n] * k[(long)t * 3 * size + n];
        p[t] = score * scale;
        most = (p[t] > most || p[t] != p[t]) ? p[t] : most;
    }}
    for (int t = 0; t < seen; ++t) {{
        p[t] = exp(p[t] - most);
        sum += p[t];
    }}
    for (int n = 0; n < depth; ++n)
        out[n] = 0;
    for (int t = 0; t < seen; ++t) {{
        p[t] /= sum;
        for (int n = 0; n < depth; ++n)
            out[n] += p[t] * v[(long)t * 3 * size + n];
    }}
    for (int t = seen; t < time; ++t)
        p[t] = 0;
}}
""",
    _attend,
    ("projections", "weights", "found", "lengths"),
    _SCALARS,
)

_BACK_ARRAYS = ("projections", "weights", "err", "scores", "deltas", "lengths")
_BACK = f"""(global const real *projections, global const real *weights,
            global const real *err, global real *scores, global real *deltas,
            global const int *lengths, {_PARAMETERS})
"""

#: the gradient by the scores (batch, heads, time, time), and by the queries
_ATTEND_BACK = Program(
    "attend_back",
    f"""
kernel void attend_back{_BACK}
{{{_PLACE}
    global const real *k = projections + first * 3 * size + size + head * depth;
    global const real *v = k + size;
    global const real *p = weights + at + (long)step * time;
    global const real *own = err + (long)row * size + head * depth;
    global real *ds = scores + at + (long)step * time;
    global real *dq = deltas + (long)row * 3 * size + head * depth;
    real mean = 0;
    for (int t = 0; t < seen; ++t) {{
        real dp = 0;
        for (int n = 0; n < depth; ++n)
            dp += own[n] * v[(long)t * 3 * size + n];
        ds[t] = dp;
        mean += dp * p[t];
    }}
    for (int n = 0; n < depth; ++n)
        dq[n] = 0;
    for (int t = 0; t < seen; ++t) {{
        ds[t] = (ds[t] - mean) * p[t] * scale;
        for (int n = 0; n < depth; ++n)
            dq[n] += ds[t] * k[(long)t * 3 * size + n];
    }}
    for (int t = seen; t < time; ++t)
        ds[t] = 0;
}}
""",
    _attend_back,
    _BACK_ARRAYS,
    _SCALARS,
)

#: the gradient by the keys and by the values, after ``attend_back``
_ATTENDED_BACK = Program(
    "attended_back",
    f"""
kernel void attended_back{_BACK}
{{{_PLACE}
    global const real *q = projections + first * 3 * size + head * depth;
    global const real *own = err + first * size + head * depth;
    global real *dk = deltas + (long)row * 3 * size + size + head * depth, *dv = dk + size;
    for (int n = 0; n < depth; ++n) {{
        dk[n] = 0;
        dv[n] = 0;
    }}
    for (int t = causal ? step : 0; t < time; ++t) {{
        const real ds = scores[at + (long)t * time + step];
        const real p = weights[at + (long)t * time + step];
        for (int n = 0; n < depth; ++n) {{
            dk[n] += ds * q[(long)t * 3 * size + n];
            dv[n] += p * own[(long)t * size + n];
        }}
    }}
}}
""",
    _attended_back,
    _BACK_ARRAYS,
    _SCALARS,
)


@final
class SelfAttention(Forward):
    """Each step of a sequence looks at all others, with several heads.

    ``minibatch_lengths``, int32 (batch,), may be linked to how many steps of each sequence are
    real: nobody looks at the others. What these themselves find is no number to be used.

    Args:
        heads: how many; the size of the vectors must be a multiple.
        causal: let each step look at itself and those before it only.
        masked: link the loader's ``minibatch_lengths``, in the short form.
        weights_filling: of W and V; by default uniform in +-sqrt(6 / (inputs + outputs)) (Glorot).
        bias_filling: of b and c; by default 0.

    Attributes:
        out_weights, out_bias: V and c.
        attention: p, (batch, heads, time of who looks, time of what is seen).
    """

    input = Input[Array]("batch time size")
    minibatch_lengths = Input[Array]("batch", dtype="int32", optional=True)

    def __init__(
        self,
        workflow: Workflow,
        heads: int,
        *,
        causal: bool = False,
        masked: bool = False,
        weights_filling: Filling | None = None,
        bias_filling: Filling | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if heads < 1:
            raise ShapeError(f"unit {self.path!r}: {heads} heads; give at least one")
        if masked:  # what the short form links differs from unit to unit here
            self.loader_inputs = ("minibatch_lengths",)  # type: ignore[misc]
        self.heads, self.causal = heads, causal
        self.weights_filling = Uniform() if weights_filling is None else weights_filling
        self.bias_filling = Constant(0.0) if bias_filling is None else bias_filling
        self.out_weights: Parameter
        self.out_bias: Parameter
        self.attention: Array
        self.lengths: Array

    def parameters(self) -> list[Parameter]:
        """Return W, b, V and c."""
        return [*super().parameters(), self.out_weights, self.out_bias]

    def initialize(self) -> None:
        """Declare output, parameters, projections and attention.

        Raises:
            ShapeError: the heads cannot share the vectors evenly.
        """
        batch, time, size = self.input.shape
        if size % self.heads:
            raise ShapeError(
                f"unit {self.path!r}: {self.heads} heads cannot share vectors of {size} evenly"
            )
        self.output = self.declare(batch, time, size)
        self.weights = self._declare_parameter("weights", 3 * size, size)
        self.bias = self._declare_parameter("bias", 3 * size)
        self.out_weights = self._declare_parameter("out_weights", size, size)
        self.out_bias = self._declare_parameter("out_bias", size)
        self.projections = self.declare(batch * time, 3 * size)
        self.attention = self.declare(batch, self.heads, time, time)
        self.found = self.declare(batch * time, size)
        self.is_masked = self.has_input("minibatch_lengths")
        self.lengths = (
            self.minibatch_lengths if self.is_masked else self.declare(batch, dtype="int32")
        )

    def prepare(self) -> None:
        """Fill the parameters, bind projections and attention."""
        assert self.weights is not None
        assert self.bias is not None
        device, (batch, time, size) = self.device, self.input.shape
        for parameter in self.parameters():
            is_bias = parameter in (self.bias, self.out_bias)
            filling = self.bias_filling if is_bias else self.weights_filling
            random = self._random(parameter.name.rpartition("/")[2])
            default = math.sqrt(6 / sum(parameter.shape))
            parameter.value.write(filling.fill(random, parameter.shape, default))
        if not self.is_masked:
            self.lengths.write(time)
        arrays = {
            "projections": self.projections,
            "weights": self.attention,
            "found": self.found,
            "lengths": self.lengths,
        }
        rows = self.input.reshape(batch * time, size)
        attend = device.program(_ATTEND, arrays, (batch * time, self.heads))
        self._launches: list[Launch] = [
            device.gemm(
                rows, self.weights.value, self.projections,
                transpose_b=True, bias=self.bias.value,
            ),
            partial(attend, **self.scalars()),
            device.gemm(
                self.found, self.out_weights.value, self.output.reshape(batch * time, size),
                transpose_b=True, bias=self.out_bias.value,
            ),
        ]  # fmt: skip

    def scalars(self) -> dict[str, float]:
        """Return what the kernels are told."""
        batch, time, size = self.input.shape
        depth = size // self.heads
        return {
            "batch": batch,
            "time": time,
            "heads": self.heads,
            "depth": depth,
            "causal": int(self.causal),
            "scale": 1 / math.sqrt(depth),
        }

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class GDSelfAttention(GradientUnit):
    """The gradient of :class:`SelfAttention`.

    With e = dL/dy V, by what the heads have found, and s the scores q k^T / sqrt(d):

        dp = e v^T         ds = p (dp - sum of p dp)
        dq = ds k / sqrt(d)         dk = ds^T q / sqrt(d)         dv = p^T e

    Then dL/dW = [dq dk dv]^T x, dL/dx = [dq dk dv] W, dL/dV = dL/dy^T found; biases sum up.
    """

    forward: SelfAttention
    forward_kind: ClassVar[type[Forward]] = SelfAttention

    def is_bias(self, parameter: Parameter) -> bool:
        """Whether it moves as a bias does: both biases do."""
        return parameter is self.forward.out_bias or super().is_bias(parameter)

    def initialize(self) -> None:
        """Declare ``err_input``, what solvers keep, and the deltas."""
        super().initialize()
        forward = self.forward
        self._err_found = self.declare(*forward.found.shape)
        self._err_scores = self.declare(*forward.attention.shape)
        self._deltas = self.declare(*forward.projections.shape)

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        device, forward = self.device, self.forward
        assert forward.weights is not None
        assert forward.bias is not None
        batch, time, size = forward.input.shape
        err = self.err_output.reshape(batch * time, size)
        rows = forward.input.reshape(batch * time, size)
        arrays = {
            "projections": forward.projections,
            "weights": forward.attention,
            "err": self._err_found,
            "scores": self._err_scores,
            "deltas": self._deltas,
            "lengths": forward.lengths,
        }
        space = (batch * time, forward.heads)
        e = element("e")
        self._launches: list[Launch] = [
            device.gemm(err, forward.out_weights.value, self._err_found),
            *(
                partial(device.program(one, arrays, space), **forward.scalars())
                for one in (_ATTEND_BACK, _ATTENDED_BACK)
            ),
            device.gemm(err, forward.found, forward.out_weights.gradient, transpose_a=True),
            device.reduce("sum", e, {"e": err}, forward.out_bias.gradient, axis=0),
            device.gemm(self._deltas, rows, forward.weights.gradient, transpose_a=True),
            device.reduce("sum", e, {"e": self._deltas}, forward.bias.gradient, axis=0),
        ]
        if self.needs_err_input:
            target = self.err_input.reshape(batch * time, size)
            self._launches.append(device.gemm(self._deltas, forward.weights.value, target))
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


class AttentionOptions(Rates, total=False):
    """What self-attention may be told: its own rates, who may look where, and how it begins."""

    causal: bool
    masked: bool
    weights_filling: Filling
    bias_filling: Filling
    name: str


def attention(heads: int, **options: Unpack[AttentionOptions]) -> Layer:
    """Return a layer of self-attention with so many heads."""
    make = partial(SelfAttention, heads=heads)
    text = f"attention({heads})"
    return trained_layer(text, make, GDSelfAttention, options, AttentionOptions.__optional_keys__)
