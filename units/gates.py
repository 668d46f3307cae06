"""One time step of recurrent layers, forward and back, as one pass over memory each.

The gates of a cell stand side by side in a row, so each kernel reads and writes blocks of columns.
Arrays have a row for each sample of the minibatch, ``rows`` of them, ``width`` cells each, and
those that are kept for all time steps have the step in front: ``states`` (steps + 1, rows, width)
begins with the zeros before the first step. With ``masked``, rows whose ``lengths`` (rows,) int32
is not above ``step`` are over: they keep their state, and gradients pass through them unchanged.

``errors`` is dL/d(states) from outside the layer: (steps, rows, width) or, where only the last
state leaves the layer, (1, rows, width); ``at`` is the row of it that belongs to the step, -1 for
none. ``product`` is the product with the recurrent weights: forward of the state before the step
(none at the first step), back of the deltas of the step after it (none at the last). ``last`` is 1
at the last step, where going back begins.

Functions at the end return all the steps of a layer, which a device may do as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from veloflow.devices import Program, Recurrence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Lengths = NDArray[np.int32]

__all__ = [
    "Nonlinearity", "Sizes", "gru_backward", "gru_forward", "lstm_backward", "lstm_forward",
    "rnn_backward", "rnn_forward",
]  # fmt: skip

#: bytes of the vector of cells that a work-item computes: compilers do not vectorise around tanh
_VECTOR = 32

_FORWARD: tuple[tuple[str, Literal["int"]], ...] = (
    ("step", "int"), ("rows", "int"), ("width", "int"), ("masked", "int"),
)  # fmt: skip
_BACKWARD: tuple[tuple[str, Literal["int"]], ...] = (*_FORWARD, ("last", "int"), ("at", "int"))

_PRELUDE = """
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
typedef PASTE(real, WIDE) vec;
typedef vec loose __attribute__((aligned(sizeof(real))));
#define LOAD(pointer) (*(const global loose *)(pointer))
#define ONE ((vec)((real)1))

static void store(global real *target, const vec value, const int count)
{
    if (count >= WIDE)
        *(global loose *)target = value;
    else
        for (int lane = 0; lane < count; ++lane)
            target[lane] = ((const real *)&value)[lane];
}

#ifdef IS_SINGLE
#define ALL(number) ((vec)(number))
// 2^n e^r with n = round(x / log 2): inlined, where PoCL's is a call that takes all registers. The
// polynomial is that of Cephes, the error one unit in the last place; beyond +-87 it is as at 87.
static vec exponential(const vec x)
{
    const vec below = x > ALL(87.0f) ? ALL(87.0f) : x;
    const vec near = below < ALL(-87.0f) ? ALL(-87.0f) : below;
    // adding 1.5 * 2^23 rounds, and leaves n in the lowest bits
    const vec rounded = near * ALL(1.44269504f) + ALL(12582912.0f), n = rounded - ALL(12582912.0f);
    const vec r = near - n * ALL(0.693359375f) + n * ALL(2.12194440e-4f);
    vec sum = ALL(1.9875691500e-4f);
    sum = sum * r + ALL(1.3981999507e-3f);
    sum = sum * r + ALL(8.3334519073e-3f);
    sum = sum * r + ALL(4.1665795894e-2f);
    sum = sum * r + ALL(1.6666665459e-1f);
    sum = sum * r + ALL(5.0000001201e-1f);
    sum = sum * r * r + r + ALL(1.0f);
    return PASTE(as_float, WIDE)(PASTE(as_int, WIDE)(sum) + (PASTE(as_int, WIDE)(rounded) << 23));
}
#else
#define exponential exp
#endif

// With one exponential each these take half the time of PoCL's tanh; the error is that of a
// number near 1.
static vec sigmoid(const vec x)
{
    return ONE / (ONE + exponential(-x));
}

static vec fast_tanh(const vec x)
{
    return ONE - (ONE + ONE) / (ONE + exponential(x + x));
}
"""

#: what every kernel begins with: its row and columns, and where they lie
_PLACE = """
    const int row = get_global_id(0), column = get_global_id(1) * WIDE;
    if (row >= rows || column >= width)
        return;
    const int count = min(WIDE, width - column);
    const long now = ((long)step * rows + row) * width + column;
    const long next = now + (long)rows * width;
    const long here = (long)row * width + column;
    const bool is_over = masked && step >= lengths[row];
"""

#: the gradient by the state that leaves the step
_ERROR = """
    vec dh = (vec)((real)0);
    if (at >= 0)
        dh += LOAD(errors + ((long)at * rows + row) * width + column);
    if (!last)
        dh += LOAD(product + here);
"""


@lru_cache(maxsize=8)
def _squashing(blocks: str, width: int, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
    """Return rows a and b so that a tanh(a x) + b is a sigmoid in blocks "s", tanh in "t".

    As sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, one call of tanh does for all gates.
    """
    is_sigmoid = np.repeat([block == "s" for block in blocks], width)
    return np.where(is_sigmoid, 0.5, 1.0).astype(dtype), np.where(is_sigmoid, 0.5, 0.0).astype(
        dtype
    )


def _squash(gates: Floats, blocks: str) -> None:
    scale, shift = _squashing(blocks, gates.shape[1] // len(blocks), gates.dtype)
    gates *= scale
    np.tanh(gates, out=gates)
    gates *= scale
    gates += shift


def _keep(array: Floats, step: int, lengths: Lengths) -> None:
    """Let the rows that are over keep what they had."""
    np.copyto(array[step + 1], array[step], where=(lengths <= step)[:, None])


def _error(errors: Floats, product: Floats, last: int, at: int) -> Floats:
    """Return dL/d(state), in the memory of ``product``."""
    if last:
        product[...] = errors[at] if at >= 0 else 0
    elif at >= 0:
        product += errors[at]
    return product


# -- LSTM: gates i, f, g, o ------------------------------------------------------------------------


def _lstm_forward(
    gates: Floats, bias: Floats, product: Floats, cells: Floats, squashed: Floats, states: Floats,
    lengths: Lengths, *, step: int, rows: int, width: int, masked: int,
) -> None:  # fmt: skip
    if not rows:
        return
    now = gates[step]
    now += bias
    if step:
        now += product
    _squash(now, "ssts")
    i, f, g, o = np.split(now, 4, axis=1)
    cell, inner = cells[step + 1], squashed[step]
    np.multiply(f, cells[step], out=cell)
    np.multiply(i, g, out=inner)
    cell += inner
    np.tanh(cell, out=inner)
    np.multiply(o, inner, out=states[step + 1])
    if masked:
        _keep(cells, step, lengths)
        _keep(states, step, lengths)


def _lstm_backward(
    gates: Floats, cells: Floats, squashed: Floats, errors: Floats, product: Floats,
    err_cells: Floats, carry: Floats, deltas: Floats, lengths: Lengths,
    *, step: int, rows: int, width: int, masked: int, last: int, at: int,
) -> None:  # fmt: skip
    if not rows:
        return
    dh, dc = _error(errors, product, last, at), err_cells
    if last:
        dc[...] = 0
    elif masked:
        dh += carry
    before = dc.copy() if masked else dc
    i, f, g, o = np.split(gates[step], 4, axis=1)
    di, df, dg, do = np.split(deltas[step], 4, axis=1)
    inner = squashed[step]
    np.multiply(inner, inner, out=df)
    np.subtract(1, df, out=df)
    np.multiply(dh, o, out=dg)
    dg *= df
    dc += dg
    np.subtract(1, gates[step], out=deltas[step])  # 1 - s in the derivative s (1 - s)
    di *= i
    di *= g
    di *= dc
    df *= f
    df *= cells[step]
    df *= dc
    do *= o
    do *= inner
    do *= dh
    np.multiply(g, g, out=dg)
    np.subtract(1, dg, out=dg)
    dg *= i
    dg *= dc
    dc *= f
    if masked:
        over = (lengths <= step)[:, None]
        np.multiply(dh, over, out=carry)
        np.copyto(dc, before, where=over)
        np.copyto(deltas[step], 0, where=over)


_LSTM_FORWARD = Program(
    "lstm_forward",
    _PRELUDE
    + f"""
kernel void lstm_forward(global real *gates, global const real *bias, global const real *product,
                         global real *cells, global real *squashed, global real *states,
                         global const int *lengths, const int step, const int rows,
                         const int width, const int masked)
{{{_PLACE}
    if (is_over) {{
        store(cells + next, LOAD(cells + now), count);
        store(states + next, LOAD(states + now), count);
        return;
    }}
    global real *gate = gates + ((long)step * rows + row) * 4 * width + column;
    global const real *from = product + (long)row * 4 * width + column;
    vec i = LOAD(gate) + LOAD(bias + column);
    vec f = LOAD(gate + width) + LOAD(bias + width + column);
    vec g = LOAD(gate + 2 * width) + LOAD(bias + 2 * width + column);
    vec o = LOAD(gate + 3 * width) + LOAD(bias + 3 * width + column);
    if (step) {{
        i += LOAD(from);
        f += LOAD(from + width);
        g += LOAD(from + 2 * width);
        o += LOAD(from + 3 * width);
    }}
    i = sigmoid(i);
    f = sigmoid(f);
    g = fast_tanh(g);
    o = sigmoid(o);
    const vec cell = f * LOAD(cells + now) + i * g;
    const vec inner = fast_tanh(cell);
    store(gate, i, count);
    store(gate + width, f, count);
    store(gate + 2 * width, g, count);
    store(gate + 3 * width, o, count);
    store(cells + next, cell, count);
    store(squashed + now, inner, count);
    store(states + next, o * inner, count);
}}
""",
    _lstm_forward,
    ("gates", "bias", "product", "cells", "squashed", "states", "lengths"),
    _FORWARD,
)

_LSTM_BACKWARD = Program(
    "lstm_backward",
    _PRELUDE
    + f"""
kernel void lstm_backward(global const real *gates, global const real *cells,
                          global const real *squashed, global const real *errors,
                          global const real *product, global real *err_cells, global real *carry,
                          global real *deltas, global const int *lengths, const int step,
                          const int rows, const int width, const int masked, const int last,
                          const int at)
{{{_PLACE}{_ERROR}
    vec dc = (vec)((real)0);
    if (!last)
        dc += LOAD(err_cells + here);
    if (masked && !last)
        dh += LOAD(carry + here);
    global real *delta = deltas + ((long)step * rows + row) * 4 * width + column;
    if (masked)
        store(carry + here, is_over ? dh : (vec)((real)0), count);
    if (is_over) {{
        for (int gate = 0; gate < 4; ++gate)
            store(delta + gate * width, (vec)((real)0), count);
        store(err_cells + here, dc, count);
        return;
    }}
    global const real *gate = gates + ((long)step * rows + row) * 4 * width + column;
    const vec i = LOAD(gate), f = LOAD(gate + width);
    const vec g = LOAD(gate + 2 * width), o = LOAD(gate + 3 * width);
    const vec inner = LOAD(squashed + now);
    dc += dh * o * (ONE - inner * inner);
    store(delta, (ONE - i) * i * g * dc, count);
    store(delta + width, (ONE - f) * f * LOAD(cells + now) * dc, count);
    store(delta + 2 * width, (ONE - g * g) * i * dc, count);
    store(delta + 3 * width, (ONE - o) * o * inner * dh, count);
    store(err_cells + here, dc * f, count);
}}
""",
    _lstm_backward,
    (
        "gates", "cells", "squashed", "errors", "product", "err_cells", "carry", "deltas",
        "lengths",
    ),
    _BACKWARD,
)  # fmt: skip


# -- GRU: gates r, z, n ----------------------------------------------------------------------------


def _gru_forward(
    gates: Floats, bias: Floats, recurrent_bias: Floats, product: Floats, inner: Floats,
    states: Floats, lengths: Lengths, *, step: int, rows: int, width: int, masked: int,
) -> None:  # fmt: skip
    if not rows:
        return
    now, both = gates[step], gates[step][:, : 2 * width]
    now += bias
    both += recurrent_bias[: 2 * width]
    inner[step] = recurrent_bias[2 * width :]
    if step:
        both += product[:, : 2 * width]
        inner[step] += product[:, 2 * width :]
    _squash(both, "ss")
    r, z, n = np.split(now, 3, axis=1)
    state = states[step + 1]
    np.multiply(r, inner[step], out=state)
    n += state
    np.tanh(n, out=n)
    np.subtract(states[step], n, out=state)  # h' = n + z (h - n)
    state *= z
    state += n
    if masked:
        _keep(states, step, lengths)


def _gru_backward(
    gates: Floats, inner: Floats, states: Floats, errors: Floats, product: Floats, carry: Floats,
    deltas: Floats, recurrent_deltas: Floats, lengths: Lengths,
    *, step: int, rows: int, width: int, masked: int, last: int, at: int,
) -> None:  # fmt: skip
    if not rows:
        return
    dh = _error(errors, product, last, at)
    if not last:
        dh += carry
    r, z, n = np.split(gates[step], 3, axis=1)
    dr, dz, dn = np.split(deltas[step], 3, axis=1)
    np.multiply(dh, z, out=carry)
    np.subtract(states[step], n, out=dz)
    dz *= carry
    np.subtract(dh, carry, out=dn)  # dh (1 - z)
    np.multiply(n, n, out=dr)
    np.subtract(1, dr, out=dr)
    dn *= dr
    np.subtract(1, z, out=dr)
    dz *= dr
    np.subtract(1, r, out=dr)
    dr *= r
    dr *= inner[step]
    dr *= dn
    if masked:
        over = (lengths <= step)[:, None]
        np.copyto(carry, dh, where=over)
        np.copyto(deltas[step], 0, where=over)
    recurrent_deltas[step] = deltas[step]
    recurrent_deltas[step][:, 2 * width :] *= r


_GRU_FORWARD = Program(
    "gru_forward",
    _PRELUDE
    + f"""
kernel void gru_forward(global real *gates, global const real *bias,
                        global const real *recurrent_bias, global const real *product,
                        global real *inner, global real *states, global const int *lengths,
                        const int step, const int rows, const int width, const int masked)
{{{_PLACE}
    const vec state = LOAD(states + now);
    if (is_over) {{
        store(states + next, state, count);
        return;
    }}
    global real *gate = gates + ((long)step * rows + row) * 3 * width + column;
    global const real *from = product + (long)row * 3 * width + column;
    vec sums[3], products[3];
    for (int block = 0; block < 3; ++block) {{
        sums[block] = LOAD(gate + block * width) + LOAD(bias + block * width + column);
        products[block] = LOAD(recurrent_bias + block * width + column);
        if (step)
            products[block] += LOAD(from + block * width);
    }}
    const vec r = sigmoid(sums[0] + products[0]);
    const vec z = sigmoid(sums[1] + products[1]);
    const vec q = products[2];
    const vec n = fast_tanh(sums[2] + r * q);
    store(gate, r, count);
    store(gate + width, z, count);
    store(gate + 2 * width, n, count);
    store(inner + now, q, count);
    store(states + next, n + z * (state - n), count);
}}
""",
    _gru_forward,
    ("gates", "bias", "recurrent_bias", "product", "inner", "states", "lengths"),
    _FORWARD,
)

_GRU_BACKWARD = Program(
    "gru_backward",
    _PRELUDE
    + f"""
kernel void gru_backward(global const real *gates, global const real *inner,
                         global const real *states, global const real *errors,
                         global const real *product, global real *carry, global real *deltas,
                         global real *recurrent_deltas, global const int *lengths, const int step,
                         const int rows, const int width, const int masked, const int last,
                         const int at)
{{{_PLACE}{_ERROR}
    if (!last)
        dh += LOAD(carry + here);
    const long place = ((long)step * rows + row) * 3 * width + column;
    global real *delta = deltas + place, *recurrent = recurrent_deltas + place;
    if (is_over) {{
        store(carry + here, dh, count);
        for (int gate = 0; gate < 3; ++gate) {{
            store(delta + gate * width, (vec)((real)0), count);
            store(recurrent + gate * width, (vec)((real)0), count);
        }}
        return;
    }}
    global const real *gate = gates + place;
    const vec r = LOAD(gate), z = LOAD(gate + width), n = LOAD(gate + 2 * width);
    const vec dn = (ONE - n * n) * (ONE - z) * dh;
    const vec dz = (ONE - z) * z * (LOAD(states + now) - n) * dh;
    const vec dr = (ONE - r) * r * LOAD(inner + now) * dn;
    store(carry + here, dh * z, count);
    store(delta, dr, count);
    store(delta + width, dz, count);
    store(delta + 2 * width, dn, count);
    store(recurrent, dr, count);
    store(recurrent + width, dz, count);
    store(recurrent + 2 * width, dn * r, count);
}}
""",
    _gru_backward,
    (
        "gates", "inner", "states", "errors", "product", "carry", "deltas", "recurrent_deltas",
        "lengths",
    ),
    _BACKWARD,
)  # fmt: skip


# -- plain recurrent layers ------------------------------------------------------------------------

#: f(x), and its slope by y = f(x)
Nonlinearity = Literal["tanh", "relu"]


def _rnn_forward(
    sums: Floats, bias: Floats, product: Floats, states: Floats, lengths: Lengths,
    *, step: int, rows: int, width: int, masked: int, function: Nonlinearity,
) -> None:  # fmt: skip
    if not rows:
        return
    state = states[step + 1]
    np.add(sums[step], bias, out=state)
    if step:
        state += product
    if function == "tanh":
        np.tanh(state, out=state)
    else:
        np.maximum(state, 0, out=state)
    if masked:
        _keep(states, step, lengths)


def _rnn_backward(
    states: Floats, errors: Floats, product: Floats, carry: Floats, deltas: Floats,
    lengths: Lengths,
    *, step: int, rows: int, width: int, masked: int, last: int, at: int, function: Nonlinearity,
) -> None:  # fmt: skip
    if not rows:
        return
    dh, state, delta = _error(errors, product, last, at), states[step + 1], deltas[step]
    if masked and not last:
        dh += carry
    if function == "tanh":
        np.multiply(state, state, out=delta)
        np.subtract(1, delta, out=delta)
    else:
        np.greater(state, 0, out=delta)
    delta *= dh
    if masked:
        over = (lengths <= step)[:, None]
        np.multiply(dh, over, out=carry)
        np.copyto(delta, 0, where=over)


_FUNCTIONS: dict[Nonlinearity, str] = {
    "tanh": """
#define FUNCTION(x) tanh(x)
#define SLOPE(y) (ONE - (y) * (y))
""",
    "relu": """
#define ZERO ((vec)((real)0))
#define FUNCTION(x) ((((x) > ZERO) | ((x) != (x))) ? (x) : ZERO)
#define SLOPE(y) (((y) > ZERO) ? ONE : ZERO)
""",
}

_RNN_FORWARD = f"""
kernel void rnn_forward(global const real *sums, global const real *bias,
                        global const real *product, global real *states, global const int *lengths,
                        const int step, const int rows, const int width, const int masked)
{{{_PLACE}
    if (is_over) {{
        store(states + next, LOAD(states + now), count);
        return;
    }}
    vec sum = LOAD(sums + now) + LOAD(bias + column);
    if (step)
        sum += LOAD(product + here);
    store(states + next, FUNCTION(sum), count);
}}
"""

_RNN_BACKWARD = f"""
kernel void rnn_backward(global const real *states, global const real *errors,
                         global const real *product, global real *carry, global real *deltas,
                         global const int *lengths, const int step, const int rows,
                         const int width, const int masked, const int last, const int at)
{{{_PLACE}{_ERROR}
    if (masked && !last)
        dh += LOAD(carry + here);
    if (masked)
        store(carry + here, is_over ? dh : (vec)((real)0), count);
    const vec state = LOAD(states + next);
    store(deltas + now, is_over ? (vec)((real)0) : dh * SLOPE(state), count);
}}
"""


# -- all the steps of a layer ----------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """What a layer's steps are made for: numbers of steps, rows and cells, and their dtype.

    ``masked`` as above; ``every``: all states leave the layer, not only the last one.
    """

    steps: int
    rows: int
    cells: int
    dtype: np.dtype[Any]
    masked: bool
    every: bool

    def kept(self, more: int, blocks: int) -> tuple[int, int, int]:
        """Return the shape of what is kept for all steps and so many more."""
        return self.steps + more, self.rows, blocks * self.cells

    def now(self, blocks: int) -> tuple[int, int]:
        """Return the shape of what belongs to one step."""
        return self.rows, blocks * self.cells

    @property
    def errors(self) -> tuple[int, int, int]:
        """The shape of the gradient by the states that leave the layer."""
        return self.steps if self.every else 1, self.rows, self.cells

    def scalars(self, step: int) -> dict[str, int]:
        """Return what kernels are told of a step on the way forward."""
        return {"step": step, "rows": self.rows, "width": self.cells, "masked": int(self.masked)}

    def scalars_back(self, step: int) -> dict[str, int]:
        """Return what kernels are told of a step on the way back."""
        last = step == self.steps - 1
        at = step if self.every else (0 if last else -1)
        return {**self.scalars(step), "last": int(last), "at": at}


def lstm_forward(sizes: Sizes) -> Recurrence:
    """Return the steps of an LSTM; its program says what the arrays are."""
    shapes = {
        "gates": sizes.kept(0, 4), "bias": (4 * sizes.cells,), "product": sizes.now(4),
        "cells": sizes.kept(1, 1), "squashed": sizes.kept(0, 1), "states": sizes.kept(1, 1),
        "lengths": (sizes.rows,),
    }  # fmt: skip
    return _forward(_LSTM_FORWARD, sizes, shapes, lstm_forward)


def lstm_backward(sizes: Sizes) -> Recurrence:
    """Return the steps back through an LSTM."""
    shapes = {
        "gates": sizes.kept(0, 4), "cells": sizes.kept(1, 1), "squashed": sizes.kept(0, 1),
        "errors": sizes.errors, "product": sizes.now(1), "err_cells": sizes.now(1),
        "carry": sizes.now(1), "deltas": sizes.kept(0, 4), "lengths": (sizes.rows,),
    }  # fmt: skip
    return _backward(_LSTM_BACKWARD, sizes, shapes, "deltas", lstm_backward)


def gru_forward(sizes: Sizes) -> Recurrence:
    """Return the steps of a GRU."""
    shapes = {
        "gates": sizes.kept(0, 3), "bias": (3 * sizes.cells,),
        "recurrent_bias": (3 * sizes.cells,), "product": sizes.now(3),
        "inner": sizes.kept(0, 1), "states": sizes.kept(1, 1), "lengths": (sizes.rows,),
    }  # fmt: skip
    return _forward(_GRU_FORWARD, sizes, shapes, gru_forward)


def gru_backward(sizes: Sizes) -> Recurrence:
    """Return the steps back through a GRU."""
    shapes = {
        "gates": sizes.kept(0, 3), "inner": sizes.kept(0, 1), "states": sizes.kept(1, 1),
        "errors": sizes.errors, "product": sizes.now(1), "carry": sizes.now(1),
        "deltas": sizes.kept(0, 3), "recurrent_deltas": sizes.kept(0, 3),
        "lengths": (sizes.rows,),
    }  # fmt: skip
    return _backward(_GRU_BACKWARD, sizes, shapes, "recurrent_deltas", gru_backward)


def rnn_forward(sizes: Sizes, function: Nonlinearity) -> Recurrence:
    """Return the steps of a plain recurrent layer."""
    shapes = {
        "sums": sizes.kept(0, 1), "bias": (sizes.cells,), "product": sizes.now(1),
        "states": sizes.kept(1, 1), "lengths": (sizes.rows,),
    }  # fmt: skip
    source = _PRELUDE + _FUNCTIONS[function] + _RNN_FORWARD
    host = partial(_rnn_forward, function=function)
    program = Program("rnn_forward", source, host, tuple(shapes), _FORWARD)
    return _forward(program, sizes, shapes, partial(rnn_forward, function=function))


def rnn_backward(sizes: Sizes, function: Nonlinearity) -> Recurrence:
    """Return the steps back through a plain recurrent layer."""
    shapes = {
        "states": sizes.kept(1, 1), "errors": sizes.errors, "product": sizes.now(1),
        "carry": sizes.now(1), "deltas": sizes.kept(0, 1), "lengths": (sizes.rows,),
    }  # fmt: skip
    source = _PRELUDE + _FUNCTIONS[function] + _RNN_BACKWARD
    host = partial(_rnn_backward, function=function)
    program = Program("rnn_backward", source, host, tuple(shapes), _BACKWARD)
    return _backward(program, sizes, shapes, "deltas", partial(rnn_backward, function=function))


#: makes a recurrence for other sizes
_Make = Callable[[Sizes], Recurrence]
_Shapes = Mapping[str, tuple[int, ...]]


def _forward(program: Program, sizes: Sizes, shapes: _Shapes, make: _Make) -> Recurrence:
    """Return steps from the first to the last; the sums of what enters are in the first array."""
    return Recurrence(
        _sized(program, sizes), _space(sizes), shapes, "states", "product", transpose_b=True,
        steps=[(step, sizes.scalars(step)) for step in range(sizes.steps)],
        outputs=("states",), small=lambda: make(_small(sizes)),
        entering=next(iter(shapes)),
    )  # fmt: skip


def _backward(
    program: Program, sizes: Sizes, shapes: _Shapes, factor: str, make: _Make
) -> Recurrence:
    """Return steps from the last to the first; before each comes the product of that after it."""
    return Recurrence(
        _sized(program, sizes), _space(sizes), shapes, factor, "product", transpose_b=False,
        steps=[(step + 1, sizes.scalars_back(step)) for step in reversed(range(sizes.steps))],
        outputs=tuple(dict.fromkeys(("deltas", factor))), small=lambda: make(_small(sizes)),
    )  # fmt: skip


def _small(sizes: Sizes) -> Sizes:
    """Return sizes for a trial: edges of vectors and tiles, and rows that end early."""
    return replace(sizes, steps=4, rows=7, cells=_lanes(sizes) + 3, masked=True)


def _lanes(sizes: Sizes) -> int:
    return _VECTOR // sizes.dtype.itemsize


def _space(sizes: Sizes) -> tuple[int, int]:
    return sizes.rows, -(-sizes.cells // _lanes(sizes))


def _sized(program: Program, sizes: Sizes) -> Program:
    defines = f"#define WIDE {_lanes(sizes)}\n"
    if sizes.dtype == np.float32:
        defines += "#define IS_SINGLE\n"
    return replace(program, source=defines + program.source)
