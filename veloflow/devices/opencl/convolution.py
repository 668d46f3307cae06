"""Convolutions and their gradients: which kernels there are for one, and which is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.expressions import Expression, element
from veloflow.devices.numpy_convolution import check_convolution
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, statements
from veloflow.devices.opencl.judge import Twin, samples, trial_of
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    Recipe,
    Trial,
    kernel_source,
)
from veloflow.devices.window import Window
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["Problem", "convolution", "convolution_gradient"]

#: places or taps whose sums are in registers: with two vectors and AVX2 they fill 12 of 16
ROWS = 6
#: into how many parts, each with a sum of its own, a minibatch is cut for the gradient by weights:
#: a number that does not depend on the machine, so that the bits do not either
PARTS = 8
#: numbers of images and errors that the gradient by weights goes through again and again
_TOGETHER = 1 << 16


@dataclass(frozen=True)
class Problem:
    """The sizes of a convolution, and what happens to its sums."""

    batch: int
    window: Window
    kernels: int
    groups: int
    dtype: np.dtype[Any]
    has_bias: bool
    #: the activation (of "x"), or the slope (of "y")
    formula: Expression | None

    @property
    def group_channels(self) -> int:
        """The channels of one group."""
        return self.window.image[2] // self.groups

    @property
    def group_kernels(self) -> int:
        """The kernels of one group."""
        return self.kernels // self.groups

    @property
    def length(self) -> int:
        """The weights of one kernel."""
        return self.window.length // self.groups

    @property
    def places(self) -> int:
        """The places of one image."""
        return math.prod(self.window.places)

    def grid(self, wide: tuple[int, int]) -> list[Argument]:
        """Return what the kernels call GRID."""
        window = self.window
        left, top = window.padding[:2]
        numbers = (self.batch, *window.image, *window.kernel, *window.stride, left, top)
        return [np.int32(n) for n in (*numbers, *window.places, self.kernels, self.groups, *wide)]


#: launches, and the bytes of the memory that only they use
Plan = tuple[list[Call], dict[str, int]]


def convolution(
    engine: Engine,
    x: Array,
    weights: Array,
    out: Array,
    window: Window,
    *,
    groups: int,
    bias: Array | None,
    activation: Expression | None,
) -> Launch:
    """Bind a convolution; see the interface."""
    check_convolution(x, weights, out, window, groups, [bias])
    if bias is not None and bias.size != len(weights):
        raise ShapeError(f"a bias of shape {bias.shape} does not fit {len(weights)} kernels")
    if out.size == 0:
        return nothing
    has_bias = bias is not None
    problem = Problem(len(x), window, len(weights), groups, x.dtype, has_bias, activation)
    arrays = {"x": x, "weights": weights, "out": out}
    if bias is not None:
        arrays["bias"] = bias

    def twin_of(own: Window) -> Twin:
        def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
            return host.convolution(
                twins["x"], twins["weights"], twins["out"], own, groups=groups,
                bias=twins.get("bias"), activation=activation,
            )  # fmt: skip

        return twin

    def direct() -> Variant:
        return _variant(engine, "convolution", problem, twin_of, _forward, arrays, ["out"])

    return engine.operation("convolution", [direct], twin_of(window), arrays, ["out"])


def convolution_gradient(
    engine: Engine,
    err: Array,
    x: Array,
    weights: Array,
    window: Window,
    *,
    groups: int,
    y: Array | None,
    slope: Expression | None,
    weights_gradient: Array | None,
    bias_gradient: Array | None,
    input_gradient: Array | None,
) -> Launch:
    """Bind the gradients of a convolution; see the interface."""
    gradients = {"dw": weights_gradient, "db": bias_gradient, "dx": input_gradient}
    outputs = {name: array for name, array in gradients.items() if array is not None}
    check_convolution(x, weights, err, window, groups, [y, *outputs.values()])
    if slope is not None and (y is None or y.size != err.size):
        raise ShapeError("the slope of a convolution is a formula of its output; give y")
    if not outputs or err.size == 0:
        return nothing
    has_bias = bias_gradient is not None
    problem = Problem(len(x), window, len(weights), groups, x.dtype, has_bias, slope)
    arrays = {"err": err, "x": x, "weights": weights, **outputs}
    if slope is not None and y is not None:
        arrays["y"] = y

    def twin_of(own: Window) -> Twin:
        def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
            return host.convolution_gradient(
                twins["err"], twins["x"], twins["weights"], own, groups=groups,
                y=twins.get("y"), slope=slope, weights_gradient=twins.get("dw"),
                bias_gradient=twins.get("db"), input_gradient=twins.get("dx"),
            )  # fmt: skip

        return twin

    def plan(engine: Engine, own: Problem) -> Plan:
        return _backward(engine, own, frozenset(outputs))

    def direct() -> Variant:
        name = "convolution gradient"
        return _variant(engine, name, problem, twin_of, plan, arrays, list(outputs))

    name = "convolution gradient"
    return engine.operation(name, [direct], twin_of(window), arrays, list(outputs))


def _variant(
    engine: Engine,
    name: str,
    problem: Problem,
    twin_of: Callable[[Window], Twin],
    plan: Callable[[Engine, Problem], Plan],
    names: Collection[str],
    outputs: list[str],
) -> Variant:
    recipe = Recipe(name, _source(engine, problem, is_gradient="out" not in outputs))
    calls, scratch = plan(engine, problem)

    def trial() -> Trial:
        small = _small(problem)
        steps, sizes = plan(engine, small)
        shapes = _shapes(small)
        given = samples({name: (shapes[name], small.dtype) for name in names})
        spare = {key: np.zeros(size, np.uint8) for key, size in sizes.items()}
        return trial_of(twin_of(small.window), steps, given, outputs, scratch=spare)

    return Variant([(recipe, [call.kernel for call in calls], trial)], calls, scratch)


def _small(problem: Problem) -> Problem:
    """Return a problem of the same kind that takes no time."""
    groups = min(problem.groups, 2)
    window = Window((7, 9, 3 * groups), (3, 2), problem.window.stride, (1, 2, 0, 1))
    return replace(problem, batch=3, window=window, kernels=19 * groups, groups=groups)


def _shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    images = (problem.batch, *problem.window.image)
    weights = (problem.kernels, problem.length)
    sums = (problem.batch, *problem.window.places, problem.kernels)
    return {
        "x": images, "weights": weights, "out": sums, "bias": (problem.kernels,), "err": sums,
        "y": sums, "dw": weights, "db": (problem.kernels,), "dx": images,
    }  # fmt: skip


def numbers_of(engine: Engine, dtype: np.dtype[Any]) -> Numbers:
    """Return what the kernels compute with: vectors of 32 bytes on a CPU.

    LLVM 14 in PoCL knows no processor of AMD's with AVX-512, and splits wider ones in memory:
    98 GFLOP/s against 181 (EPYC of 2023, 2 threads).
    """
    known = engine.numbers(dtype)
    return replace(known, lanes=min(known.lanes, 32 // dtype.itemsize))


def _source(engine: Engine, problem: Problem, *, is_gradient: bool) -> str:
    numbers = numbers_of(engine, problem.dtype)
    parts = [engine.defines, numbers.defines, f"#define ROWS {ROWS}\n"]
    parts += [kernel_source("ranges"), kernel_source("common")]
    parts.append(_activation(None if is_gradient else problem.formula, numbers))
    slope = problem.formula if is_gradient else None
    parts.append(_delta(slope, numbers))
    return "".join([*parts, kernel_source("convolution")])


def _activation(formula: Expression | None, numbers: Numbers) -> str:
    lines, values = statements([formula or element("x")], {element("x"): "x"}, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    return f"static vec activation(const vec x)\n{{\n{body}\n    return {values[0]};\n}}\n"


def _delta(slope: Expression | None, numbers: Numbers) -> str:
    if slope is None:
        return "#define DELTA(err, y) (err)\n"
    formula = element("err") * slope
    names = {element("err"): "err", element("y"): "y"}
    lines, values = statements([formula], names, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    head = "static vec delta_of(const vec err, const vec y)"
    return (
        f"{head}\n{{\n{body}\n    return {values[0]};\n}}\n#define DELTA(err, y) delta_of(err, y)\n"
    )


def _rounded(count: int, to: int = 64) -> int:
    return -(-count // to) * to


def _panels(engine: Engine, count: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the numbers in a panel's row, and how many panels ``count`` columns need."""
    panel = 2 * numbers_of(engine, dtype).lanes
    return panel, -(-count // panel)


def _forward(engine: Engine, problem: Problem) -> Plan:
    panel, across = _panels(engine, problem.group_kernels, problem.dtype)
    groups, length, itemsize = problem.groups, problem.length, problem.dtype.itemsize
    wide = problem.window.wide
    size, local = engine.spread(problem.batch, 1)
    spare = _rounded(math.prod(wide) * problem.group_channels + panel)
    rows = groups * across * length
    scratch = {
        "panels": (rows * panel + 64) * itemsize, "spare": math.prod(size) * spare * itemsize
    }  # fmt: skip
    pack = Call(
        "pack_weights",
        (ArrayArgument("weights"), ArrayArgument("panels"),
         *(np.int32(n) for n in (problem.group_kernels, length, groups))),
        *engine.spread(rows, 256),
    )  # fmt: skip
    names = ("x", "panels", "bias" if problem.has_bias else "weights", "out", "spare")
    convolve = Call(
        "convolve",
        (*(ArrayArgument(name) for name in names), np.int32(problem.has_bias), np.int64(spare),
         *problem.grid(wide)),
        size, local,
    )  # fmt: skip
    return [pack, convolve], scratch


def _backward(engine: Engine, problem: Problem, wanted: frozenset[str]) -> Plan:
    calls: list[Call] = []
    scratch: dict[str, int] = {}
    plans = []
    if "dx" in wanted:
        plans.append(_input_back(engine, problem))
    if "dw" in wanted or "db" in wanted:
        plans.append(_weights_back(engine, problem, wanted))
    for steps, sizes in plans:
        calls += steps
        for name, size in sizes.items():
            scratch[name] = max(size, scratch.get(name, 0))
    return calls, scratch


def _errors(problem: Problem) -> tuple[ArrayArgument, ArrayArgument]:
    return ArrayArgument("err"), ArrayArgument("err" if problem.formula is None else "y")


def _input_back(engine: Engine, problem: Problem) -> Plan:
    window, kernels = problem.window, problem.group_kernels
    panel, across = _panels(engine, problem.group_channels, problem.dtype)
    taps, itemsize = math.prod(window.kernel), problem.dtype.itemsize
    before, wide = [], []
    for axis in (0, 1):
        pad, stride, kernel = window.padding[1 - axis], window.stride[axis], window.kernel[axis]
        before.append(max(0, (kernel - 1 - pad) // stride) if kernel - 1 > pad else 0)
        last = (window.image[axis] - 1 + pad) // stride
        wide.append(before[axis] + max(window.places[axis], last + 1))
    size, local = engine.spread(problem.batch, 1)
    spare = _rounded(math.prod(wide) * kernels + panel)
    rows = problem.groups * across * taps * kernels
    scratch = {
        "panels": (rows * panel + 64) * itemsize, "spare": math.prod(size) * spare * itemsize
    }  # fmt: skip
    numbers = (kernels, taps, problem.group_channels, problem.groups)
    pack = Call(
        "pack_back",
        (ArrayArgument("weights"), ArrayArgument("panels"), *(np.int32(n) for n in numbers)),
        *engine.spread(rows, 256),
    )  # fmt: skip
    arrays = (*_errors(problem), *(ArrayArgument(name) for name in ("panels", "dx", "spare")))
    constants = (np.int64(spare), np.int32(before[0]), np.int32(before[1]))
    back = Call(
        "convolve_back", (*arrays, *constants, *problem.grid((wide[0], wide[1]))), size, local
    )
    return [pack, back], scratch


def _weights_back(engine: Engine, problem: Problem, wanted: frozenset[str]) -> Plan:
    window, groups, length = problem.window, problem.groups, problem.length
    panel, across = _panels(engine, problem.group_kernels, problem.dtype)
    itemsize, parts = problem.dtype.itemsize, min(PARTS, problem.batch)
    image = math.prod(window.wide) * problem.group_channels
    error = across * problem.places * panel
    together = max(1, min(-(-problem.batch // parts), _TOGETHER // (image + error)))
    spare = _rounded(_rounded(together * image + ROWS) + together * error + panel)
    size, local = engine.spread(parts, 1)
    rows = groups * across * length
    scratch = {
        "partial": parts * rows * panel * itemsize,
        "totals": (problem.batch * problem.kernels + panel) * itemsize,
        "spare": math.prod(size) * spare * itemsize,
    }
    names = ("x", "partial", "totals", "spare")
    arrays = (*_errors(problem), *(ArrayArgument(name) for name in names))
    constants = (np.int64(spare), np.int32(parts), np.int32(together))
    back = Call("weights_back", (*arrays, *constants, *problem.grid(window.wide)), size, local)
    numbers = (problem.batch, parts, problem.group_kernels, length, groups)
    if "dw" not in wanted:  # the sums of d alone
        scratch["dw"] = problem.kernels * length * itemsize
    arrays = tuple(ArrayArgument(name) for name in ("partial", "totals", "dw"))
    bias = ArrayArgument("db" if "db" in wanted else "totals")
    flags = (*(np.int32(n) for n in numbers), np.int32("db" in wanted))
    finish = Call("finish_back", (*arrays, bias, *flags), *engine.spread(rows, 64))
    return [back, finish], scratch
