"""Products of matrices that are more exact than the BLAS: Veles's precision levels.

Level 0 is the BLAS itself. Level 1 cuts the inner dimension into blocks; each is a product of the
BLAS, and the blocks are added with compensation (Knuth's TwoSum; Kahan, 1965; Neumaier, 1974).
Level 2 loses next to nothing before the last rounding: float32 is multiplied in float64, where each
single product is exact; float64 is split into a high and a low part, such that the product of the
high parts is exact whatever the order of additions (Ozaki, Ogita, Oishi and Rump, "Error-free
transformations of matrix multiplication", 2012).

Infinities become NaN in float64 at level 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.numpy_plan import aligned_zeros

if TYPE_CHECKING:
    from veloflow.devices.numpy_plan import AnyArray, Call

__all__ = ["precise_product"]

#: how much of the inner dimension the BLAS adds up by itself at level 1
_INNER = 64
#: bits of a float64's significand
_BITS = 53


def precise_product(left: AnyArray, right: AnyArray, out: AnyArray, level: int) -> list[Call]:
    """Return the calls that give ``out = left @ right`` at level 1 or 2.

    They are matrices of one dtype, or stacks of as many.
    """
    if level == 1:
        return _compensated(left, right, out)
    if out.dtype == np.float64:
        return [(_Split(left, right, out), ())]
    wide = [aligned_zeros(one.shape, np.float64) for one in (left, right, out)]
    return [
        (wide[0].__setitem__, (..., left)),
        (wide[1].__setitem__, (..., right)),
        (np.matmul, tuple(wide)),
        (out.__setitem__, (..., wide[2])),
    ]


def _compensated(left: AnyArray, right: AnyArray, out: AnyArray) -> list[Call]:
    inner = left.shape[-1]
    calls: list[Call] = [(np.matmul, (left[..., :_INNER], right[..., :_INNER, :], out))]
    if inner <= _INNER:
        return calls
    part, total, shift, lost = (aligned_zeros(out.shape, out.dtype) for _ in range(4))
    calls.append((lost.fill, (0,)))
    for start in range(_INNER, inner, _INNER):
        block = slice(start, start + _INNER)
        calls += [
            (np.matmul, (left[..., block], right[..., block, :], part)),
            # TwoSum: what out + part loses to rounding, exactly
            (np.add, (out, part, total)),
            (np.subtract, (total, out, shift)),
            (np.subtract, (part, shift, part)),
            (np.subtract, (total, shift, shift)),
            (np.subtract, (out, shift, shift)),
            (np.add, (lost, part, lost)),
            (np.add, (lost, shift, lost)),
            (out.__setitem__, (..., total)),
        ]
    calls.append((np.add, (out, lost, out)))
    return calls


class _Split:
    """left @ right in float64 as high @ high, which is exact, and the small rest."""

    def __init__(self, left: AnyArray, right: AnyArray, out: AnyArray) -> None:
        self._left, self._right, self._out = left, right, out
        # two numbers of so many bits multiply exactly, and so many products add up exactly
        self._bits = (_BITS - math.ceil(math.log2(max(2, left.shape[-1])))) // 2
        self._high_left, self._low_left = np.zeros_like(left), np.zeros_like(left)
        self._high_right, self._low_right = np.zeros_like(right), np.zeros_like(right)
        self._rest, self._part = np.zeros_like(out), np.zeros_like(out)

    def _split(self, values: AnyArray, high: AnyArray, low: AnyArray, axis: int) -> None:
        largest = np.maximum(values.max(axis, keepdims=True), -values.min(axis, keepdims=True))
        # adding and taking away a number this large rounds to so many bits below the largest
        exponent = np.frexp(largest)[1] - self._bits + _BITS - 1
        large = np.ldexp(1.5, exponent)
        np.add(values, large, high)
        np.subtract(high, large, high)
        np.subtract(values, high, low)

    def __call__(self) -> None:
        if not self._left.size or not self._right.size:
            self._out.fill(0)
            return
        self._split(self._left, self._high_left, self._low_left, -1)
        self._split(self._right, self._high_right, self._low_right, -2)
        np.matmul(self._high_left, self._low_right, self._rest)
        np.matmul(self._low_left, self._right, self._part)
        np.add(self._rest, self._part, self._rest)
        np.matmul(self._high_left, self._high_right, self._part)
        np.add(self._part, self._rest, self._out)
