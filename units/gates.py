"""One time step of gated recurrent units, forward and back, as one pass over memory each.

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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from veloflow.devices import Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.devices import Array, Device, Launch

    Floats = NDArray[np.floating[Any]]
    Lengths = NDArray[np.int32]

__all__ = ["GRU_BACKWARD", "GRU_FORWARD", "LSTM_BACKWARD", "LSTM_FORWARD", "bind_gates"]

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

// With one exponential each these take half the time of PoCL's tanh; the error is that of a
// number near 1.
static vec sigmoid(const vec x)
{
    return ONE / (ONE + exp(-x));
}

static vec fast_tanh(const vec x)
{
    return ONE - (ONE + ONE) / (ONE + exp(x + x));
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


def bind_gates(
    device: Device, program: Program, arrays: Mapping[str, Array], rows: int, cells: int
) -> Launch:
    """Bind one of the programs below; each launch of it takes the scalars of one step."""
    lanes = _VECTOR // next(iter(arrays.values())).dtype.itemsize
    sized = replace(program, source=f"#define WIDE {lanes}\n{program.source}")
    return device.program(sized, arrays, (rows, -(-cells // lanes)))


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


LSTM_FORWARD = Program(
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

LSTM_BACKWARD = Program(
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


GRU_FORWARD = Program(
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

GRU_BACKWARD = Program(
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
