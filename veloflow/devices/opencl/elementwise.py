"""Formulas over whole arrays: one generated kernel for each set of formulas, layouts and dtypes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from veloflow.devices.base import Array, Device, Launch, Layout, Space, formula_dtype, space_of
from veloflow.devices.expressions import Element, Expression, Index, Scalar, elements_of, scalars_of
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, c_type, statements
from veloflow.devices.opencl.judge import samples, trial_of
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    LaunchScalar,
    Recipe,
    Share,
    Trial,
    kernel_source,
)

__all__ = ["FormulaCode", "elementwise", "formula_code", "sample_shape"]

#: vectors that are worth a work-item of their own on a CPU (16 KiB of floats)
_VECTORS = 256

_BODY = """
kernel void elementwise({parameters}const long rows, const long columns)
{{
    const long across = (columns + LANES - 1) / LANES;
{once}
    EACH_RUN(row, from, to, rows, across) {{
{each_row}
        for (long at = from; at < to; ++at) {{
            const long column = at * LANES;
            const long place = row * columns + column;
            const int count = (int)min((long)LANES, columns - column);
{each_vector}
        }}
    }}
}}
"""


@dataclass(frozen=True)
class FormulaCode:
    """Pieces of a kernel that computes formulas over a space.

    ``order`` are the array names in the order of the parameters ``a0``, ``a1`` …; the other fields
    are C text: parameters, what is loaded once, for each row, for each vector; and the C
    expressions of the formulas' values.
    """

    order: tuple[str, ...]
    scalars: tuple[str, ...]
    parameters: str
    once: str
    each_row: str
    each_vector: str
    values: tuple[str, ...]


def formula_code(
    formulas: Sequence[Expression],
    arrays: Mapping[str, Array],
    layouts: Mapping[str, Layout],
    numbers: Numbers,
) -> FormulaCode:
    """Write the loads and statements of ``formulas``; ``arrays`` are the parameters, in order."""
    order = tuple(arrays)
    scalars = tuple(scalars_of(*formulas))
    read = elements_of(*formulas)
    variables: dict[Expression, str] = {Index(0): "row_index", Index(1): "column_index"}
    variables |= {Scalar(name): f"v{place}" for place, name in enumerate(scalars)}
    variables |= {Element(name): f"e{order.index(name)}" for name in read}
    loads: dict[Layout, list[str]] = {"single": [], "column": [], "row": [], "full": []}
    for name in read:
        place, kind = order.index(name), c_type(arrays[name].dtype)
        loads[layouts[name]].append(f"const vec e{place} = {_load(layouts[name], place, kind)};")
    lines, values = statements(formulas, variables, numbers)
    once = [f"const vec v{place} = (vec)(s{place});" for place in range(len(scalars))]
    parameters = [
        f"global {c_type(array.dtype)} *a{place}" for place, array in enumerate(arrays.values())
    ] + [f"const real s{place}" for place in range(len(scalars))]
    return FormulaCode(
        order,
        scalars,
        "".join(f"{parameter}, " for parameter in parameters),
        _block(4, [*once, *loads["single"]]),
        _block(8, ["const vec row_index = (vec)((real)row);", *loads["column"]]),
        _block(
            12,
            [
                "const vec column_index = TO_VEC((whole)(column) + LANE);",
                *loads["row"],
                *loads["full"],
                *lines,
            ],
        ),
        tuple(values),
    )


def _load(layout: Layout, place: int, kind: str) -> str:
    if layout == "single":
        return f"(vec)((real)a{place}[0])"
    if layout == "column":
        return f"(vec)((real)a{place}[row])"
    at = "column" if layout == "row" else "place"
    return f"TO_VEC(LOAD({kind}, a{place} + {at}))"


def _block(indent: int, lines: Sequence[str]) -> str:
    return "\n".join(" " * indent + line for line in lines)


def sample_shape(layout: Layout, rows: int, columns: int) -> tuple[int, ...]:
    """Return the shape of an array of that layout over a small matrix."""
    return {
        "full": (rows, columns), "row": (1, columns), "column": (rows, 1), "single": (1, 1)
    }[layout]  # fmt: skip


def source_of(
    formulas: Mapping[str, Expression],
    code: FormulaCode,
    numbers: Numbers,
    arrays: Mapping[str, Array],
    prefix: str,
) -> str:
    """Return the text of the kernel."""
    stores = []
    for name, value in zip(formulas, code.values, strict=True):
        kind = c_type(arrays[name].dtype)
        target = f"a{code.order.index(name)} + place"
        stores.append(
            f"STORE({kind}, {target}, {_converted(kind, value, numbers, arrays[name])}, count);"
        )
    body = _BODY.format(
        parameters=code.parameters,
        once=code.once,
        each_row=code.each_row,
        each_vector=code.each_vector + "\n" + _block(12, stores),
    )
    return prefix + numbers.defines + kernel_source("ranges") + kernel_source("common") + body


def _converted(kind: str, value: str, numbers: Numbers, array: Array) -> str:
    if array.dtype == np.bool_:
        value = f"(({value} != (vec)(0)) ? (vec)(1) : (vec)(0))"
    return f"convert_{numbers.vector(kind)}({value})"


def elementwise(
    engine: Engine, formulas: Mapping[str, Expression], arrays: Mapping[str, Array]
) -> Launch:
    """Bind the formulas; see :meth:`veloflow.devices.base.Device.elementwise`."""
    space, used = space_of(formulas, arrays)
    if space.rows * space.columns == 0:
        return nothing

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.elementwise(formulas, twins)

    def variant() -> Variant:
        dtypes = [array.dtype for array in used.values()]
        numbers = engine.numbers(formula_dtype(used.values()), *dtypes)
        code = formula_code(list(formulas.values()), used, space.layouts, numbers)
        source = source_of(formulas, code, numbers, used, engine.defines)

        def trial() -> Trial:
            small = Space(*_sample_size(space, numbers), space.layouts)
            arrays = samples(
                {
                    name: (
                        sample_shape(space.layouts[name], small.rows, small.columns),
                        array.dtype,
                    )
                    for name, array in used.items()
                }
            )
            call = _call(engine, code, small, numbers)
            scalars = {name: 0.25 + place for place, name in enumerate(code.scalars)}
            return trial_of(twin, [call], arrays, list(formulas), scalars=scalars)

        recipe = Recipe("elementwise", source)
        call = replace(_call(engine, code, space, numbers), share=_share(code, space, used))
        return Variant([(recipe, ["elementwise"], trial)], [call])

    return engine.operation("elementwise", [variant], twin, used, list(formulas))


def _sample_size(space: Space, numbers: Numbers) -> tuple[int, int]:
    columns = 2 * numbers.lanes + 3
    return (1 if space.rows == 1 else 3), columns


def _call(engine: Engine, code: FormulaCode, space: Space, numbers: Numbers) -> Call:
    units = space.rows * -(-space.columns // numbers.lanes)
    size, local = engine.spread(units, _VECTORS)
    arguments = _arguments(code, numbers.dtype, space.rows, space.columns)
    return Call("elementwise", arguments, size, local)


def _arguments(
    code: FormulaCode, real: np.dtype[np.generic], rows: int, columns: int
) -> tuple[Argument, ...]:
    arguments: list[Argument] = [ArrayArgument(name) for name in code.order]
    arguments += [LaunchScalar(name, real) for name in code.scalars]
    return (*arguments, np.int64(rows), np.int64(columns))


def _share(code: FormulaCode, space: Space, used: Mapping[str, Array]) -> Share | None:
    """Return how the formulas may be divided by rows; None where rows are not worth it."""
    layouts = space.layouts
    shape = next(used[name].shape for name in used if layouts[name] == "full")
    rows, columns = space.rows, space.columns
    if rows == 1 and len(shape) > 1:  # seen as flat, for no array is a row or a column
        rows, columns = shape[0], math.prod(shape[1:])
    if rows == 1 or columns == 1:
        return None
    ours = frozenset(name for name in used if layouts[name] in ("full", "column"))
    real = formula_dtype(used.values())
    return Share(rows, ours, _arguments(code, real, rows, columns))
