"""Rows picked by their numbers, with a change of dtype on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import c_type
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

__all__ = ["gather"]

#: elements that are worth a work-item of their own on a CPU
_ELEMENTS = 4096


def gather(engine: Engine, source: Array, indices: Array, out: Array, fill: float) -> Launch:
    """Bind ``out[i] = source[indices[i]]``; see the interface.

    An index past the end, which is the caller's mistake, gives ``fill`` as well.
    """
    width = math.prod(source.shape[1:])
    if not source.shape or out.size != indices.size * width:
        raise ShapeError(f"rows of {source!r} at {indices!r} do not fit into {out!r}")
    if indices.dtype.kind != "i":
        raise ShapeError(f"indices must be int32 or int64, not {indices.dtype}")
    if out.size == 0:
        return nothing

    def twin(host: Device, arrays: Mapping[str, Array]) -> Launch:
        return host.gather(arrays["source"], arrays["indices"], arrays["out"], fill=fill)

    def variant() -> Variant:
        recipe = _recipe(engine, source, indices, out)

        def trial() -> Trial:
            arrays = samples(
                {
                    "source": ((7, 19), source.dtype),
                    "indices": ((9,), indices.dtype),
                    "out": ((9, 19), out.dtype),
                }
            )
            arrays["indices"][3] = -1
            call = _call(engine, (9, 19, 7), out, fill)
            return trial_of(twin, [call], arrays, ["out"], exact=True)

        call = _call(engine, (indices.size, width, len(source)), out, fill)
        return Variant([(recipe, ["gather"], trial)], [call])

    arrays = {"source": source, "indices": indices, "out": out}
    return engine.operation("gather", [variant], twin, arrays, ["out"])


def _recipe(engine: Engine, source: Array, indices: Array, out: Array) -> Recipe:
    if out.dtype == np.bool_ and source.dtype != np.bool_:
        raise KernelError("no kernel gathers numbers as truth values")
    wide = np.dtype(np.float64) in (source.dtype, out.dtype)
    real = np.dtype(np.float64 if wide else np.float32)
    numbers = engine.numbers(real, source.dtype, indices.dtype, out.dtype)
    kind = c_type(out.dtype)
    lines = [
        f"#define SOURCE {c_type(source.dtype)}",
        f"#define INDEX {c_type(indices.dtype)}",
        f"#define OUT {kind}",
        f"typedef {c_type(source.dtype)}_lanes SOURCE_lanes;",
        f"typedef {kind}_lanes OUT_lanes;",
        f"#define CONVERT convert_{numbers.vector(kind)}",
        f"#define ALL(x) (({numbers.vector(kind)})(x))",
    ]
    text = engine.defines + numbers.defines + "\n".join(lines) + "\n"
    return Recipe("gather", text + "".join(map(kernel_source, ("ranges", "common", "gather"))))


def _call(engine: Engine, sizes: tuple[int, int, int], out: Array, fill: float) -> Call:
    rows, width, _ = sizes
    units = rows if engine.hardware.is_cpu else rows * width
    size, local = engine.spread(units, max(1, _ELEMENTS // max(1, width)))
    arguments: tuple[Argument, ...] = (
        *(ArrayArgument(name) for name in ("source", "indices", "out")),
        *(np.int64(number) for number in sizes),
        np.dtype(out.dtype).type(fill),
    )
    return Call("gather", arguments, size, local, Share(rows, frozenset({"indices", "out"})))
