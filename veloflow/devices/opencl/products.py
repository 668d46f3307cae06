"""A product of matrices by each of its methods: the source, the launches and the trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.expressions import Expression, element
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, statements
from veloflow.devices.opencl.judge import Twin, samples, trial_of
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    Recipe,
    Trial,
    kernel_source,
)
from veloflow.devices.opencl.tiles import Direct, Local, Packed, fits
from veloflow.errors import KernelError

if TYPE_CHECKING:
    from veloflow.devices.opencl.tiles import Facts, Method

__all__ = ["Problem", "variant_of"]

#: multiplications that are worth a work-item of their own on a CPU
_WORK = 32768
#: tiles of rows from which on a work-item that reads columns far apart packs them first
_PACKING_PAYS = 4
#: bytes between rows of b from which on they fall into a few sets of the cache
_FAR = 1024


@dataclass(frozen=True)
class Problem:
    """The sizes of a multiplication, and how its operands lie."""

    rows: int
    columns: int
    inner: int
    transpose_a: bool
    transpose_b: bool
    dtype: np.dtype[Any]
    alpha: float = 1.0
    beta: float = 0.0
    has_bias: bool = False
    activation: Expression | None = None
    #: how many products there are, None: one that is not stacked
    stack: int | None = None

    @property
    def matrices(self) -> int:
        """How many products there are."""
        return 1 if self.stack is None else self.stack

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """The steps to the next row and inner number of a, inner number and column of b."""
        a = (1, self.rows) if self.transpose_a else (self.inner, 1)
        b = (1, self.inner) if self.transpose_b else (self.columns, 1)
        return *a, *b

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays."""
        stack = () if self.stack is None else (self.stack,)
        a = (self.inner, self.rows) if self.transpose_a else (self.rows, self.inner)
        b = (self.columns, self.inner) if self.transpose_b else (self.inner, self.columns)
        shapes = {"a": (*stack, *a), "b": (*stack, *b), "out": (*stack, self.rows, self.columns)}
        return shapes | ({"bias": (self.columns,)} if self.has_bias else {})


#: launches, and the bytes of the memory that only they use
_Plan = tuple[list[Call], dict[str, int]]


def variant_of(
    engine: Engine, facts: Facts, problem: Problem, method: Method, twin: Twin
) -> Variant:
    """Return the launches of a product by a kernel.

    Raises:
        KernelError: the device cannot take that method for that dtype.
    """
    if not fits(method, facts, problem.dtype.itemsize) and not isinstance(method, Local):
        raise KernelError(f"this device takes no {method}")
    numbers = _numbers(engine, problem, method)
    recipe = Recipe("gemm", _source(engine, numbers, problem, method))
    make = _MAKERS[type(method)]
    calls, scratch = make(engine, problem, method, numbers)

    def trial() -> Trial:
        small, own = _small(problem, method, numbers)
        given = samples({name: (shape, small.dtype) for name, shape in small.shapes.items()})
        steps, sizes = make(engine, small, own, numbers)
        spare = {name: np.zeros(size, np.uint8) for name, size in sizes.items()}
        return trial_of(twin, steps, given, ["out"], scratch=spare)

    return Variant([(recipe, sorted({call.kernel for call in calls}), trial)], calls, scratch)


def _numbers(engine: Engine, problem: Problem, method: Method) -> Numbers:
    known = engine.numbers(problem.dtype)
    if isinstance(method, Local):
        return replace(known, lanes=1)
    assert isinstance(method, Direct | Packed)
    return replace(known, lanes=min(known.lanes, max(1, method.vector // problem.dtype.itemsize)))


def _small(problem: Problem, method: Method, numbers: Numbers) -> tuple[Problem, Method]:
    """Return a problem of the same kind that takes no time, with edges and more than one tile."""
    stack = None if problem.stack is None else 2
    if isinstance(method, Local):
        sizes = (method.rows + 3, method.columns + 5, method.depth + 3)
        return _resized(problem, *sizes, stack), method
    assert isinstance(method, Direct | Packed)
    width = method.wide * numbers.lanes
    if isinstance(method, Packed):
        method = Packed(method.tall, method.wide, method.vector, 3, 1)
    return _resized(problem, 4 * method.tall + 3, width + 3, 5, stack), method


def _resized(problem: Problem, rows: int, columns: int, inner: int, stack: int | None) -> Problem:
    return replace(problem, rows=rows, columns=columns, inner=inner, stack=stack)


def _source(engine: Engine, numbers: Numbers, problem: Problem, method: Method) -> str:
    lines, values = statements([problem.activation or element("x")], {element("x"): "x"}, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    function = f"static vec activation(const vec x)\n{{\n{body}\n    return {values[0]};\n}}\n"
    parts = [engine.defines, numbers.defines]
    if isinstance(method, Local):
        facts = {
            "ROWS": method.rows, "COLUMNS": method.columns, "DEPTH": method.depth,
            "DOWN": method.down, "ACROSS": method.across, "GRAIN": method.grain,
            "A_ALONG_ROWS": int(problem.transpose_a),
            "B_ALONG_COLUMNS": int(not problem.transpose_b),
        }  # fmt: skip
        files: Sequence[str] = ("gemm_local",)
    else:
        assert isinstance(method, Direct | Packed)
        facts = {"TALL": method.tall, "WIDE": method.wide}
        is_packed = isinstance(method, Packed)
        files = ("panels", "gemm_write", "gemm_packed" if is_packed else "gemm")
    parts += [f"#define {name} {value}\n" for name, value in facts.items()]
    parts += [kernel_source("ranges"), kernel_source("common"), function]
    return "".join([*parts, *(kernel_source(name) for name in files)])


def _ends(problem: Problem) -> tuple[Argument, Argument, np.int32, tuple[Argument, Argument]]:
    """Return out, bias, whether there is one, and both factors."""
    bias = ArrayArgument("bias" if problem.has_bias else "out")
    factors = (problem.dtype.type(problem.alpha), problem.dtype.type(problem.beta))
    return ArrayArgument("out"), bias, np.int32(problem.has_bias), factors


def _direct(engine: Engine, problem: Problem, method: Method, numbers: Numbers) -> _Plan:
    assert isinstance(method, Direct)
    panel = method.wide * numbers.lanes
    down = -(-problem.rows // method.tall)
    tiles = problem.matrices * down * -(-problem.columns // panel)
    work = max(1, method.tall * panel * problem.inner)
    size, local = engine.spread(tiles, max(1, _WORK * 4 // work))
    is_far = problem.columns * problem.dtype.itemsize >= _FAR and down >= _PACKING_PAYS
    packs = problem.transpose_b or is_far
    scratch = {}
    if packs:
        scratch["panels"] = (size[0] * panel * problem.inner + 64) * problem.dtype.itemsize
    out, bias, has_bias, factors = _ends(problem)
    spare = ArrayArgument("panels" if packs else "out")
    sizes = (problem.matrices, problem.rows, problem.columns, problem.inner, *problem.strides)
    numbers_given = tuple(np.int64(n) for n in sizes)
    operands = (ArrayArgument("a"), ArrayArgument("b"), out, bias, spare)
    call = Call(
        "gemm", (*operands, has_bias, np.int32(packs), *numbers_given, *factors), size, local
    )
    return [call], scratch


def _packed(engine: Engine, problem: Problem, method: Method, numbers: Numbers) -> _Plan:
    assert isinstance(method, Packed)
    panel, itemsize = method.wide * numbers.lanes, problem.dtype.itemsize
    down, across = -(-problem.rows // method.tall), -(-problem.columns // panel)
    blocks = max(1, -(-problem.inner // method.depth))
    depth = -(-problem.inner // blocks)
    tiles = problem.matrices * down * across
    scratch = {
        "a_panels": (problem.matrices * down * method.tall * depth + 64) * itemsize,
        "b_panels": (problem.matrices * across * panel * depth + 64) * itemsize,
    }
    kept = ArrayArgument("out")
    if blocks > 1:
        scratch["sums"] = tiles * method.tall * panel * itemsize
        kept = ArrayArgument("sums")
    out, bias, has_bias, factors = _ends(problem)
    panels = (ArrayArgument("a_panels"), ArrayArgument("b_panels"))
    operands = (ArrayArgument("a"), ArrayArgument("b"), *panels)
    sizes = tuple(np.int64(n) for n in (problem.matrices, problem.rows, problem.columns))
    work = max(1, method.tall * panel * depth)
    spread = engine.spread(tiles, max(1, _WORK * 4 // work))
    parts = engine.spread(
        problem.matrices * (down + across), max(1, _WORK // (panel * max(1, depth)))
    )
    calls = []
    for start in range(0, max(1, problem.inner), max(1, depth)):
        now = min(depth, problem.inner - start)
        flags = (np.int32(start == 0), np.int32(start + now >= problem.inner))
        strides = tuple(np.int64(n) for n in (problem.inner, start, now, *problem.strides))
        calls.append(Call("pack", (*operands, *sizes, *strides), *parts))
        ends = (np.int64(now), np.int64(method.block), *factors)
        arguments = (*panels, out, bias, kept, has_bias, *flags, *sizes, *ends)
        calls.append(Call("gemm_packed", arguments, *spread))
    return calls, scratch


def _local(engine: Engine, problem: Problem, method: Method, numbers: Numbers) -> _Plan:
    assert isinstance(method, Local)
    itemsize = problem.dtype.itemsize
    facts = engine.hardware.facts
    if not fits(method, facts, itemsize):
        raise KernelError(
            f"{method} needs {method.memory(itemsize)} bytes of local memory and groups of "
            f"{method.items}; the device has {facts.local_memory} and {facts.group_limit}"
        )
    down, across = -(-problem.rows // method.rows), -(-problem.columns // method.columns)
    groups = problem.matrices * down * across
    out, bias, has_bias, factors = _ends(problem)
    sizes = (problem.rows, problem.columns, problem.inner, *problem.strides)
    operands = (ArrayArgument("a"), ArrayArgument("b"), out, bias, has_bias)
    call = Call(
        "gemm_local",
        (*operands, *(np.int32(n) for n in sizes), *factors),
        (groups * method.items,),
        (method.items,),
    )
    return [call], {}


_MAKERS: dict[type[Any], Callable[[Engine, Problem, Any, Numbers], _Plan]] = {
    Direct: _direct, Packed: _packed, Local: _local,
}  # fmt: skip
