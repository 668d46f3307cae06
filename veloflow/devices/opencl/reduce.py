"""Sums and maxima of formulas, in an order that depends on the sizes alone.

The matrix is cut into pieces of fixed size, each piece is reduced by one work-item, and a second
kernel reduces the results of the pieces one after another. So equal input gives equal bits,
whatever the load of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from veloflow.devices.base import Array, Device, Launch, Space, formula_dtype
from veloflow.devices.expressions import Const, Expression, Index, element, elements_of, walk
from veloflow.devices.opencl.elementwise import (
    FormulaCode,
    elementwise,
    formula_code,
    sample_shape,
)
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, c_type
from veloflow.devices.opencl.judge import Twin, samples, trial_of
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

__all__ = ["reduce"]

#: names among the arrays; no formula's name has a space
_OUT, _PIECES, _MATRIX = "the result", "the pieces", "the matrix"
#: elements of a piece: 16 us of float32 arithmetic at worst, so pieces can be shared out
_PIECE = 8192
#: the same where thousands of work-items wait for work
_PIECE_OF_MANY = 256

_ACROSS = """
kernel void reduce_pieces({parameters}global RESULT *results, const long rows, const long columns,
                          const long height, const long width)
{{
    const long down = (rows + height - 1) / height, across = (columns + width - 1) / width;
{once}
    EACH(piece, down * across) {{
        const long first = piece / across * height, last = min(rows, first + height);
        const long begin = piece % across * width, end = min(columns, begin + width);
        START(total);
        for (long row = first; row < last; ++row) {{
{each_row}
            for (long column = begin; column < end; column += LANES) {{
                const long place = row * columns + column;
{each_vector}
                ADD(total, FIRST(end - column, {value}, IDENTITY));
            }}
        }}
        results[piece] = TO_RESULT(over_lanes(total));
    }}
}}
"""

_DOWN = """
kernel void reduce_pieces({parameters}global RESULT *results, const long rows, const long columns,
                          const long height, const long width)
{{
    const long down = (rows + height - 1) / height, across = (columns + LANES - 1) / LANES;
{once}
    EACH(piece, down * across) {{
        const long first = piece / across * height, last = min(rows, first + height);
        const long column = piece % across * LANES;
        START(total);
        for (long row = first; row < last; ++row) {{
            const long place = row * columns + column;
{each_row}
{each_vector}
            ADD(total, {value});
        }}
        global RESULT *target = results + piece / across * columns + column;
        STORE(RESULT, target, TO_RESULT_LANES(total), columns - column);
    }}
}}
"""


@dataclass(frozen=True)
class Pieces:
    """How a matrix is cut: pieces of ``height`` x ``width``, ``count`` results for each output."""

    height: int
    width: int
    count: int
    outputs: int
    output_step: int  #: from one output's first result to the next output's
    result_step: int  #: from one result of an output to the next

    @staticmethod
    def of(rows: int, columns: int, axis: int | None, piece: int = _PIECE) -> Pieces:
        """Cut a matrix for a reduction over that axis into pieces of about ``piece`` elements."""
        width = min(columns, piece)
        across = -(-columns // width)
        if axis == 1:
            return Pieces(1, width, across, rows, across, 1)
        if axis == 0:
            height = max(64, piece // columns)
            return Pieces(height, width, -(-rows // height), columns, 1, columns)
        height = max(1, piece // width)
        return Pieces(height, width, -(-rows // height) * across, 1, 0, 1)


@dataclass(frozen=True)
class _Work:
    """A reduction that is being bound."""

    engine: Engine
    operation: str
    axis: int | None
    numbers: Numbers
    code: FormulaCode

    @property
    def piece(self) -> int:
        """The elements of a piece."""
        return _PIECE if self.engine.hardware.is_cpu else _PIECE_OF_MANY

    @property
    def accumulator(self) -> np.dtype[Any]:
        """The dtype of the running total."""
        if self.operation == "sum" and self.engine.hardware.has_double:
            return np.dtype(np.float64)
        return self.numbers.dtype

    def source(self, result: np.dtype[Any]) -> str:
        """Return the text of the kernel that reduces each piece to a ``result``."""
        prefix = self.engine.defines + self.numbers.defines + self._types(result)
        names = ("ranges", "common", "reduce")
        template = _DOWN if self.axis == 0 else _ACROSS
        return (
            prefix
            + "".join(map(kernel_source, names))
            + template.format(
                parameters=self.code.parameters,
                once=self.code.once,
                each_row=self.code.each_row,
                each_vector=self.code.each_vector,
                value=self.code.values[0],
            )
        )

    def fold_source(self, result: np.dtype[Any]) -> str:
        """Return the text of the kernel that reduces the results of pieces to a ``result``."""
        numbers = Numbers(c_type(self.accumulator), 1)
        prefix = self.engine.defines + numbers.defines + self._types(result, numbers)
        return prefix + "".join(map(kernel_source, ("ranges", "common", "reduce", "fold")))

    def _types(self, result: np.dtype[Any], numbers: Numbers | None = None) -> str:
        numbers = numbers or self.numbers
        kind, whole = c_type(result), c_type(self.accumulator)
        lines = [
            f"#define ACCUMULATOR {whole}",
            f"#define RESULT {kind}",
            f"typedef {numbers.vector(whole)} totals;",
            f"typedef {kind}_lanes RESULT_lanes;",
            f"#define TO_TOTALS(x) convert_{numbers.vector(whole)}(x)",
            f"#define TO_RESULT(x) convert_{kind}(x)",
            f"#define TO_RESULT_LANES(x) convert_{numbers.vector(kind)}(x)",
        ]
        if self.operation == "max":
            lines.append("#define MAXIMUM")
        elif whole == "float":
            lines.append("#define COMPENSATED")
        return "\n".join(lines) + "\n"

    def calls(self, space: Space, pieces: Pieces) -> list[Call]:
        """Return the launches over a matrix."""
        target = _OUT if pieces.count == 1 else _PIECES
        units = pieces.count * pieces.outputs
        if self.axis == 0:
            units = pieces.count * -(-space.columns // self.numbers.lanes)
        elements = space.rows * space.columns // max(1, units)
        size, local = self.engine.spread(units, max(1, _PIECE // max(1, elements)))
        arguments: list[Argument] = [ArrayArgument(name) for name in self.code.order]
        arguments += [LaunchScalar(name, self.numbers.dtype) for name in self.code.scalars]
        arguments += [ArrayArgument(target)]
        sizes = (space.rows, space.columns, pieces.height, pieces.width)
        arguments += [np.int64(number) for number in sizes]
        calls = [Call("reduce_pieces", tuple(arguments), size, local)]
        if pieces.count > 1:
            calls.append(self.fold_call(pieces))
        return calls

    def fold_call(self, pieces: Pieces) -> Call:
        """Return the launch that brings the results of pieces together."""
        size, local = self.engine.spread(pieces.outputs, max(1, _PIECE // pieces.count))
        steps = (pieces.outputs, pieces.count, pieces.output_step, pieces.result_step)
        arguments: tuple[Argument, ...] = (
            ArrayArgument(_PIECES),
            ArrayArgument(_OUT),
            *(np.int64(number) for number in steps),
        )
        return Call("fold", arguments, size, local)


def reduce(
    engine: Engine,
    operation: Literal["sum", "max"],
    formula: Expression,
    arrays: Mapping[str, Array],
    out: Array,
    axis: Literal[0, 1] | None,
) -> Launch:
    """Bind the reduction; see :meth:`veloflow.devices.base.Device.reduce`."""
    largest = max(arrays.values(), key=lambda array: array.size)
    used = {name: arrays[name] for name in elements_of(formula)}
    indexed = any(isinstance(node, Index) for node in walk(formula))
    space = Space.of(largest.shape, used, matrix=axis is not None or indexed)
    outputs = {0: space.columns, 1: space.rows, None: 1}[axis]
    if out.size != outputs:
        raise ShapeError(f"the result has {outputs} elements, but out has shape {out.shape}")
    if space.rows * space.columns == 0:
        return _of_nothing(engine, operation, out)

    names = [key for key, array in arrays.items() if array is largest][:1]

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        inputs = {name: array for name, array in twins.items() if name != _OUT}
        return host.reduce(operation, formula, inputs, twins[_OUT], axis=axis)

    def variant() -> Variant:
        dtypes = [array.dtype for array in used.values()]
        if operation == "sum" and engine.hardware.has_double:
            dtypes.append(np.dtype(np.float64))
        numbers = engine.numbers(formula_dtype(used.values()), *dtypes)
        code = formula_code([formula], used, space.layouts, numbers)
        return _variant(_Work(engine, operation, axis, numbers, code), space, used, out, twin)

    bound = {**used, **{name: arrays[name] for name in names}, _OUT: out}
    return engine.operation(f"reduce {operation}", [variant], twin, bound, [_OUT])


def _variant(
    work: _Work, space: Space, used: Mapping[str, Array], out: Array, twin: Twin
) -> Variant:
    pieces = Pieces.of(space.rows, space.columns, work.axis, work.piece)
    is_whole = pieces.count == 1
    result = np.dtype(out.dtype) if is_whole else work.accumulator

    def trial() -> Trial:
        rows = 5 if space.rows > 1 else 1
        columns = 2 * work.numbers.lanes + 3
        small = Space(rows, columns, space.layouts)
        cut = Pieces.of(rows, columns, work.axis, work.piece)
        shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            name: (sample_shape(space.layouts[name], rows, columns), np.dtype(array.dtype))
            for name, array in used.items()
        }
        shapes[_MATRIX] = ((rows, columns), np.dtype(np.uint8))
        shapes[_OUT] = ((cut.outputs,), result)
        scalars = dict.fromkeys(work.code.scalars, 0.75)
        calls = work.calls(small, cut)
        return trial_of(twin, calls, samples(shapes), [_OUT], scalars=scalars)

    parts = [(Recipe(f"reduce {work.operation}", work.source(result)), ["reduce_pieces"], trial)]
    scratch = {}
    if not is_whole:
        fold = Recipe("fold", work.fold_source(np.dtype(out.dtype)))
        parts.append((fold, ["fold"], lambda: _fold_trial(work, np.dtype(out.dtype))))
        scratch[_PIECES] = pieces.count * pieces.outputs * work.accumulator.itemsize
    return Variant(parts, work.calls(space, pieces), scratch)


def _fold_trial(work: _Work, result: np.dtype[Any]) -> Trial:
    outputs, count = 3, 7

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        operation: Literal["sum", "max"] = "max" if work.operation == "max" else "sum"
        return host.reduce(operation, element("p"), {"p": twins[_PIECES]}, twins[_OUT], axis=1)

    shapes = {_PIECES: ((outputs, count), work.accumulator), _OUT: ((outputs,), result)}
    call = work.fold_call(Pieces(1, 1, count, outputs, count, 1))
    return trial_of(twin, [call], samples(shapes), [_OUT])


def _of_nothing(engine: Engine, operation: str, out: Array) -> Launch:
    """Bind what the sum or maximum of no elements is."""
    if out.size == 0:
        return nothing
    identity = Const(0.0 if operation == "sum" else -np.inf)
    return elementwise(engine, {"out": identity}, {"out": out})
