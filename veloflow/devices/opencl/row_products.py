"""Products of matrices that go by rows: small ones, on a processor.

A work-item computes some rows of the result from the same rows of the first matrix and all of the
second, which is read as it lies, without packing. So the launch can become one with those before
and after it that go by rows as well, and costs no launch of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.expressions import Expression, element
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, statements
from veloflow.devices.opencl.judge import samples, trial_of
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    Recipe,
    Share,
    Trial,
    kernel_source,
)

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["fits", "row_products"]

#: elements of the second matrix up to which it is read again for each few rows: it must stay in the
#: second-level cache
_SECOND = 1 << 17
#: numbers in a dot product from which on it is worth to add up lanes for each, and columns up to
#: which it does not matter
_LONG, _FEW = 64, 32
#: the least and the largest number of rows, and how many a work-item takes
_ROWS, _MOST, _BLOCK = 16, 4096, 4


def fits(engine: Engine, rows: int, columns: int, inner: int, *, transpose_b: bool) -> bool:
    """Whether a product of those sizes is to go by rows.

    By itself it is not slower than the tiles of :mod:`gemm`, and quicker with a transposed B, which
    need not be packed: 157 us for 100 x 784 x 100 beside 200, and 189 of OpenBLAS; 77 us beside 112
    for 32 x 784 x 128; but 81 beside 55 for 100 x 28 x 512 (one core of an AMD EPYC).
    """
    if transpose_b and inner < _LONG and columns > _FEW:
        return False
    is_small = columns * inner <= _SECOND and columns > 0 and inner > 0
    return engine.hardware.is_cpu and is_small and _ROWS <= rows <= _MOST


def row_products(
    engine: Engine,
    a: Array,
    b: Array,
    out: Array,
    *,
    transpose_b: bool,
    bias: Array | None,
    activation: Expression | None,
) -> Launch:
    """Bind ``out = activation(a b + bias)``; sizes and dtypes have been looked at."""
    arrays = {"a": a, "b": b, "out": out} | ({} if bias is None else {"bias": bias})

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.gemm(
            twins["a"], twins["b"], twins["out"], transpose_b=transpose_b,
            bias=twins.get("bias"), activation=activation,
        )  # fmt: skip

    has_bias, is_finished = bias is not None, bias is not None or activation is not None

    def variant() -> Variant:
        numbers = engine.numbers(out.dtype)
        recipe = Recipe("row_products", _source(engine, numbers, activation, transpose_b))

        def trial() -> Trial:
            rows, columns, inner = 7, 2 * numbers.lanes + 3, 2 * numbers.lanes + 5
            shapes: dict[str, tuple[int, ...]] = {
                "a": (rows, inner),
                "b": (columns, inner) if transpose_b else (inner, columns),
                "out": (rows, columns),
            }
            if has_bias:
                shapes["bias"] = (columns,)
            given = samples({name: (shape, out.dtype) for name, shape in shapes.items()})
            call = _call(engine, rows, columns, inner, has_bias, is_finished)
            return trial_of(twin, [replace(call, size=(2,))], given, ["out"])

        rows, columns = len(out), math.prod(out.shape[1:])
        inner = math.prod(a.shape[1:])
        call = _call(engine, rows, columns, inner, has_bias, is_finished)
        return Variant([(recipe, ["row_products"], trial)], [call])

    return engine.operation("row_products", [variant], twin, arrays, ["out"])


def _call(
    engine: Engine, rows: int, columns: int, inner: int, has_bias: bool, is_finished: bool
) -> Call:
    arguments: tuple[Argument, ...] = (
        *(ArrayArgument(name) for name in ("a", "b", "out")),
        ArrayArgument("bias" if has_bias else "out"),
        np.int32(has_bias),
        np.int32(is_finished),
        *(np.int64(number) for number in (rows, columns, inner)),
    )
    share = Share(rows, frozenset({"a", "out"}))
    items = share.items(engine.hardware.compute_units)
    return Call("row_products", arguments, (items,), (1,), share)


def _source(
    engine: Engine, numbers: Numbers, activation: Expression | None, transpose_b: bool
) -> str:
    lines, values = statements([activation or element("x")], {element("x"): "x"}, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    function = f"static vec activation(const vec x)\n{{\n{body}\n    return {values[0]};\n}}\n"
    parts = [engine.defines, numbers.defines]
    if transpose_b:
        parts += ["#define TRANSPOSED\n", f"#define OVER_LANES {_sum_of_lanes(numbers)}\n"]
    parts += [kernel_source("ranges"), kernel_source("common"), function]
    return "".join([*parts, kernel_source("row_products")])


def _sum_of_lanes(numbers: Numbers) -> str:
    """Return the statements that add up the lanes of ``sums``, halves first."""
    if numbers.lanes == 1:
        return "result = sums;"
    words, width, name = [], numbers.lanes // 2, "sums"
    while width > 1:
        words.append(f"const {numbers.real}{width} half{width} = {name}.lo + {name}.hi;")
        name, width = f"half{width}", width // 2
    return " ".join([*words, f"result = {name}.lo + {name}.hi;"])
