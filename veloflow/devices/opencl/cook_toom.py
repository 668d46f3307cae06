"""Convolutions with fewer multiplications (Toom 1963, Cook 1966, Winograd 1980; Lavin 2015).

A correlation of ``outputs`` sums with ``taps`` weights is the product of polynomials, so it can be
found from n = outputs + taps - 1 products of their values at n points (the last one infinity)
instead of outputs * taps:  y = A^T ((G w) * (B^T x)). In two dimensions the transforms are applied
to columns and then to rows. Points that lie at +-a share half of their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

__all__ = ["CookToom", "cook_toom", "function", "transposed"]

#: simple numbers near 1, so that float32 loses little
_POINTS = tuple(Fraction(n) for n in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "4", "-4"))

Matrix = tuple[tuple[Fraction, ...], ...]


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of the polynomial with these roots, the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [-root * one for one in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def transposed(matrix: Matrix) -> Matrix:
    """Return the transpose."""
    return tuple(zip(*matrix, strict=True))


@dataclass(frozen=True)
class CookToom:
    """The three matrices for ``outputs`` sums with ``taps`` weights, exact.

    Attributes:
        a: (points, outputs); b: (points, points); g: (points, taps): y = a^T ((g w) * (b^T x)).
    """

    outputs: int
    taps: int
    a: Matrix
    b: Matrix
    g: Matrix

    @property
    def points(self) -> int:
        """How many products there are, in one dimension."""
        return self.outputs + self.taps - 1


@cache
def cook_toom(outputs: int, taps: int) -> CookToom:
    """Return the matrices for ``outputs`` sums with ``taps`` weights."""
    finite = _POINTS[: outputs + taps - 2]
    a, g, b_t = [], [], []
    for number, point in enumerate(finite):
        others = finite[:number] + finite[number + 1 :]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        a.append(tuple(point**power for power in range(outputs)))
        g.append(tuple(point**power / scale for power in range(taps)))
        b_t.append((*_product(others), Fraction(0)))
    a.append(tuple(Fraction(power == outputs - 1) for power in range(outputs)))
    g.append(tuple(Fraction(power == taps - 1) for power in range(taps)))
    b_t.append(tuple(_product(finite)))
    return CookToom(outputs, taps, tuple(a), transposed(tuple(b_t)), tuple(g))


def function(name: str, matrix: Matrix) -> str:
    """Return an OpenCL function ``name(x, y)`` that computes y = matrix x on private vectors."""
    symbols = {f"x[{column}]": values for column, values in enumerate(transposed(matrix))}
    lines: list[str] = []
    for one, other in _column_pairs(symbols):
        lines += [f"const vec p{len(lines)} = {one} + {other};"]
        lines += [f"const vec p{len(lines)} = {one} - {other};"]
        values, mirrored = symbols.pop(one), symbols.pop(other)
        for sign, place in ((1, len(lines) - 2), (-1, len(lines) - 1)):
            symbols[f"p{place}"] = tuple(
                a if a == sign * b else Fraction(0) for a, b in zip(values, mirrored, strict=True)
            )
    rows = dict(enumerate(zip(*symbols.values(), strict=True)))
    names = list(symbols)
    for row in range(len(matrix)):
        if row not in rows:
            continue
        own = rows.pop(row)
        partner = next((n for n, values in rows.items() if _are_mirrored(own, values)), None)
        if partner is None:
            lines.append(f"y[{row}] = {_sum(names, own)};")
            continue
        theirs = rows.pop(partner)
        even = [a if a == b else Fraction(0) for a, b in zip(own, theirs, strict=True)]
        odd = [a if a != b else Fraction(0) for a, b in zip(own, theirs, strict=True)]
        lines.append(f"const vec e{row} = {_sum(names, even)}, o{row} = {_sum(names, odd)};")
        lines.append(f"y[{row}] = e{row} + o{row};")
        lines.append(f"y[{partner}] = e{row} - o{row};")
    body = "\n".join(f"    {line}" for line in lines)
    return f"static void {name}(const vec *x, vec *y)\n{{\n{body}\n}}\n"


def _are_mirrored(one: Sequence[Fraction], other: Sequence[Fraction]) -> bool:
    """Whether two rows or columns differ in signs alone, and not all alike."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a or b]
    signs = {a == b for a, b in pairs}
    return all(abs(a) == abs(b) for a, b in pairs) and signs == {True, False}


def _column_pairs(symbols: dict[str, tuple[Fraction, ...]]) -> list[tuple[str, str]]:
    pairs, left = [], list(symbols)
    while left:
        one = left.pop(0)
        other = next((n for n in left if _are_mirrored(symbols[one], symbols[n])), None)
        # a pair saves additions where more than two sums are made of it
        if other is not None and sum(map(bool, symbols[one])) > 2:
            left.remove(other)
            pairs.append((one, other))
    return pairs


def _sum(names: Sequence[str], coefficients: Sequence[Fraction]) -> str:
    terms = []
    for name, value in zip(names, coefficients, strict=True):
        if value == 1:
            terms.append(f"+ {name}")
        elif value == -1:
            terms.append(f"- {name}")
        elif value:
            sign, size = ("+" if value > 0 else "-"), float(abs(value)).hex()
            terms.append(f"{sign} (real)({size}) * {name}")
    return " ".join(terms).removeprefix("+ ") if terms else "(vec)(0)"
