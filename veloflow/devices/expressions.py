"""Formulas over array elements, written once and computed by every device.

An expression is built with ordinary operators from named array elements and launch-time numbers::

    x, err = element("x"), element("err")
    tanh_gradient = err * (1.14381894 - 0.388484177 * x * x)

Nothing is computed when it is written. A device turns it into a fused kernel (OpenCL) or into a
few passes of NumPy over cache-sized blocks. Comparisons give 1 or 0 in the dtype of the formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

__all__ = [
    "OPERATIONS",
    "Apply",
    "Const",
    "Element",
    "Expression",
    "Index",
    "Scalar",
    "absolute",
    "cos",
    "element",
    "elements_of",
    "exp",
    "floor",
    "index",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "scalar",
    "scalars_of",
    "sign",
    "sin",
    "sqrt",
    "tanh",
    "walk",
    "where",
]

#: every operation and its number of operands; each device has one table from these names
OPERATIONS: dict[str, int] = {
    "add": 2, "subtract": 2, "multiply": 2, "divide": 2, "power": 2,
    "maximum": 2, "minimum": 2,
    "less": 2, "less_equal": 2, "equal": 2, "not_equal": 2,
    "negative": 1, "absolute": 1, "sign": 1, "exp": 1, "log": 1, "log1p": 1, "tanh": 1,
    "sqrt": 1, "sin": 1, "cos": 1, "floor": 1,
    "where": 3,
}  # fmt: skip


class Expression:
    """One node of a formula. Build it with operators and the functions of this module."""

    __slots__ = ()
    __array_ufunc__ = None  # NumPy scalars must leave the operators to us

    def __add__(self, other: Expression | float) -> Expression:
        return Apply("add", (self, _wrap(other)))

    def __radd__(self, other: float) -> Expression:
        return Apply("add", (_wrap(other), self))

    def __sub__(self, other: Expression | float) -> Expression:
        return Apply("subtract", (self, _wrap(other)))

    def __rsub__(self, other: float) -> Expression:
        return Apply("subtract", (_wrap(other), self))

    def __mul__(self, other: Expression | float) -> Expression:
        return Apply("multiply", (self, _wrap(other)))

    def __rmul__(self, other: float) -> Expression:
        return Apply("multiply", (_wrap(other), self))

    def __truediv__(self, other: Expression | float) -> Expression:
        return Apply("divide", (self, _wrap(other)))

    def __rtruediv__(self, other: float) -> Expression:
        return Apply("divide", (_wrap(other), self))

    def __pow__(self, other: Expression | float) -> Expression:
        return Apply("power", (self, _wrap(other)))

    def __neg__(self) -> Expression:
        return Apply("negative", (self,))

    def __abs__(self) -> Expression:
        return Apply("absolute", (self,))

    def __lt__(self, other: Expression | float) -> Expression:
        return Apply("less", (self, _wrap(other)))

    def __le__(self, other: Expression | float) -> Expression:
        return Apply("less_equal", (self, _wrap(other)))

    def __gt__(self, other: Expression | float) -> Expression:
        return Apply("less", (_wrap(other), self))

    def __ge__(self, other: Expression | float) -> Expression:
        return Apply("less_equal", (_wrap(other), self))

    def equals(self, other: Expression | float) -> Expression:
        """Return 1 where both are equal, else 0 (``==`` compares the formulas themselves)."""
        return Apply("equal", (self, _wrap(other)))

    def differs(self, other: Expression | float) -> Expression:
        """Return 1 where both differ, else 0."""
        return Apply("not_equal", (self, _wrap(other)))


@dataclass(frozen=True)
class Const(Expression):
    """A number."""

    value: float


@dataclass(frozen=True)
class Element(Expression):
    """The current element of the array bound to ``name``."""

    name: str


@dataclass(frozen=True)
class Scalar(Expression):
    """A number given at each launch as the keyword ``name``."""

    name: str


@dataclass(frozen=True)
class Index(Expression):
    """The row (axis 0) or the column (axis 1) of the current element."""

    axis: int


@dataclass(frozen=True)
class Apply(Expression):
    """An operation of :data:`OPERATIONS` on its operands."""

    operation: str
    operands: tuple[Expression, ...]

    def __post_init__(self) -> None:
        if OPERATIONS[self.operation] != len(self.operands):
            raise TypeError(f"{self.operation} takes {OPERATIONS[self.operation]} operands")

    @cached_property
    def _hash(self) -> int:
        return hash((self.operation, self.operands))

    def __hash__(self) -> int:  # formulas are shared DAGs: hash each node once
        return self._hash


def _wrap(value: Expression | float) -> Expression:
    if isinstance(value, Expression):
        return value
    return Const(float(value))


def element(name: str) -> Expression:
    """Return the element of the array that will be bound to ``name``."""
    return Element(name)


def scalar(name: str) -> Expression:
    """Return a number that each launch gives as the keyword ``name``."""
    return Scalar(name)


def index(axis: int) -> Expression:
    """Return the row (``axis`` 0) or column (``axis`` 1) of the element being computed."""
    return Index(axis)


def exp(x: Expression) -> Expression:
    """Return e to the power x."""
    return Apply("exp", (x,))


def log(x: Expression) -> Expression:
    """Return the natural logarithm."""
    return Apply("log", (x,))


def log1p(x: Expression) -> Expression:
    """Return log(1 + x), exact for small x."""
    return Apply("log1p", (x,))


def tanh(x: Expression) -> Expression:
    """Return the hyperbolic tangent."""
    return Apply("tanh", (x,))


def sqrt(x: Expression) -> Expression:
    """Return the square root."""
    return Apply("sqrt", (x,))


def sin(x: Expression) -> Expression:
    """Return the sine."""
    return Apply("sin", (x,))


def cos(x: Expression) -> Expression:
    """Return the cosine."""
    return Apply("cos", (x,))


def floor(x: Expression) -> Expression:
    """Return the largest whole number not above x."""
    return Apply("floor", (x,))


def absolute(x: Expression) -> Expression:
    """Return the magnitude."""
    return Apply("absolute", (x,))


def sign(x: Expression) -> Expression:
    """Return -1, 0 or 1."""
    return Apply("sign", (x,))


def maximum(x: Expression | float, y: Expression | float) -> Expression:
    """Return the larger of both."""
    return Apply("maximum", (_wrap(x), _wrap(y)))


def minimum(x: Expression | float, y: Expression | float) -> Expression:
    """Return the smaller of both."""
    return Apply("minimum", (_wrap(x), _wrap(y)))


def where(condition: Expression, yes: Expression | float, no: Expression | float) -> Expression:
    """Return ``yes`` where ``condition`` is not 0, else ``no``."""
    return Apply("where", (condition, _wrap(yes), _wrap(no)))


def walk(*formulas: Expression) -> Iterator[Expression]:
    """Yield each distinct node once, operands before what uses them."""
    seen: set[Expression] = set()
    for formula in formulas:
        stack: list[tuple[Expression, bool]] = [(formula, False)]
        while stack:
            node, ready = stack.pop()
            if node in seen:
                continue
            if ready or not isinstance(node, Apply):
                seen.add(node)
                yield node
                continue
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(node.operands))


def elements_of(*formulas: Expression) -> list[str]:
    """Return the names of all array elements used, in order of first use."""
    return [node.name for node in walk(*formulas) if isinstance(node, Element)]


def scalars_of(*formulas: Expression) -> list[str]:
    """Return the names of all launch-time numbers used, in order of first use."""
    return [node.name for node in walk(*formulas) if isinstance(node, Scalar)]
