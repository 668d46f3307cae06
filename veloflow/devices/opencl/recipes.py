"""What is compiled and how it is launched, as plain records that a child process can be told.

A :class:`Recipe` is a program; a :class:`Call` is one launch of one of its kernels. Both are made
from shapes and dtypes alone, so that the same code describes the launch on a user's arrays and the
trial on small random ones that comes before a freshly compiled kernel is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Argument", "ArrayArgument", "Call", "LaunchScalar", "Recipe", "Share", "Trial",
    "kernel_source",
]  # fmt: skip


@dataclass(frozen=True)
class ArrayArgument:
    """An argument that is the array of that name."""

    name: str


@dataclass(frozen=True)
class LaunchScalar:
    """An argument that each launch gives as the keyword ``name``."""

    name: str
    dtype: np.dtype[Any]


#: a constant is a NumPy scalar of the parameter's own dtype
Argument: TypeAlias = ArrayArgument | LaunchScalar | np.generic


#: rows that a work-item takes at once in kernels that go by rows
_ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class Share:
    """How a kernel may be divided by rows: a work-item's rows need no other rows of ``arrays``.

    These have ``rows`` rows each. ``arguments`` are those of the call when it is divided so, where
    they differ.
    """

    rows: int
    arrays: frozenset[str]
    arguments: tuple[Argument, ...] | None = None

    def items(self, compute_units: int) -> int:
        """Return how many work-items there are to be: each has some whole blocks of rows."""
        blocks = -(-self.rows // _ROWS_AT_ONCE)
        return -(-blocks // -(-blocks // (16 * compute_units)))


@dataclass(frozen=True)
class Call:
    """One launch of the kernel ``kernel`` over ``size`` work-items in groups of ``local``.

    ``share`` says how it may be divided by rows, if it can. ``is_alone``: it must be a launch of
    its own, for it does not divide its work by ``ranges.cl``, or takes so long that a launch costs
    nothing beside it.
    """

    kernel: str
    arguments: tuple[Argument, ...]
    size: tuple[int, ...]
    local: tuple[int, ...] | None
    share: Share | None = None
    is_alone: bool = False


@dataclass(frozen=True)
class Recipe:
    """A program to compile. ``name`` is for people: "softmax", "gemm packed"."""

    name: str
    source: str
    options: tuple[str, ...] = ("-cl-std=CL1.2",)


@dataclass(frozen=True, eq=False)
class Trial:
    """Launches on small arrays, and what NumPy computes in their place.

    ``arrays`` holds every array (scratch included) before the launches, ``expected`` float64
    results by name, NaN where any value will do. Empty ``expected``: it must only run.
    """

    calls: Sequence[Call]
    arrays: Mapping[str, np.ndarray[Any, Any]]
    scalars: Mapping[str, float]
    expected: Mapping[str, np.ndarray[Any, Any]]
    tolerance: float


@cache
def kernel_source(name: str) -> str:
    """Return the text of ``kernels/<name>.cl``."""
    return (files(__package__) / "kernels" / f"{name}.cl").read_text(encoding="utf-8")
