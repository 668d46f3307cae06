"""Copies of columns: what joins, splits and slices of arrays along their last axis are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from veloflow.devices import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from veloflow.devices import Array, Device

__all__ = ["bind_columns"]

_NAMES = ("rows", "count", "first", "given", "start", "taken")


def _columns(
    source: NDArray[Any],
    target: NDArray[Any],
    *,
    rows: int,
    count: int,
    first: int,
    given: int,
    start: int,
    taken: int,
) -> None:
    if rows:
        values = source.reshape(rows, given)[:, first : first + count]
        target.reshape(rows, taken)[:, start : start + count] = values


_COLUMNS = Program(
    "columns",
    f"""
kernel void columns(global const real *source, global real *target,
                    {", ".join(f"const int {name}" for name in _NAMES)})
{{
    const int row = get_global_id(0);
    if (row >= rows)
        return;
    const global real *in = source + (long)row * given + first;
    global real *out = target + (long)row * taken + start;
    for (int k = 0; k < count; ++k)
        out[k] = in[k];
}}
""",
    _columns,
    ("source", "target"),
    tuple((name, "int") for name in _NAMES),
)


def bind_columns(
    device: Device, source: Array, target: Array, count: int, *, first: int = 0, start: int = 0
) -> Callable[[], None]:
    """Bind ``target[..., start : start + count] = source[..., first : first + count]``.

    Both arrays have the same shape but for the last axis.
    """
    rows = math.prod(source.shape[:-1])
    launch = device.program(_COLUMNS, {"source": source, "target": target}, (rows,))
    given = {
        "rows": rows,
        "count": count,
        "first": first,
        "given": source.shape[-1],
        "start": start,
        "taken": target.shape[-1],
    }
    return lambda: launch(**given)
