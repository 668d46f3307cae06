"""Initial values of weights: fillings, drawn on the host from the run's seed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Constant", "FanIn", "Filling", "Gaussian", "Uniform", "magnitude"]


class Filling(ABC):
    """How a new array of weights is filled."""

    @abstractmethod
    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return float64 values of this shape; ``default`` is the layer's own magnitude."""


@dataclass(frozen=True)
class Uniform(Filling):
    """Uniform in [-m, m); ``m`` is the layer's default unless given."""

    magnitude: float | None = None

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return uniform values."""
        m = default if self.magnitude is None else self.magnitude
        return random.random(shape) * 2 * m - m


@dataclass(frozen=True)
class Gaussian(Filling):
    """Normal with standard deviation m / 3, clipped at m * 5 / 3, as in Veles."""

    magnitude: float | None = None

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return normal values."""
        sigma = (default if self.magnitude is None else self.magnitude) / 3
        return np.clip(random.standard_normal(shape) * sigma, -5 * sigma, 5 * sigma)


@dataclass(frozen=True)
class FanIn(Filling):
    """Uniform in [-m, m) with m = 1 / sqrt(inputs), as torch.nn.Linear does; a bias is 0."""

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return uniform values for (neurons, inputs), zeros for (neurons,)."""
        if len(shape) < 2:
            return np.zeros(shape)
        m = 1 / math.sqrt(math.prod(shape[1:]))
        return random.random(shape) * 2 * m - m


@dataclass(frozen=True)
class Constant(Filling):
    """One value everywhere."""

    value: float = 0.0

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return the constant."""
        return np.full(shape, self.value)


def magnitude(gain: float, inputs: int, outputs: int) -> float:
    """Return Veles's default magnitude of a dense layer, min(sqrt(C / (in + out)), 0.5)."""
    return min(math.sqrt(gain / (inputs + outputs)), 0.5)
