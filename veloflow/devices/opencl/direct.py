"""Convolutions by kernels that sum in registers, straight from the image: their launches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from veloflow.devices.opencl.recipes import Argument, ArrayArgument, Call

if TYPE_CHECKING:
    from veloflow.devices.expressions import Expression
    from veloflow.devices.opencl.engine import Engine
    from veloflow.devices.opencl.formulas import Numbers
    from veloflow.devices.window import Window

__all__ = [
    "PARTS",
    "ROWS",
    "Plan",
    "Problem",
    "backward",
    "errors_of",
    "forward",
    "numbers_of",
    "rounded",
]

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
Plan: TypeAlias = tuple[list[Call], dict[str, int]]


def numbers_of(engine: Engine, dtype: np.dtype[Any]) -> Numbers:
    """Return what the kernels compute with: vectors of 32 bytes on a CPU.

    LLVM 14 in PoCL knows no processor of AMD's with AVX-512, and splits wider ones in memory:
    98 GFLOP/s against 181 (EPYC of 2023, 2 threads).
    """
    known = engine.numbers(dtype)
    return replace(known, lanes=min(known.lanes, 32 // dtype.itemsize))


def rounded(count: int, to: int = 64) -> int:
    """Return the next multiple of ``to``."""
    return -(-count // to) * to


def _panels(engine: Engine, count: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the numbers in a panel's row, and how many panels ``count`` columns need."""
    panel = 2 * numbers_of(engine, dtype).lanes
    return panel, -(-count // panel)


def forward(engine: Engine, problem: Problem) -> Plan:
    """Return the launches of the forward pass."""
    panel, across = _panels(engine, problem.group_kernels, problem.dtype)
    groups, length, itemsize = problem.groups, problem.length, problem.dtype.itemsize
    wide = problem.window.wide
    size, local = engine.spread(problem.batch, 1)
    spare = rounded(math.prod(wide) * problem.group_channels + panel)
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
        size, local, is_alone=True,
    )  # fmt: skip
    return [pack, convolve], scratch


def backward(engine: Engine, problem: Problem, wanted: frozenset[str]) -> Plan:
    """Return the launches of the wanted gradients: "dw", "db", "dx"."""
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


def errors_of(problem: Problem) -> tuple[ArrayArgument, ArrayArgument]:
    """Return the arguments err and y; without a slope y is not read."""
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
    spare = rounded(math.prod(wide) * kernels + panel)
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
    arrays = (*errors_of(problem), *(ArrayArgument(name) for name in ("panels", "dx", "spare")))
    constants = (np.int64(spare), np.int32(before[0]), np.int32(before[1]))
    back = Call(
        "convolve_back", (*arrays, *constants, *problem.grid((wide[0], wide[1]))), size, local,
        is_alone=True,
    )  # fmt: skip
    return [pack, back], scratch


def _weights_back(engine: Engine, problem: Problem, wanted: frozenset[str]) -> Plan:
    window, groups, length = problem.window, problem.groups, problem.length
    panel, across = _panels(engine, problem.group_kernels, problem.dtype)
    itemsize, parts = problem.dtype.itemsize, min(PARTS, problem.batch)
    image = math.prod(window.wide) * problem.group_channels
    error = across * problem.places * panel
    together = max(1, min(-(-problem.batch // parts), _TOGETHER // (image + error)))
    spare = rounded(rounded(together * image + ROWS) + together * error + panel)
    size, local = engine.spread(parts, 1)
    rows = groups * across * length
    scratch = {
        "partial": parts * rows * panel * itemsize,
        "totals": (problem.batch * problem.kernels + panel) * itemsize,
        "spare": math.prod(size) * spare * itemsize,
    }
    names = ("x", "partial", "totals", "spare")
    arrays = (*errors_of(problem), *(ArrayArgument(name) for name in names))
    constants = (np.int64(spare), np.int32(parts), np.int32(together))
    arguments = (*arrays, *constants, *problem.grid(window.wide))
    back = Call("weights_back", arguments, size, local, is_alone=True)
    numbers = (problem.batch, parts, problem.group_kernels, length, groups)
    if "dw" not in wanted:  # the sums of d alone
        scratch["dw"] = problem.kernels * length * itemsize
    arrays = tuple(ArrayArgument(name) for name in ("partial", "totals", "dw"))
    bias = ArrayArgument("db" if "db" in wanted else "totals")
    flags = (*(np.int32(n) for n in numbers), np.int32("db" in wanted))
    finish = Call("finish_back", (*arrays, bias, *flags), *engine.spread(rows, 64))
    return [back, finish], scratch
