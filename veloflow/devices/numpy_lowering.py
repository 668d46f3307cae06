"""Formulas lowered to values: what single NumPy calls give, each after what it needs.

Equal parts of formulas become one value. Here lie the choices of how an operation is computed:
powers by squares, ``where`` by masks, comparisons as booleans until a number is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from veloflow.devices.expressions import Apply, Const, Element, Expression, Index, Scalar, walk

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.devices.base import Space

    AnyArray: TypeAlias = NDArray[Any]

__all__ = ["COMPARISONS", "Lowering", "Value", "substitute"]

COMPARISONS = frozenset({"less", "less_equal", "equal", "not_equal"})


def substitute(formula: Expression, replacements: Mapping[str, Expression]) -> Expression:
    """Return the formula with array elements replaced by other formulas."""
    done: dict[Expression, Expression] = {}
    for node in walk(formula):
        if isinstance(node, Element):
            done[node] = replacements.get(node.name, node)
        elif isinstance(node, Apply):
            done[node] = Apply(node.operation, tuple(done[operand] for operand in node.operands))
        else:
            done[node] = node
    return done[formula]


@dataclass(frozen=True)
class Value:
    """One number for each place, row, column or launch: what a single ufunc call gives.

    ``operation`` is "leaf" (memory that is there before the launch), "cell" (a constant or a
    scalar of the launch) or the name of a call. ``spread`` tells whether it differs by row and by
    column.
    """

    operation: str
    operands: tuple[int, ...] = ()
    width: Literal["real", "bool"] = "real"
    spread: tuple[bool, bool] = (False, False)


class Lowering:
    """Formulas turned into a list of values, each after its operands, equal ones once."""

    def __init__(
        self, leaves: Mapping[str, AnyArray], space: Space, real: np.dtype[Any], *, flat: bool
    ) -> None:
        self.real = real
        self.flat = flat  #: all views are one-dimensional
        self.space = space
        self.values: list[Value] = []
        self.memory: dict[int, AnyArray] = {}  #: of leaves and cells
        self.scalars: dict[str, AnyArray] = {}
        self._leaves = {name: self._laid_out(name, array) for name, array in leaves.items()}
        self._known: dict[object, int] = {}

    def _laid_out(self, name: str, array: AnyArray) -> AnyArray:
        layout = self.space.layouts[name]
        if layout == "single":
            return array.reshape(())
        if self.flat:
            return array.reshape(-1)
        rows = self.space.rows if layout in ("full", "column") else 1
        columns = self.space.columns if layout in ("full", "row") else 1
        return array.reshape(rows, columns)

    def lower(self, formula: Expression, target: np.dtype[Any] | None) -> int:
        """Add the values of a formula; the last one is converted to a real number.

        A formula that is a bare element of ``target``'s dtype stays as it is, so that a copy of
        integers is exact.
        """
        done: dict[Expression, int] = {}
        for node in walk(formula):
            done[node] = self._node(node, done)
        root = done[formula]
        if target is not None and root in self.memory and self.memory[root].dtype == target:
            return root
        return self._as_real(root)

    def _node(self, node: Expression, done: Mapping[Expression, int]) -> int:
        match node:
            case Const(value):
                return self._constant(value)
            case Scalar(name):
                cell = self.scalars.setdefault(name, np.zeros((), self.real))
                return self._remember(("scalar", name), "cell", cell, (False, False))
            case Element(name):
                layout = self.space.layouts[name]
                spread = (layout in ("full", "column"), layout in ("full", "row"))
                return self._remember(("leaf", name), "leaf", self._leaves[name], spread)
            case Index(axis):
                return self._index(axis)
            case Apply("where", (condition, yes, no)):
                return self._where(done[condition], done[yes], done[no])
            case Apply(operation, operands):
                return self._apply(operation, [self._as_real(done[one]) for one in operands])
        raise TypeError(f"{node!r} is no expression that a device knows")

    def _remember(
        self, key: object, operation: str, memory: AnyArray, spread: tuple[bool, bool]
    ) -> int:
        if key not in self._known:
            self._known[key] = len(self.values)
            self.memory[len(self.values)] = memory
            self.values.append(Value(operation, spread=spread))
        return self._known[key]

    def _constant(self, value: float, dtype: DTypeLike | None = None) -> int:
        cell = np.zeros((), dtype or self.real)
        with np.errstate(all="ignore"):
            cell[()] = value
        return self._remember((cell.dtype, cell.tobytes()), "cell", cell, (False, False))

    def _index(self, axis: int) -> int:
        size, shape = ((self.space.rows, (-1, 1)), (self.space.columns, (1, -1)))[axis]
        places = np.arange(size, dtype=self.real).reshape(shape)
        return self._remember(("index", axis), "leaf", places, (axis == 0, axis == 1))

    def _apply(self, operation: str, operands: Sequence[int]) -> int:
        if operation in COMPARISONS:
            return self._add(operation, operands, "bool")
        if operation == "power":
            exponent = self.memory.get(operands[1])
            if self.values[operands[1]].operation == "cell" and exponent is not None:
                return self._power(operands, exponent)
        return self._add(operation, operands)

    def _power(self, operands: Sequence[int], exponent: AnyArray) -> int:
        is_constant = all(exponent is not cell for cell in self.scalars.values())
        if is_constant and exponent == 2:
            return self._add("square", operands[:1])
        if is_constant and exponent == 1:
            return operands[0]
        return self._add("power", operands)

    def _where(self, condition: int, yes: int, no: int) -> int:
        yes, no, zero = self._as_real(yes), self._as_real(no), self._constant(0.0)
        if self.values[condition].width != "bool":
            condition = self._add("not_equal", [self._as_real(condition), zero], "bool")
        bits = self._add("bits", [condition])
        if yes == zero:
            one = self._constant(1, self._integer)
            return self._add("both", [no, self._add("antimask", [bits, one])])
        mask = self._add("mask", [bits])
        if no == zero:
            return self._add("both", [yes, mask])
        chosen = self._add("both", [self._add("differ", [yes, no]), mask])
        return self._add("differ", [chosen, no])

    @property
    def _integer(self) -> np.dtype[Any]:
        return np.dtype(f"i{self.real.itemsize}")

    def _as_real(self, value: int) -> int:
        memory = self.memory.get(value)
        if self.values[value].width == "bool" or (memory is not None and memory.dtype != self.real):
            return self._add("real", [value])
        return value

    def _add(
        self, operation: str, operands: Sequence[int], width: Literal["real", "bool"] = "real"
    ) -> int:
        key = (operation, *operands)
        if key not in self._known:
            spreads = [self.values[operand].spread for operand in operands]
            spread = (any(rows for rows, _ in spreads), any(columns for _, columns in spreads))
            self._known[key] = len(self.values)
            self.values.append(Value(operation, tuple(operands), width, spread))
        return self._known[key]
