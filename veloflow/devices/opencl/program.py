"""A unit's own kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.judge import runs
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    LaunchScalar,
    Recipe,
    Trial,
)
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch, Program
    from veloflow.devices.opencl.formulas import Numbers

__all__ = ["program", "types_of"]

#: elements of each array in the trial, in which the kernel must do nothing
_SAMPLE = 1024


def program(
    engine: Engine, own: Program, arrays: Mapping[str, Array], space: Sequence[int]
) -> Launch:
    """Bind a unit's own kernel; see the interface."""
    if set(arrays) != set(own.arrays):
        raise ShapeError(
            f"kernel {own.name!r} takes the arrays {sorted(own.arrays)}, got {sorted(arrays)}"
        )
    if not 1 <= len(space) <= 3:
        raise ShapeError(f"kernel {own.name!r} runs over one to three dimensions, not {len(space)}")
    if math.prod(space) == 0:
        return nothing

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.program(own, twins, space)

    def variant() -> Variant:
        real = _real(arrays[name].dtype for name in own.arrays)
        numbers = engine.numbers(real)  # refuses what the device cannot compute in
        recipe = Recipe(f"program {own.name}", types_of(numbers) + own.source)
        local = _local(engine, space)

        def trial() -> Trial:
            small = {name: np.zeros(_SAMPLE, array.dtype) for name, array in arrays.items()}
            return runs([_call(own, real, local, local)], small)

        return Variant([(recipe, [own.name], trial)], [_call(own, real, tuple(space), local)])

    return engine.operation(f"program {own.name}", [variant], twin, arrays, list(own.arrays))


def types_of(numbers: Numbers) -> str:
    """Return the types that a program may use besides ``real``; see the interface."""
    lanes, whole = numbers.lanes, "int" if numbers.real == "float" else "long"
    convert = f"convert_{{}}{'' if lanes == 1 else lanes}(x)"
    return f"""
#define real {numbers.real}
#define REALS {lanes}
typedef {numbers.vector(numbers.real)} reals;
typedef {numbers.vector(whole)} integers;
typedef reals loose_reals __attribute__((aligned(sizeof(real))));
typedef {numbers.vector("int")} loose_ints __attribute__((aligned(sizeof(int))));
#define TO_INTEGERS(x) {convert.format(whole)}
#define TO_INTS(x) {convert.format("int")}
"""


def _real(dtypes: Iterable[np.dtype[np.generic]]) -> np.dtype[np.generic]:
    """Return the first floating dtype."""
    return next((dtype for dtype in dtypes if dtype.kind == "f"), np.dtype(np.float32))


def _local(engine: Engine, space: Sequence[int]) -> tuple[int, ...]:
    """Return the group: a power of two that divides the first dimension, 64 at most.

    PoCL makes code for each size of group, so there must not be many.
    """
    return (math.gcd(space[0], 64), *(1 for _ in space[1:]))


def _call(
    own: Program,
    real: np.dtype[np.generic],
    size: tuple[int, ...],
    local: tuple[int, ...],
) -> Call:
    kinds = {"int": np.dtype(np.int32), "real": real}
    arguments: list[Argument] = [ArrayArgument(name) for name in own.arrays]
    arguments += [LaunchScalar(name, kinds[kind]) for name, kind in own.scalars]
    return Call(own.name, tuple(arguments), size, local, is_alone=True)
