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

__all__ = ["Argument", "ArrayArgument", "Call", "LaunchScalar", "Recipe", "Trial", "kernel_source"]


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


@dataclass(frozen=True)
class Call:
    """One launch of the kernel ``kernel`` over ``size`` work-items in groups of ``local``."""

    kernel: str
    arguments: tuple[Argument, ...]
    size: tuple[int, ...]
    local: tuple[int, ...] | None


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
