"""The grid of a self-organizing map: where neurons stand, and where among samples they begin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["coordinates", "principal_plane"]


def coordinates(rows: int, columns: int) -> NDArray[np.float64]:
    """Return the places of neurons (rows * columns, 2) in [-1, 1], odd rows half a step aside."""
    y, x = np.divmod(np.arange(rows * columns, dtype=np.float64), columns)
    x = x + 0.5 * (y % 2)
    places = np.stack([x, y], axis=1)
    scaled: NDArray[np.float64] = 2 * places / np.maximum(places.max(axis=0), 1) - 1
    return scaled


def principal_plane(samples: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return neurons (neurons, features) on the plane where samples (n, features) vary most.

    A neuron is the mean of the samples, plus its place on the grid times the two principal
    components, each as long as the standard deviation of the samples along it. The longer side of
    the grid lies along the first (Kohonen, "Essentials of the self-organizing map", 2013).
    """
    mean = samples.mean(axis=0)
    _, sizes, directions = np.linalg.svd(samples - mean, full_matrices=False)
    lengths = sizes[:2] / math.sqrt(max(len(samples) - 1, 1))
    axes = np.zeros((2, samples.shape[1]))
    axes[: len(lengths)] = lengths[:, None] * directions[:2]
    for axis in axes:  # libraries differ in which way a component points
        axis *= -1.0 if axis[np.abs(axis).argmax()] < 0 else 1.0
    places = coordinates(rows, columns)
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2  # a single row lies at -1
    along = places if columns >= rows else places[:, ::-1]
    plane: NDArray[np.float64] = mean + along @ axes
    return plane
