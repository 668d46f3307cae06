"""Products of one matrix, transposed, with several others: gradients that share their deltas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.base import in_turn
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["check_joint_products", "one_by_one"]


def check_joint_products(a: Array, factors: Sequence[Array | None], outs: Sequence[Array]) -> None:
    """Look whether the shapes fit.

    Raises:
        ShapeError: they do not.
    """
    if len(a.shape) != 2 or len(factors) != len(outs) or not factors:
        raise ShapeError(
            f"a matrix with as many results as factors is wanted, not {a.shape} with "
            f"{len(outs)} results and {len(factors)} factors"
        )
    inner, rows = a.shape
    for factor, out in zip(factors, outs, strict=True):
        if factor is None:
            fits, what = out.shape == (rows,), "sums of columns"
        else:
            is_matrix = len(factor.shape) == 2 and factor.shape[0] == inner
            fits, what = is_matrix and out.shape == (rows, *factor.shape[1:]), str(factor.shape)
        if not fits:
            raise ShapeError(f"{a.shape} transposed and {what} do not fit {out.shape}")
    if {one.dtype for one in (a, *factors, *outs) if one is not None} != {a.dtype}:
        raise ShapeError("the arrays of joint products must have one dtype")


def one_by_one(
    device: Device, a: Array, factors: Sequence[Array | None], outs: Sequence[Array]
) -> Launch:
    """Bind joint products as products of their own."""
    launches: list[Launch] = []
    for factor, out in zip(factors, outs, strict=True):
        if factor is None:  # sums over rows: the product of a row of ones
            ones = device.asarray(np.ones((1, len(a))), a.dtype)
            launches.append(device.gemm(ones, a, out.reshape(1, out.size)))
        else:
            launches.append(device.gemm(a, factor, out, transpose_a=True))
    return in_turn(launches)
