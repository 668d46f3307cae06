"""Formulas compiled once into a list of NumPy calls over cache-sized blocks.

A formula is lowered to values (one result of one ufunc each), every value gets a place (a part of
an output, or a piece of scratch memory that is used again as soon as it is free), and for every
block of the matrix the calls are written down with the views that they work on. A launch then
does nothing but make those calls: no shape is looked at, nothing is allocated.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from veloflow.devices.expressions import Expression, Index, walk
from veloflow.devices.numpy_lowering import COMPARISONS, Lowering, Value

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.devices.base import Launch, Space

    AnyArray: TypeAlias = NDArray[Any]
    Call: TypeAlias = tuple[Callable[..., object], tuple[object, ...]]

__all__ = ["BLOCK", "Block", "Plan", "aligned_zeros", "launch_of"]

#: elements of a block: a few float32 blocks fit into a second-level cache of 512 KiB, and a
#: ufunc's own cost (0.25 us) is a tenth of its work (3.5 us for 16384; Xeon, NumPy 2.4)
BLOCK = 16384

_ALIGNMENT = 64

_ARITHMETIC: dict[str, np.ufunc] = {
    name: getattr(np, name)
    for name in (
        "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "negative",
        "absolute", "sign", "exp", "log", "log1p", "tanh", "sqrt", "sin", "cos", "floor", "square",
    )
}  # fmt: skip
_COMPARISONS: dict[str, np.ufunc] = {name: getattr(np, name) for name in COMPARISONS}
#: on the bits of numbers; ``where`` is made of these: NumPy's masked copy costs 5 ns an element
#: where the masks branch at random, these passes together 0.5 ns
_BITWISE: dict[str, np.ufunc] = {
    "both": np.bitwise_and,
    "differ": np.bitwise_xor,
    "mask": np.negative,
    "antimask": np.subtract,
}
#: NumPy 2.4 deprecates a third positional argument of these
_OUT_BY_KEYWORD = frozenset({"maximum", "minimum"})
#: assignments: to a real from a boolean or from an array of another dtype, to an integer
_MOVES = frozenset({"real", "bits"})


def aligned_zeros(shape: Sequence[int], dtype: DTypeLike) -> AnyArray:
    """Return an array of zeros whose first byte lies at a multiple of 64."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(kind).reshape(tuple(shape))


def launch_of(calls: Sequence[Call], cells: Mapping[str, AnyArray] | None = None) -> Launch:
    """Return a launch that fills the ``cells`` with its scalars and then makes the calls.

    It runs in a context of its own in which floating-point errors are ignored, as on any other
    device; entering that costs 0.02 us where ``np.errstate`` costs 0.9 us.
    """
    context = contextvars.Context()
    context.run(np.seterr, all="ignore")
    run, names, slots = context.run, frozenset(cells or ()), tuple((cells or {}).items())

    def execute() -> None:
        for function, operands in calls:
            function(*operands)

    def execute_with(scalars: Mapping[str, float]) -> None:
        for name, cell in slots:
            cell[()] = scalars[name]
        for function, operands in calls:
            function(*operands)

    def launch() -> None:
        run(execute)

    def launch_with(**scalars: float) -> None:
        if scalars.keys() != names:
            raise TypeError(f"this launch takes {sorted(names)}, got {sorted(scalars)}")
        run(execute_with, scalars)

    if slots:
        return launch_with
    if len(calls) == 1:
        function, operands = calls[0]
        return cast("Launch", partial(run, function, *operands))
    return cast("Launch", launch)


@dataclass(frozen=True)
class _Place:
    """Where a value of a block lies: in an output, or in a piece of scratch memory."""

    kind: Literal["target", "real", "bool"]
    number: int


@dataclass
class _Pool:
    """Numbers of scratch pieces, given out again as soon as they are free."""

    kind: Literal["real", "bool"]
    free: list[int] = field(default_factory=list)
    count: int = 0

    def take(self) -> _Place:
        if self.free:
            return _Place(self.kind, self.free.pop())
        self.count += 1
        return _Place(self.kind, self.count - 1)

    def give_back(self, place: _Place) -> None:
        self.free.append(place.number)


@dataclass(frozen=True)
class Block:
    """The calls for one block of the matrix, and the views of its formulas' results."""

    rows: slice
    columns: slice
    calls: list[Call]
    results: list[AnyArray]

    def spread_result(self) -> AnyArray:
        """Return the first result with an element for each place of the block."""
        result = self.results[0]
        height = self.rows.stop - self.rows.start
        width = self.columns.stop - self.columns.start
        return np.broadcast_to(result, (height, width))


class Plan:
    """Formulas bound to arrays over a space.

    ``leaves`` are the arrays that the formulas read, of any dtype, laid out as ``space`` says.
    ``targets`` are the arrays that take the results, or None where a result stays in scratch
    memory (a reduction reads it from there). ``real`` is the dtype that is computed in.
    """

    def __init__(
        self,
        formulas: Sequence[Expression],
        leaves: Mapping[str, AnyArray],
        space: Space,
        real: np.dtype[Any],
        targets: Sequence[AnyArray | None],
    ) -> None:
        self.real = real
        self._lowering = Lowering(leaves, space, real, flat=_is_flat(formulas, space))
        self._targets = [None if one is None else self._laid_out(one) for one in targets]
        self._roots = [
            self._lowering.lower(formula, None if target is None else target.dtype)
            for formula, target in zip(formulas, targets, strict=True)
        ]
        self.prologue: list[Call] = []  #: calls to make once a launch, before the blocks
        self._keep_what_is_overwritten()
        self._compute_once()
        self._pools = {"real": _Pool("real"), "bool": _Pool("bool")}
        self._places = self._allocate()
        self._scratch = self._reserve()
        self._views: dict[object, AnyArray] = {}

    @property
    def scalars(self) -> dict[str, AnyArray]:
        """The 0-d arrays that hold the launch's scalars, by name."""
        return self._lowering.scalars

    def calls(self) -> list[Call]:
        """Return all calls of a launch, in order."""
        return [*self.prologue, *(call for block in self.blocks() for call in block.calls)]

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks in the order of memory."""
        space = self._lowering.space
        if space.rows * space.columns == 0:
            return
        height, width = _block_shape(space)
        for row in range(0, space.rows, height):
            rows = slice(row, min(row + height, space.rows))
            for column in range(0, space.columns, width):
                yield self._block(rows, slice(column, min(column + width, space.columns)))

    # -- what happens once --------------------------------------------------------------------

    def _laid_out(self, target: AnyArray) -> AnyArray:
        if self._lowering.flat:
            return target.reshape(-1)
        return target.reshape(self._lowering.space.rows, self._lowering.space.columns)

    def _keep_what_is_overwritten(self) -> None:
        """Copy first what would be overwritten before it is read."""
        memory = self._lowering.memory
        for value, leaf in memory.items():
            others = [
                one
                for one, root in zip(self._targets, self._roots, strict=True)
                if self._overlaps(leaf, one)
                # reading the same memory in the same block is safe, but a leaf that is itself
                # a result is read again when the results are stored
                and not (_same(leaf, one) and (value == root or value not in self._roots))
            ]
            if others:
                kept = aligned_zeros(leaf.shape, leaf.dtype)
                self.prologue.append((kept.__setitem__, (..., leaf)))
                memory[value] = kept

    @staticmethod
    def _overlaps(leaf: AnyArray, target: AnyArray | None) -> bool:
        return target is not None and bool(np.may_share_memory(leaf, target))

    def _compute_once(self) -> None:
        """Compute in the prologue what is the same number everywhere."""
        memory = self._lowering.memory
        for number, value in enumerate(self._lowering.values):
            if value.spread == (False, False) and number not in memory:
                dtype = np.bool_ if value.width == "bool" else self._lowering.real
                memory[number] = np.zeros((), dtype)
                operands = [memory[operand] for operand in value.operands]
                self.prologue.append(_call(value.operation, operands, memory[number]))

    # -- places -------------------------------------------------------------------------------

    def _allocate(self) -> dict[int, _Place]:
        """Give each value of a block its place, as few pieces of scratch as it needs."""
        values, memory = self._lowering.values, self._lowering.memory
        last_use = self._last_uses()
        places: dict[int, _Place] = {}
        for number, value in enumerate(values):
            if number in memory:
                continue
            dying = [one for one in dict.fromkeys(value.operands) if last_use[one] == number]
            released = [one for one in dying if one in places and places[one].kind != "target"]
            early = [one for one in released if _alike(values[one], value)]
            for one in early:
                self._pools[values[one].width].give_back(places[one])
            target = self._direct_target(number, last_use)
            pool = self._pools[value.width]
            places[number] = pool.take() if target is None else _Place("target", target)
            for one in released:
                if one not in early:
                    self._pools[values[one].width].give_back(places[one])
        return places

    def _last_uses(self) -> list[int]:
        values = self._lowering.values
        last = list(range(len(values)))
        for number, value in enumerate(values):
            for operand in value.operands:
                last[operand] = max(last[operand], number)
        for root in self._roots:
            last[root] = len(values)
        return last

    def _direct_target(self, number: int, last_use: Sequence[int]) -> int | None:
        """Return the output that a value may be computed into: nothing reads it later."""
        value, memory = self._lowering.values[number], self._lowering.memory
        for position, (root, target) in enumerate(zip(self._roots, self._targets, strict=True)):
            if root != number or target is None or value.width == "bool":
                continue
            is_full = value.spread == (True, True)
            if is_full and target.dtype == self._lowering.real:
                later = [leaf for one, leaf in memory.items() if last_use[one] > number]
                if not any(self._overlaps(leaf, target) for leaf in later):
                    return position
        return None

    def _reserve(self) -> dict[str, AnyArray]:
        height, width = _block_shape(self._lowering.space)
        # a whole number of cache lines for each piece
        capacity = -(-height * width // _ALIGNMENT) * _ALIGNMENT
        dtypes = {"real": self._lowering.real, "bool": np.dtype(np.bool_)}
        return {
            kind: aligned_zeros((pool.count, capacity), dtypes[kind])
            for kind, pool in self._pools.items()
        }

    # -- blocks -------------------------------------------------------------------------------

    def _block(self, rows: slice, columns: slice) -> Block:
        values, memory = self._lowering.values, self._lowering.memory
        views: dict[int, AnyArray] = {}
        calls: list[Call] = []
        for number, value in enumerate(values):
            if number in memory:
                views[number] = self._part(memory[number], value.spread, rows, columns)
                continue
            views[number] = self._view(number, rows, columns)
            operands = [views[operand] for operand in value.operands]
            calls.append(_call(value.operation, operands, views[number]))
        return Block(rows, columns, [*calls, *self._stores(views, rows, columns)],
                     [views[root] for root in self._roots])  # fmt: skip

    def _part(
        self, array: AnyArray, spread: tuple[bool, bool], rows: slice, columns: slice
    ) -> AnyArray:
        if array.ndim == 0:
            return array
        if self._lowering.flat:
            return array[columns]
        every = slice(None)
        return array[rows if spread[0] else every, columns if spread[1] else every]

    def _view(self, number: int, rows: slice, columns: slice) -> AnyArray:
        value, place = self._lowering.values[number], self._places[number]
        if place.kind == "target":
            target = self._targets[place.number]
            assert target is not None
            return self._part(target, (True, True), rows, columns)
        height = rows.stop - rows.start if value.spread[0] else 1
        width = columns.stop - columns.start if value.spread[1] else 1
        shape = (width,) if self._lowering.flat else (height, width)
        key = (place, shape)
        if key not in self._views:
            piece = self._scratch[place.kind][place.number]
            self._views[key] = piece[: height * width].reshape(shape)
        return self._views[key]

    def _stores(self, views: Mapping[int, AnyArray], rows: slice, columns: slice) -> Iterator[Call]:
        """Yield the copies of results that could not be computed into their outputs."""
        for position, (root, target) in enumerate(zip(self._roots, self._targets, strict=True)):
            if target is not None and self._places.get(root) != _Place("target", position):
                part = self._part(target, (True, True), rows, columns)
                yield part.__setitem__, (..., views[root])


def _is_flat(formulas: Sequence[Expression], space: Space) -> bool:
    return (
        space.rows == 1
        and all(layout in ("full", "single") for layout in space.layouts.values())
        and not any(isinstance(node, Index) for node in walk(*formulas))
    )


def _block_shape(space: Space) -> tuple[int, int]:
    width = min(space.columns, BLOCK)
    return max(1, min(space.rows, BLOCK // max(width, 1))), width


def _same(leaf: AnyArray, target: AnyArray | None) -> bool:
    return target is not None and (
        leaf.ctypes.data == target.ctypes.data
        and leaf.shape == target.shape
        and leaf.dtype == target.dtype
    )


def _alike(operand: Value, result: Value) -> bool:
    """Whether a result may take its operand's place: a ufunc works in place on equal views."""
    return (operand.width, operand.spread) == (result.width, result.spread)


def _call(operation: str, operands: Sequence[AnyArray], out: AnyArray) -> Call:
    if operation in _MOVES:
        target = out.view(f"i{out.itemsize}") if operation == "bits" else out
        return target.__setitem__, (..., operands[0])
    if operation in _BITWISE:
        integer = f"i{out.itemsize}"
        return _BITWISE[operation], tuple(one.view(integer) for one in (*operands, out))
    ufunc = _ARITHMETIC.get(operation) or _COMPARISONS[operation]
    if operation in _OUT_BY_KEYWORD:
        return partial(ufunc, out=out), tuple(operands)
    return ufunc, (*operands, out)
