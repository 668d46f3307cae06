"""How a user writes a window that moves over images: its size, its stride, its padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.devices import Window
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Window", "padding_of", "pair"]


def pair(value: int | Sequence[int], what: str, least: int = 1) -> tuple[int, int]:
    """Return (height, width) of one number for both, or of two.

    Raises:
        ShapeError: it is neither, or a number is too small.
    """
    two = (value, value) if isinstance(value, int) else tuple(value)
    if len(two) != 2 or any(one < least for one in two):
        raise ShapeError(f"{what} is {value!r}; give one number from {least} on, or two")
    return two[0], two[1]


def padding_of(value: int | Sequence[int], what: str) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom), as Veles has it, of one number, (y, x), or all four.

    Raises:
        ShapeError: it is none of these, or negative.
    """
    if isinstance(value, int) or len(value) == 2:
        y, x = pair(value, what, least=0)
        return x, y, x, y
    if len(value) != 4 or any(one < 0 for one in value):
        raise ShapeError(f"{what} is {value!r}; give one number, (y, x) or four from 0 on")
    left, top, right, bottom = value
    return left, top, right, bottom
