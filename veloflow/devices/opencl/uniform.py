"""Random numbers from a counter, bit for bit those of :mod:`veloflow.devices.random`."""

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
    LaunchScalar,
    Recipe,
    Trial,
    kernel_source,
)
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["uniform"]

#: blocks of four numbers that are worth a work-item of their own on a CPU
_BLOCKS = 512

_WORD = np.dtype(np.uint64)


def uniform(engine: Engine, out: Array, key: tuple[int, int]) -> Launch:
    """Bind the filling of ``out``; see the interface."""
    if out.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ShapeError(f"random numbers are float32 or float64, not {out.dtype}")
    if out.size == 0:
        return nothing

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.uniform(twins["out"], key)

    def variant() -> Variant:
        numbers = engine.numbers(out.dtype)
        prefix = f"{engine.defines}#define real {numbers.real}\n#define BITS "
        source = prefix + ("24\n" if numbers.real == "float" else "53\n")
        source += kernel_source("ranges") + kernel_source("uniform")

        def trial() -> Trial:
            small = samples({"out": ((5, 7), out.dtype)})
            scalars = {"stream": 3, "row": 11}
            call = _call(engine, (5, 7), key)
            return trial_of(twin, [call], small, ["out"], scalars=scalars, exact=True)

        recipe = Recipe("uniform", source)
        return Variant([(recipe, ["uniform"], trial)], [_call(engine, out.shape, key)])

    return engine.operation("uniform", [variant], twin, {"out": out}, ["out"])


def _call(engine: Engine, shape: tuple[int, ...], key: tuple[int, int]) -> Call:
    rows = shape[0] if shape else 1
    columns = math.prod(shape[1:])
    size, local = engine.spread(rows * -(-columns // 4), _BLOCKS)
    arguments: tuple[Argument, ...] = (
        ArrayArgument("out"),
        np.int64(rows),
        np.int64(columns),
        np.uint64(key[0]),
        np.uint64(key[1]),
        LaunchScalar("stream", _WORD),
        LaunchScalar("row", _WORD),
    )
    return Call("uniform", arguments, size, local)
