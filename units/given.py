"""Samples that a master gives to slaves which cannot reach the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.devices import Array

__all__ = ["PADDING", "given_in", "put"]

#: what of a minibatch may be given, by the names of the loader's attributes -> the value of padding
PADDING: Mapping[str, int] = {
    "minibatch_data": 0,
    "minibatch_labels": -1,
    "minibatch_targets": 0,
    "minibatch_weights": 0,
    "minibatch_lengths": 0,
}


def given_in(job: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the samples that came with a job; none where slaves read them."""
    return {name: np.asarray(job[name]) for name in PADDING if name in job}


def put(name: str, rows: NDArray[Any], target: Array, where: str) -> None:
    """Write rows (n, …) into a minibatch (m, …), m >= n, and padding after them.

    Raises:
        DataError: the rows do not fit; ``where`` names the unit.
    """
    if rows.shape[1:] != target.shape[1:] or len(rows) > target.shape[0]:
        raise DataError(
            f"unit {where!r}: the master gave {name} of shape {rows.shape}, and a minibatch has "
            f"{target.shape}"
        )
    whole = np.full(target.shape, PADDING[name], target.dtype)
    whole[: len(rows)] = rows
    target.write(whole)
