"""Matrix multiplication by the method that was chosen for its size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.base import in_turn
from veloflow.devices.expressions import Expression, element
from veloflow.devices.numpy_lowering import substitute
from veloflow.devices.opencl.elementwise import elementwise
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.products import Problem, variant_of
from veloflow.devices.opencl.row_products import fits, row_products
from veloflow.devices.opencl.tiles import Blas, choose, size_of
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch
    from veloflow.devices.opencl.engine import Engine

__all__ = ["gemm"]


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
    problem = _problem(a, b, out, transpose_a, transpose_b, alpha, beta, bias, stacked, activation)
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

    facts = engine.hardware.facts
    size = size_of(facts, problem.rows, problem.columns, problem.inner, problem.matrices)
    scattered = problem.rows * problem.inner * problem.dtype.itemsize if transpose_a else 0
    can_blas = facts.is_cpu and not stacked
    methods = choose(engine.tuning.gemm, size, blas=can_blas, scattered=scattered)
    if isinstance(methods[0], Blas):
        return _by_blas(engine, problem, a, b, out, bias)
    is_plain = not (transpose_a or stacked) and (alpha, beta) == (1.0, 0.0)
    if is_plain and fits(
        engine, problem.rows, problem.columns, problem.inner, transpose_b=transpose_b
    ):
        return row_products(
            engine, a, b, out, transpose_b=transpose_b, bias=bias, activation=activation
        )
    variants = [
        partial(variant_of, engine, facts, problem, method, twin)
        for method in methods
        if not isinstance(method, Blas)
    ]
    return engine.operation("gemm", variants, twin, arrays, ["out"])


def _by_blas(
    engine: Engine,
    problem: Problem,
    a: Array,
    b: Array,
    out: Array,
    bias: Array | None,
) -> Launch:
    """Bind a product by the host's BLAS; bias and activation are a kernel's, on all cores."""

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        return host.gemm(
            twins["a"], twins["b"], twins["out"], transpose_a=problem.transpose_a,
            transpose_b=problem.transpose_b, alpha=problem.alpha, beta=problem.beta,
        )  # fmt: skip

    multiply = engine.on_host(twin, {"a": a, "b": b, "out": out})
    activation = problem.activation
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
    return in_turn([multiply, finish])


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
    activation: Expression | None,
) -> Problem:
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
    return Problem(
        rows, columns, inner, transpose_a, transpose_b, np.dtype(out.dtype), alpha, beta,
        bias is not None, activation, len(out) if stacked else None,
    )  # fmt: skip


def _stacked(array: Array) -> tuple[int, int]:
    return array.shape[1], array.shape[2]


def _matrix(array: Array) -> tuple[int, int]:
    return (array.shape[0] if array.shape else 1), math.prod(array.shape[1:])
