"""Softmax over rows, and the first largest column of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.judge import samples, trial_of
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    Recipe,
    Share,
    Trial,
    kernel_source,
)
from veloflow.errors import KernelError, ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["softmax"]

#: elements that are worth a work-item of their own on a CPU
_ELEMENTS = 2048


def softmax(engine: Engine, x: Array, out: Array, winners: Array | None) -> Launch:
    """Bind the softmax of each row; see the interface."""
    rows = x.shape[0] if x.shape else 1
    columns = math.prod(x.shape[1:])
    if out.size != x.size or out.shape[:1] != x.shape[:1] or x.dtype != out.dtype or columns == 0:
        raise ShapeError(f"softmax of {x!r} cannot go to {out!r}")
    if winners is not None and winners.size != rows:
        raise ShapeError(f"softmax of {rows} rows cannot put its winners into {winners!r}")
    if rows == 0:
        return nothing
    arrays = {"x": x, "out": out}
    if winners is not None:
        arrays["winners"] = winners

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.softmax(twins["x"], twins["out"], twins.get("winners"))

    def variant() -> Variant:
        numbers = engine.numbers(x.dtype)
        if winners is not None and winners.dtype != np.int32:
            raise KernelError(f"winners are int32, not {winners.dtype}")
        source = engine.defines + numbers.defines
        source += "".join(map(kernel_source, ("ranges", "common", "softmax")))

        def trial() -> Trial:
            width = 2 * numbers.lanes + 3
            small = samples({
                "x": ((3, width), x.dtype), "out": ((3, width), x.dtype),
                "winners": ((3,), np.dtype(np.int32)),
            })  # fmt: skip
            calls = [_call(engine, 3, width, has_winners=True)]
            return trial_of(twin, calls, small, ["out", "winners"])

        call = _call(engine, rows, columns, has_winners=winners is not None)
        return Variant([(Recipe("softmax", source), ["softmax"], trial)], [call])

    return engine.operation("softmax", [variant], twin, arrays, [*arrays][1:])


def _call(engine: Engine, rows: int, columns: int, *, has_winners: bool) -> Call:
    size, local = engine.spread(rows, max(1, _ELEMENTS // columns))
    arguments: tuple[Argument, ...] = (
        ArrayArgument("x"),
        ArrayArgument("out"),
        ArrayArgument("winners" if has_winners else "out"),
        np.int32(has_winners),
        np.int64(rows),
        np.int64(columns),
    )
    share = Share(rows, frozenset({"x", "out", "winners"}))
    return Call("softmax", arguments, size, local, share)
