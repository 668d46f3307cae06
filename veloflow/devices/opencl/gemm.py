"""Matrix multiplication: a register-tiled kernel with bias and activation in its write-out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from veloflow.devices.expressions import Expression, element
from veloflow.devices.numpy_lowering import substitute
from veloflow.devices.opencl.elementwise import elementwise
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, statements
from veloflow.devices.opencl.judge import samples, trial_of
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    Recipe,
    Trial,
    kernel_source,
)
from veloflow.devices.opencl.row_products import fits, row_products
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["gemm"]

#: rows of a tile by the bytes of a vector: with two vectors of columns its sums fill 12 of the 16
#: registers of AVX2, half of the 32 of AVX-512
_TALL = {32: 6}
_TALL_ELSEWHERE = 8
#: multiplications that are worth a work-item of their own on a CPU
_WORK = 32768
#: multiplications from which on, on a CPU, the BLAS of the host is used: quicker than the kernel by
#: a tenth at 512 x 512 x 512 and four times at 1024, but it waits for all launches before it, which
#: costs a step of many small products a third of its time
_BLAS = 1 << 25


@dataclass(frozen=True)
class _Problem:
    """The sizes of a multiplication, and how its operands lie."""

    rows: int
    columns: int
    inner: int
    transpose_a: bool
    transpose_b: bool
    alpha: float
    beta: float
    has_bias: bool
    #: how many products there are
    stack: int = 1

    @property
    def work(self) -> int:
        """How many numbers are multiplied."""
        return self.rows * self.columns * self.inner


def gemm(
    engine: Engine,
    a: Array,
    b: Array,
    out: Array,
    *,
    transpose_a: bool,
    transpose_b: bool,
    alpha: float,
    beta: float,
    bias: Array | None,
    activation: Expression | None,
    stacked: bool = False,
) -> Launch:
    """Bind a multiplication; see the interface."""
    problem = _problem(a, b, out, transpose_a, transpose_b, alpha, beta, bias, stacked)
    if out.size == 0:
        return nothing
    arrays = {"a": a, "b": b, "out": out}
    if bias is not None:
        arrays["bias"] = bias

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.gemm(
            twins["a"], twins["b"], twins["out"], transpose_a=transpose_a,
            transpose_b=transpose_b, alpha=alpha, beta=beta, bias=twins.get("bias"),
            activation=activation, stacked=stacked,
        )  # fmt: skip

    def variant() -> Variant:
        numbers = engine.numbers(out.dtype)
        recipe = Recipe("gemm", _source(engine, numbers, activation))
        calls, scratch = _calls(engine, problem, out.dtype)

        def trial() -> Trial:
            small = _Problem(
                _tall(engine) + 3, 2 * numbers.lanes + 3, 5, transpose_a, transpose_b, alpha, beta,
                problem.has_bias, 2 if stacked else 1,
            )  # fmt: skip
            stack = (small.stack,) if stacked else ()
            shapes: dict[str, tuple[int, ...]] = {
                "a": (*stack, *_shape(small.rows, small.inner, transposed=transpose_a)),
                "b": (*stack, *_shape(small.inner, small.columns, transposed=transpose_b)),
                "out": (*stack, small.rows, small.columns),
            }
            if small.has_bias:
                shapes["bias"] = (small.columns,)
            given = samples({name: (shape, out.dtype) for name, shape in shapes.items()})
            steps, sizes = _calls(engine, small, out.dtype)
            spare = {name: np.zeros(size, np.uint8) for name, size in sizes.items()}
            return trial_of(twin, steps, given, ["out"], scratch=spare)

        return Variant([(recipe, ["transpose", "gemm"], trial)], calls, scratch)

    if engine.hardware.is_cpu and problem.work >= _BLAS and not stacked:
        return _by_blas(engine, problem, a, b, out, bias, activation)
    is_plain = not (transpose_a or stacked) and (alpha, beta) == (1.0, 0.0)
    if is_plain and fits(
        engine, problem.rows, problem.columns, problem.inner, transpose_b=transpose_b
    ):
        return row_products(
            engine, a, b, out, transpose_b=transpose_b, bias=bias, activation=activation
        )
    return engine.operation("gemm", [variant], twin, arrays, ["out"])


def _by_blas(
    engine: Engine,
    problem: _Problem,
    a: Array,
    b: Array,
    out: Array,
    bias: Array | None,
    activation: Expression | None,
) -> Launch:
    """Bind a product by the host's BLAS; bias and activation are a kernel's, on all cores."""

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.gemm(
            twins["a"], twins["b"], twins["out"], transpose_a=problem.transpose_a,
            transpose_b=problem.transpose_b, alpha=problem.alpha, beta=problem.beta,
        )  # fmt: skip

    multiply = engine.on_host(twin, {"a": a, "b": b, "out": out})
    if bias is None and activation is None:
        return multiply
    formula = element("out")
    matrix = {"out": out.device.view(out, 0, (problem.rows, problem.columns))}
    if bias is not None:
        formula = formula + element("bias")
        matrix["bias"] = bias.device.view(bias, 0, (1, problem.columns))
    if activation is not None:
        formula = substitute(activation, {"x": formula})
    finish = elementwise(engine, {"out": formula}, matrix)

    def launch() -> None:
        multiply()
        finish()

    return cast("Launch", launch)


def _tall(engine: Engine) -> int:
    return _TALL.get(engine.hardware.vector_bytes, _TALL_ELSEWHERE)


def _shape(rows: int, columns: int, *, transposed: bool) -> tuple[int, int]:
    return (columns, rows) if transposed else (rows, columns)


def _problem(
    a: Array,
    b: Array,
    out: Array,
    transpose_a: bool,
    transpose_b: bool,
    alpha: float,
    beta: float,
    bias: Array | None,
    stacked: bool,
) -> _Problem:
    if stacked and any(len(one.shape) != 3 for one in (a, b, out)):
        raise ShapeError(f"stacked matrices are (n, rows, columns), not {a.shape} and {b.shape}")
    see = _stacked if stacked else _matrix
    rows, inner = see(a)[::-1] if transpose_a else see(a)
    other, columns = see(b)[::-1] if transpose_b else see(b)
    is_one = not stacked or len(a) == len(b) == len(out)
    if inner != other or see(out) != (rows, columns) or not is_one:
        raise ShapeError(
            f"cannot multiply {a.shape}{' transposed' * transpose_a} by "
            f"{b.shape}{' transposed' * transpose_b} into {out.shape}"
        )
    if bias is not None and bias.size != columns:
        raise ShapeError(f"a bias of {bias.size} numbers does not fit {columns} columns")
    if len({one.dtype for one in (a, b, out, bias) if one is not None}) != 1:
        raise ShapeError("the arrays of a multiplication must have one dtype")
    stack = len(out) if stacked else 1
    return _Problem(
        rows, columns, inner, transpose_a, transpose_b, alpha, beta, bias is not None, stack
    )


def _stacked(array: Array) -> tuple[int, int]:
    return array.shape[1], array.shape[2]


def _matrix(array: Array) -> tuple[int, int]:
    return (array.shape[0] if array.shape else 1), math.prod(array.shape[1:])


def _source(engine: Engine, numbers: Numbers, activation: Expression | None) -> str:
    lines, values = statements([activation or element("x")], {element("x"): "x"}, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    function = f"static vec activation(const vec x)\n{{\n{body}\n    return {values[0]};\n}}\n"
    parts = [engine.defines, numbers.defines, f"#define TALL {_tall(engine)}\n"]
    parts += [kernel_source("ranges"), kernel_source("common"), function, kernel_source("gemm")]
    return "".join(parts)


def _calls(
    engine: Engine, problem: _Problem, dtype: np.dtype[np.generic]
) -> tuple[list[Call], dict[str, int]]:
    """Return the launches, and the bytes of scratch memory that they use."""
    rows, columns, inner = problem.rows, problem.columns, problem.inner
    calls: list[Call] = []
    scratch: dict[str, int] = {}
    lanes = engine.numbers(np.dtype(dtype)).lanes
    panel = 2 * lanes
    b_name, b_row, b_tile, b_matrix = "b", columns, panel, inner * columns
    if problem.transpose_b:
        b_name, b_row, b_tile = "transposed", panel, inner * panel
        b_matrix = -(-columns // panel) * b_tile
        units = problem.stack * -(-columns // panel)
        scratch[b_name] = (problem.stack * b_matrix + 64) * dtype.itemsize
        size, local = engine.spread(units, max(1, _WORK // max(1, 8 * panel * inner)))
        constants = tuple(np.int64(n) for n in (problem.stack, columns, inner))
        operands = (ArrayArgument("b"), ArrayArgument(b_name))
        calls.append(Call("transpose", (*operands, *constants), size, local))
    a_row, a_inner = (1, rows) if problem.transpose_a else (inner, 1)
    tiles = problem.stack * -(-rows // _tall(engine)) * -(-columns // (2 * lanes))
    work = max(1, 2 * _tall(engine) * lanes * inner)
    size, local = engine.spread(tiles, max(1, _WORK * 4 // work))
    arguments: list[Argument] = [ArrayArgument("a"), ArrayArgument(b_name), ArrayArgument("out")]
    arguments += [ArrayArgument("bias" if problem.has_bias else "out")]
    arguments += [np.int32(problem.has_bias)]
    sizes = (problem.stack, rows, columns, inner, a_row, a_inner, b_row, b_tile, b_matrix)
    arguments += [np.int64(n) for n in sizes]
    arguments += [dtype.type(problem.alpha), dtype.type(problem.beta)]
    calls.append(Call("gemm", tuple(arguments), size, local))
    return calls, scratch
