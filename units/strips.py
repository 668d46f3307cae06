"""Copies of strips: what joins, splits, slices and crops of arrays are made of."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from veloflow.devices import Array, Device

__all__ = ["Strips", "bind_columns", "bind_strips"]


@dataclass(frozen=True)
class Strips:
    """Where strips of numbers lie in an array: strip i of block b at first + i line + b block."""

    first: int
    line: int
    block: int


_NAMES = ("blocks", "lines", "count", "first", "line", "block", "start", "step", "jump")


def _view(
    array: NDArray[Any], shape: tuple[int, int, int], first: int, line: int, block: int
) -> NDArray[Any]:
    size = array.itemsize
    flat = array.reshape(-1)[first:]
    return np.lib.stride_tricks.as_strided(flat, shape, (block * size, line * size, size))


def _copy(
    source: NDArray[Any],
    target: NDArray[Any],
    *,
    blocks: int,
    lines: int,
    count: int,
    first: int,
    line: int,
    block: int,
    start: int,
    step: int,
    jump: int,
) -> None:
    if blocks and lines:
        shape = (blocks, lines, count)
        _view(target, shape, start, step, jump)[...] = _view(source, shape, first, line, block)


_STRIPS = Program(
    "strips",
    f"""
kernel void strips(global const real *source, global real *target,
                   {", ".join(f"const int {name}" for name in _NAMES)})
{{
    const int i = get_global_id(0);
    if (i >= blocks * lines)
        return;
    const global real *in = source + (long)(i / lines) * block + (long)(i % lines) * line + first;
    global real *out = target + (long)(i / lines) * jump + (long)(i % lines) * step + start;
    for (int k = 0; k < count; ++k)
        out[k] = in[k];
}}
""",
    _copy,
    ("source", "target"),
    tuple((name, "int") for name in _NAMES),
)


def bind_strips(
    device: Device,
    source: Array,
    target: Array,
    shape: tuple[int, int, int],
    come_from: Strips,
    go_to: Strips,
) -> Callable[[], None]:
    """Bind the copy of (blocks, strips of a block, numbers of a strip) from one array to another.

    The strips must lie within both arrays, and those of the target must not overlap.
    """
    arrays = {"source": source, "target": target}
    launch = device.program(_STRIPS, arrays, (shape[0] * shape[1],))
    values = (*shape, *astuple(come_from), *astuple(go_to))
    given = dict(zip(_NAMES, values, strict=True))
    return lambda: launch(**given)


def bind_columns(
    device: Device, source: Array, target: Array, count: int, *, first: int = 0, start: int = 0
) -> Callable[[], None]:
    """Bind ``target[..., start : start + count] = source[..., first : first + count]``.

    Both arrays have the same shape but for the last axis.
    """
    shape = (1, math.prod(source.shape[:-1]), count)
    come_from, go_to = Strips(first, source.shape[-1], 0), Strips(start, target.shape[-1], 0)
    return bind_strips(device, source, target, shape, come_from, go_to)
