"""The NumPy device: the judge of what is right, and a backend for machines without OpenCL.

Everything is worked out when an operation is bound: views, scratch memory, the list of calls.
A launch makes these calls and allocates nothing.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from veloflow.devices.base import (
    Array,
    Device,
    DeviceInfo,
    Launch,
    Program,
    Space,
    formula_dtype,
    space_of,
)
from veloflow.devices.copying import copy_into
from veloflow.devices.expressions import Expression, Index, element, elements_of, walk
from veloflow.devices.joint_products import check_joint_products, one_by_one
from veloflow.devices.numpy_blocks import RowBlocks
from veloflow.devices.numpy_convolution import Convolution, Gradient, check_convolution
from veloflow.devices.numpy_lowering import substitute
from veloflow.devices.numpy_plan import BLOCK, Plan, aligned_zeros, launch_of
from veloflow.devices.numpy_precision import precise_product
from veloflow.devices.recurrence import by_steps, check_recurrence
from veloflow.errors import DeviceError, KernelError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from veloflow.devices.numpy_plan import AnyArray, Call
    from veloflow.devices.recurrence import Inputs, Recurrence
    from veloflow.devices.window import Window

__all__ = ["NumpyDevice"]

#: rows of softmax up to this length are turned into columns first: NumPy reduces a 100 x 10 matrix
#: in 1.8 us over rows and in 6.3 us over columns, and is even at about 64
_NARROW = 64
#: products up to this size go through np.dot, which has less to look at (0.40 us against 0.66 us
#: for 2 x 2) but fills its result with zeros first (90 us against 71 us for 784 x 100)
_SMALL = 4096


class NumpyDevice(Device):
    """Computes on the host with NumPy and its BLAS; launches are done when they return."""

    name = "numpy"

    def __init__(self) -> None:
        self._spares: dict[str, Array] = {}

    # -- memory -------------------------------------------------------------------------------

    def allocate(self, array: Array) -> None:
        if array.memory is None:
            array.memory = aligned_zeros(array.shape, array.dtype)

    def host(self, array: Array) -> AnyArray:
        return self._host(array)

    def adopt(self, memory: AnyArray) -> Array:
        array = Array(self, memory.shape, memory.dtype)
        array.memory = memory
        return array

    def view(self, array: Array, start: int, shape: Sequence[int]) -> Array:
        part = Array(self, shape, array.dtype)
        if start < 0 or start + part.size > array.size:
            raise ShapeError(
                f"a view of {part.size} elements from {start} on does not fit into {array!r}"
            )
        flat = self._host(array).reshape(-1)
        part.memory = flat[start : start + part.size].reshape(part.shape)
        return part

    def read(self, array: Array) -> AnyArray:
        values = self._host(array).view()
        values.flags.writeable = False
        return values

    def write(self, array: Array, values: ArrayLike) -> None:
        host = np.asarray(values)
        try:
            copy_into(self._host(array), host)
        except ValueError as error:
            raise ShapeError(f"cannot write values of shape {host.shape} to {array!r}") from error

    def _host(self, array: Array) -> AnyArray:
        """Return the memory of one of this device's arrays."""
        if array.device is not self:
            raise DeviceError(f"{array!r} lives on another device than {self.name!r}")
        if array.memory is None:
            raise DeviceError(f"{array!r} has no memory yet; allocate it before binding")
        return cast("AnyArray", array.memory)

    def _matrix(self, array: Array) -> AnyArray:
        """Return the memory seen as (first, all the rest)."""
        return self._host(array).reshape(_matrix_shape(array))

    # -- operations ---------------------------------------------------------------------------

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
        bias: Array | None = None,
        activation: Expression | None = None,
        stacked: bool = False,
    ) -> Launch:
        see = _stack if stacked else _matrix
        left, right, target = (see(self._host(one)) for one in (a, b, out))
        left = left.swapaxes(-1, -2) if transpose_a else left
        right = right.swapaxes(-1, -2) if transpose_b else right
        _check_gemm(left, right, target, bias)
        product = aligned_zeros(target.shape, target.dtype) if beta else target
        multiply = np.dot if target.size < _SMALL and not stacked else np.matmul
        calls: list[Call] = [(multiply, (left, right, product))]
        if self.has_one_thread and transpose_b and not stacked:
            blocks = RowBlocks.fitting(left, right, product)
            calls = calls if blocks is None else [(blocks, ())]
        if self.precision_level:
            calls = precise_product(left, right, product, self.precision_level)
        product, target = (one.reshape(-1, target.shape[-1]) for one in (product, target))
        # what follows the product is one formula over blocks that the cache holds
        formula, leaves = element("product"), {"product": product}
        formula = formula * alpha if alpha != 1.0 else formula
        if beta:
            formula, leaves["out"] = formula + element("out") * beta, target
        if bias is not None:
            formula, leaves["bias"] = formula + element("bias"), self._host(bias)
        formula = substitute(activation, {"x": formula}) if activation is not None else formula
        if formula == element("product"):
            return launch_of(calls)
        layouts = {name: "row" if name == "bias" else "full" for name in leaves}
        space = Space(len(target), target.shape[1], cast("dict[str, Any]", layouts))
        plan = Plan([formula], leaves, space, target.dtype, [target])
        return launch_of(calls + plan.calls(), plan.scalars)

    def joint_products(
        self, a: Array, factors: Sequence[Array | None], outs: Sequence[Array]
    ) -> Launch:
        check_joint_products(a, factors, outs)
        return one_by_one(self, a, factors, outs)

    def convolution(
        self,
        x: Array,
        weights: Array,
        out: Array,
        window: Window,
        *,
        groups: int = 1,
        bias: Array | None = None,
        activation: Expression | None = None,
    ) -> Launch:
        check_convolution(x, weights, out, window, groups, [bias])
        if bias is not None and bias.size != len(weights):
            raise ShapeError(f"a bias of shape {bias.shape} does not fit {len(weights)} kernels")
        sums = Convolution(self._host(x), self._host(weights), self._host(out), window, groups)
        calls: list[Call] = [(sums, ())] if out.size else []
        formula, arrays = (
            element("out"),
            {"out": self.view(out, 0, (out.size // len(weights), len(weights)))},
        )
        if bias is not None:
            formula, arrays["bias"] = formula + element("bias"), bias.reshape(1, bias.size)
        if activation is not None:
            formula = substitute(activation, {"x": formula})
        if formula == element("out") or not out.size:
            return launch_of(calls)
        return launch_of([*calls, (self.elementwise({"out": formula}, arrays), ())])

    def convolution_gradient(
        self,
        err: Array,
        x: Array,
        weights: Array,
        window: Window,
        *,
        groups: int = 1,
        y: Array | None = None,
        slope: Expression | None = None,
        weights_gradient: Array | None = None,
        bias_gradient: Array | None = None,
        input_gradient: Array | None = None,
    ) -> Launch:
        gradients = [weights_gradient, bias_gradient, input_gradient]
        check_convolution(x, weights, err, window, groups, [y, *gradients])
        delta, calls = self._delta(err, y, slope)
        if weights_gradient is not None or input_gradient is not None:
            hosts = [None if one is None else self._host(one) for one in gradients]
            deltas, images = self._host(delta), self._host(x)
            both = Gradient(deltas, images, self._host(weights), window, groups, hosts[0], hosts[2])
            calls.append((both, ()))
        if bias_gradient is not None:
            rows = self.view(delta, 0, (delta.size // len(weights), len(weights)))
            total = self.reduce("sum", element("d"), {"d": rows}, bias_gradient, axis=0)
            calls.append((total, ()))
        return launch_of(calls)

    def _delta(
        self, err: Array, y: Array | None, slope: Expression | None
    ) -> tuple[Array, list[Call]]:
        """Return the gradient by the sums of a layer, and the calls that make it."""
        if slope is None:
            return err, []
        if y is None or y.size != err.size:
            raise ShapeError("the slope of a convolution is a formula of its output; give y")
        delta = self._spare(err.shape, err.dtype)
        arrays = {"err": err, "y": y, "d": delta}
        return delta, [(self.elementwise({"d": element("err") * slope}, arrays), ())]

    def _spare(self, shape: Sequence[int], dtype: np.dtype[np.generic]) -> Array:
        """Return memory that launches use for as long as they run, all of them the same."""
        size, known = math.prod(shape), self._spares.get(dtype.str)
        if known is None or known.size < size:
            known = self._spares[dtype.str] = self.zeros((size,), dtype)
        return self.view(known, 0, shape)

    def elementwise(
        self, formulas: Mapping[str, Expression], arrays: Mapping[str, Array]
    ) -> Launch:
        space, used = space_of(formulas, arrays)
        leaves = {name: self._host(array) for name, array in used.items()}
        targets = [leaves[name] for name in formulas]
        plan = Plan([*formulas.values()], leaves, space, formula_dtype(used.values()), targets)
        return launch_of(plan.calls(), plan.scalars)

    def reduce(
        self,
        operation: Literal["sum", "max"],
        formula: Expression,
        arrays: Mapping[str, Array],
        out: Array,
        *,
        axis: Literal[0, 1] | None,
    ) -> Launch:
        largest = max(arrays.values(), key=lambda array: array.size)
        used = {name: arrays[name] for name in elements_of(formula)}
        indexed = any(isinstance(node, Index) for node in walk(formula))
        space = Space.of(largest.shape, used, matrix=axis is not None or indexed)
        wanted = {0: space.columns, 1: space.rows, None: 1}[axis]
        if out.size != wanted:
            raise ShapeError(f"the result has {wanted} elements, but out has shape {out.shape}")
        if operation == "max" and space.rows * space.columns == 0:
            raise ShapeError(f"there is no maximum over no elements: {largest!r}")
        leaves = {name: self._host(array) for name, array in used.items()}
        plan = Plan([formula], leaves, space, formula_dtype(used.values()), [None])
        is_long = self.precision_level == 2 and plan.real == np.float64
        wide = np.dtype(np.longdouble if is_long else np.float64)
        calls = _reduction(operation, plan, self._host(out).reshape(-1), axis, wide)
        return launch_of(calls, plan.scalars)

    def softmax(self, x: Array, out: Array, winners: Array | None = None) -> Launch:
        source, target = self._matrix(x), self._matrix(out)
        rows, columns = source.shape
        if target.shape != source.shape or target.dtype != source.dtype or columns == 0:
            raise ShapeError(f"softmax of {x!r} cannot go to {out!r}")
        if winners is not None and winners.size != rows:
            raise ShapeError(f"softmax of {rows} rows cannot put its winners into {winners!r}")
        first = None if winners is None else self._host(winners).reshape(-1)
        steps = _narrow_softmax if columns <= _NARROW else _wide_softmax
        return launch_of(steps(source, target, first))

    def gather(self, source: Array, indices: Array, out: Array, *, fill: float = 0.0) -> Launch:
        if out.size != indices.size * math.prod(source.shape[1:]) or not source.shape:
            raise ShapeError(f"rows of {source!r} at {indices!r} do not fit into {out!r}")
        if indices.dtype.kind != "i":
            raise ShapeError(f"indices must be int32 or int64, not {indices.dtype}")
        rows, where = self._matrix(source), self._host(indices).reshape(-1)
        target = self._host(out).reshape(len(where), rows.shape[1])
        if target.size == 0:
            return launch_of([])
        return launch_of([(_Gather(rows, where, target, fill), ())])

    def uniform(self, out: Array, key: tuple[int, int]) -> Launch:
        if out.dtype not in (np.float32, np.float64):
            raise ShapeError(f"random numbers are float32 or float64, not {out.dtype}")
        return _uniform_launch(self._matrix(out), key)

    def program(
        self, program: Program, arrays: Mapping[str, Array], space: Sequence[int]
    ) -> Launch:
        if arrays.keys() != set(program.arrays):
            raise ShapeError(
                f"program {program.name!r} takes the arrays {program.arrays}, got {(*arrays,)}"
            )
        hosts = {name: self._host(arrays[name]) for name in program.arrays}
        return _program_launch(program, hosts)

    def recurrence(
        self,
        recurrence: Recurrence,
        arrays: Mapping[str, Array],
        weights: Array,
        inputs: Inputs | None = None,
    ) -> Launch:
        check_recurrence(recurrence, arrays, weights, inputs)
        return by_steps(self, recurrence, arrays, weights, inputs)

    def synchronize(self) -> None:
        """Return at once: a launch is done when it returns."""

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            name=self.name,
            kind="numpy",
            hardware=_processor_name(),
            driver=f"NumPy {np.__version__}, {_blas_name()}",
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            compute_units=len(os.sched_getaffinity(0)),
        )


def _matrix_shape(array: Array) -> tuple[int, int]:
    rows = array.shape[0] if array.shape else 1
    return rows, math.prod(array.shape[1:])


# -- gemm -----------------------------------------------------------------------------------------


def _matrix(array: AnyArray) -> AnyArray:
    return array.reshape(len(array) if array.ndim else 1, math.prod(array.shape[1:]))


def _stack(array: AnyArray) -> AnyArray:
    if array.ndim != 3:
        raise ShapeError(f"stacked matrices are (n, rows, columns), not {array.shape}")
    return array


def _check_gemm(left: AnyArray, right: AnyArray, out: AnyArray, bias: Array | None) -> None:
    wanted = (*left.shape[:-1], right.shape[-1])
    is_one = left.shape[:-2] == right.shape[:-2]
    if left.shape[-1] != right.shape[-2] or out.shape != wanted or not is_one:
        raise ShapeError(f"cannot multiply {left.shape} by {right.shape} into {out.shape}")
    if bias is not None and bias.size != out.shape[-1]:
        raise ShapeError(f"a bias of shape {bias.shape} does not fit {out.shape[-1]} columns")
    dtypes = {left.dtype, right.dtype, out.dtype} | ({bias.dtype} if bias is not None else set())
    if len(dtypes) != 1 or out.dtype.kind != "f":
        raise ShapeError(f"a product needs one floating dtype, got {sorted(map(str, dtypes))}")


# -- reductions -----------------------------------------------------------------------------------


def _reduction(
    operation: Literal["sum", "max"],
    plan: Plan,
    out: AnyArray,
    axis: Literal[0, 1] | None,
    wide: np.dtype[Any],
) -> list[Call]:
    """Return the calls: each block is reduced by itself, then the parts in their order."""
    combine = np.add if operation == "sum" else np.maximum
    dtype = wide if operation == "sum" else plan.real
    totals, part = np.zeros(out.shape, dtype), np.zeros(out.shape, dtype)
    calls = [*plan.prologue]
    for block in plan.blocks():
        calls += block.calls
        place = slice(0, 1) if axis is None else (block.columns, block.rows)[axis]
        total, new = totals[place], part[place]
        is_first = not (
            (axis != 1 and block.rows.start != 0) or (axis != 0 and block.columns.start != 0)
        )
        goal = total if is_first else new
        goal = goal.reshape(()) if axis is None else goal
        calls.append((combine.reduce, (block.spread_result(), axis, dtype, goal)))
        if not is_first:
            calls.append((partial(combine, out=total), (total, new)))
    calls.append((out.__setitem__, (..., totals)))
    return calls


# -- softmax --------------------------------------------------------------------------------------


def _narrow_softmax(x: AnyArray, out: AnyArray, winners: AnyArray | None) -> list[Call]:
    """Return the calls for short rows, which are turned into columns on the way."""
    rows, columns = x.shape
    height = max(1, min(rows, BLOCK // columns))
    scratch, row = aligned_zeros((columns, height), x.dtype), aligned_zeros((height,), x.dtype)
    sums, places = aligned_zeros((height,), np.float64), aligned_zeros((height,), np.intp)
    calls: list[Call] = []
    for start in range(0, rows, height):
        part = slice(start, min(start + height, rows))
        count = part.stop - start
        work, line, total = scratch[:, :count], row[:count], sums[:count]
        if winners is not None:
            calls += _argmax_calls(x[part], places[:count], winners[part])
        calls += [
            (work.__setitem__, (..., x[part].T)),
            (np.maximum.reduce, (work, 0, None, line)),
            (np.subtract, (work, line, work)),
            (np.exp, (work, work)),
            (np.add.reduce, (work, 0, np.float64, total)),
            (line.__setitem__, (..., total)),
            (np.divide, (work, line, work)),
            (out[part].__setitem__, (..., work.T)),
        ]
    return calls


def _wide_softmax(x: AnyArray, out: AnyArray, winners: AnyArray | None) -> list[Call]:
    rows, columns = x.shape
    height = max(1, min(rows, BLOCK // columns))
    column = aligned_zeros((height, 1), x.dtype)
    sums, places = aligned_zeros((height, 1), np.float64), aligned_zeros((height,), np.intp)
    calls: list[Call] = []
    for start in range(0, rows, height):
        part = slice(start, min(start + height, rows))
        count = part.stop - start
        source, work, line, total = x[part], out[part], column[:count], sums[:count]
        if winners is not None:
            calls += _argmax_calls(source, places[:count], winners[part])
        calls += [
            (np.maximum.reduce, (source, 1, None, line, True)),
            (np.subtract, (source, line, work)),
            (np.exp, (work, work)),
            (np.add.reduce, (work, 1, np.float64, total, True)),
            (line.__setitem__, (..., total)),
            (np.divide, (work, line, work)),
        ]
    return calls


def _argmax_calls(x: AnyArray, places: AnyArray, winners: AnyArray) -> list[Call]:
    return [(x.argmax, (1, places)), (winners.__setitem__, (..., places))]


# -- gather ---------------------------------------------------------------------------------------


class _Gather:
    """Takes the rows of ``source`` at ``indices``; rows of negative indices get ``fill``."""

    def __init__(self, source: AnyArray, indices: AnyArray, out: AnyArray, fill: float) -> None:
        self._source, self._indices, self._out, self._fill = source, indices, out, fill
        # as unsigned numbers negative indices are the largest: one maximum finds both faults
        self._unsigned = indices.view(f"u{indices.dtype.itemsize}")
        self._places = aligned_zeros(indices.shape, np.intp)
        self._calls = self._take_calls()

    def _take_calls(self) -> list[Call]:
        source, places, out = self._source, self._places, self._out
        if source.dtype == out.dtype:
            return [(source.take, (places, 0, out, "clip"))]
        height = max(1, min(len(out), BLOCK // out.shape[1]))
        scratch = aligned_zeros((height, out.shape[1]), source.dtype)
        calls: list[Call] = []
        for start in range(0, len(out), height):
            part = slice(start, min(start + height, len(out)))
            rows = scratch[: part.stop - start]
            calls.append((source.take, (places[part], 0, rows, "clip")))
            calls.append((out[part].__setitem__, (..., rows)))
        return calls

    def __call__(self) -> None:
        is_plain = np.maximum.reduce(self._unsigned) < len(self._source)
        if not is_plain:
            self._check()
        self._places[...] = self._indices
        if len(self._source):
            for function, operands in self._calls:
                function(*operands)
        if not is_plain:
            self._out[self._indices < 0] = self._fill

    def _check(self) -> None:
        largest = int(self._indices.max())
        if largest >= len(self._source):
            raise KernelError(f"index {largest} is beyond the {len(self._source)} rows of a source")


# -- random numbers -------------------------------------------------------------------------------


def _uniform_launch(out: AnyArray, key: tuple[int, int]) -> Launch:
    """Return a launch that gives the bits of ``veloflow.devices.random.uniform``."""
    blocks = -(-out.shape[1] // 4)
    source = np.random.Philox(key=key[0] | key[1] << 64)
    state: Any = source.state
    calls = _uniform_calls(np.random.Generator(source), out, blocks) if out.size else []
    fill = launch_of(calls)

    def launch(*, stream: float, row: float) -> None:
        # NumPy steps its counter before it computes a block, so it starts one before ours
        first = int(row) * blocks % (1 << 64) | int(stream) % (1 << 64) << 64
        before = (first - 1) % (1 << 256)
        state["state"]["counter"][:] = [before >> shift & _WORD for shift in (0, 64, 128, 192)]
        source.state = state
        fill()

    return cast("Launch", launch)


_WORD = (1 << 64) - 1


def _uniform_calls(generator: np.random.Generator, out: AnyArray, blocks: int) -> list[Call]:
    rows, columns = out.shape
    height = max(1, min(rows, BLOCK // (4 * blocks)))
    scratch = aligned_zeros((height, 4 * blocks), np.float64)
    calls: list[Call] = []
    for start in range(0, rows, height):
        part = out[start : start + height]
        work = scratch[: len(part)]
        # the top 53 bits of each word, divided by 2 ** 53
        calls.append((generator.random, (None, np.float64, work)))
        if out.dtype == np.float32:  # keep the top 24, which float32 holds exactly
            calls.append((np.multiply, (work, 2.0**24, work)))
            calls.append((np.floor, (work, work)))
            calls.append((np.multiply, (work, 2.0**-24, work)))
        calls.append((part.__setitem__, (..., work[:, :columns])))
    return calls


# -- programs -------------------------------------------------------------------------------------


def _program_launch(program: Program, hosts: Mapping[str, AnyArray]) -> Launch:
    casts: dict[str, Callable[[float], float]] = {
        name: int if kind == "int" else float for name, kind in program.scalars
    }

    def launch(**scalars: float) -> None:
        if scalars.keys() != casts.keys():
            raise TypeError(
                f"program {program.name!r} takes {sorted(casts)}, got {sorted(scalars)}"
            )
        with np.errstate(all="ignore"):
            program.host(**hosts, **{name: cast(scalars[name]) for name, cast in casts.items()})

    return launch


# -- what machine this is -------------------------------------------------------------------------


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _blas_name() -> str:
    config = cast("dict[str, Any]", np.show_config(mode="dicts"))
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown BLAS')} {blas.get('version', '')}".strip()
