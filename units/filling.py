"""Initial values of weights: fillings, drawn on the host from the run's seed.

A filling sees the shape of what it fills: (neurons, inputs) for a dense layer, (kernels, height,
width, channels) for a convolution, (neurons,) for a bias. Then fan in is what one neuron reads, and
fan out how many neurons read one input.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from veloflow.errors import InputError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Constant",
    "FanIn",
    "Filling",
    "Gabor",
    "Gaussian",
    "Glorot",
    "He",
    "Orthogonal",
    "Uniform",
    "magnitude",
]


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


@dataclass(frozen=True)
class Glorot(Filling):
    """Variance 2 / (fan in + fan out): Glorot and Bengio, "Understanding the difficulty …" (2010).

    As torch.nn.init.xavier_uniform_ and xavier_normal_. A bias is 0.
    """

    distribution: Literal["uniform", "normal"] = "uniform"
    gain: float = 1.0

    def __post_init__(self) -> None:
        _demand_distribution(self, self.distribution)

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return random values for weights, zeros for (neurons,)."""
        fan_in, fan_out = _fans(shape)
        sigma = self.gain * math.sqrt(2 / (fan_in + fan_out))
        return _draw(random, shape, self.distribution, sigma)


@dataclass(frozen=True)
class He(Filling):
    """Variance 2 / fan in, for layers of ReLU: He et al., "Delving deep into rectifiers" (2015).

    As torch.nn.init.kaiming_uniform_ and kaiming_normal_ with nonlinearity="relu". A bias is 0.
    """

    distribution: Literal["uniform", "normal"] = "normal"

    def __post_init__(self) -> None:
        _demand_distribution(self, self.distribution)

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return random values for weights, zeros for (neurons,)."""
        return _draw(random, shape, self.distribution, math.sqrt(2 / _fans(shape)[0]))


@dataclass(frozen=True)
class Orthogonal(Filling):
    """A random matrix with orthonormal rows (or columns, if there are fewer), times ``gain``.

    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks" (2014). Weights are seen as (neurons, all the rest). A bias is 0.
    """

    gain: float = 1.0

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return the matrix for weights, zeros for (neurons,)."""
        if len(shape) < 2:
            return np.zeros(shape)
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(random.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # without it some matrices never come
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


@dataclass(frozen=True)
class Gabor(Filling):
    """Gabor's filters for the kernels of a convolution, as in Veles: edges of many directions.

    A filter is exp(-(u^2 + v^2) / (2 s^2)) * cos(2 pi u / l + p), with (u, v) the place in the
    kernel from its middle, turned by t. For a kernel of side n there are, in this order, wave
    lengths l = n, n/2, n/3; s = n / (2 d) with d = 1 … 2 n/l; t = 0, 45, 90, 135 degrees;
    p = 0, pi: 96 in all. Each is brought to mean 0 and standard deviation m / 3, and is the same in
    all channels; kernels beyond the 96th are normal as :class:`Gaussian` makes them. A bias is 0.

    Args:
        magnitude: m; the layer's default unless given.
    """

    magnitude: float | None = None

    def fill(
        self, random: np.random.Generator, shape: tuple[int, ...], default: float
    ) -> NDArray[np.float64]:
        """Return filters for (kernels, height, width, channels), zeros for (kernels,).

        Raises:
            ShapeError: the weights are no kernels of at least 2 x 2.
        """
        if len(shape) == 1:
            return np.zeros(shape)
        if len(shape) != 4 or min(shape[1:3]) < 2:
            raise ShapeError(
                f"Gabor filters are for convolutions with kernels of 2 x 2 at least, not {shape}"
            )
        sigma = (default if self.magnitude is None else self.magnitude) / 3
        values = Gaussian(3 * sigma).fill(random, shape, default)
        for kernel, one in zip(values, _gabor_bank(shape[1], shape[2]), strict=False):
            kernel[...] = sigma * ((one - one.mean()) / one.std())[:, :, None]
        return values


def _gabor_bank(height: int, width: int) -> Iterator[NDArray[np.float64]]:
    """Yield the 96 filters, (height, width) each."""
    side = min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    for waves in (1, 2, 3):
        for divisor, turn, phase in product(range(1, 2 * waves + 1), range(4), (0.0, math.pi)):
            angle = turn * math.pi / 4
            u = x * math.cos(angle) + y * math.sin(angle)
            bell = np.exp(-(x * x + y * y) / (2 * (side / (2 * divisor)) ** 2))
            yield bell * np.cos(2 * math.pi * u * waves / side + phase)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan in and fan out."""
    if len(shape) < 2:
        return shape[0], shape[0]
    return math.prod(shape[1:]), shape[0] * math.prod(shape[1:-1])


def _draw(
    random: np.random.Generator, shape: tuple[int, ...], distribution: str, sigma: float
) -> NDArray[np.float64]:
    if len(shape) < 2:
        return np.zeros(shape)
    if distribution == "normal":
        return random.standard_normal(shape) * sigma
    return (random.random(shape) * 2 - 1) * (math.sqrt(3) * sigma)


def _demand_distribution(filling: Filling, distribution: str) -> None:
    if distribution not in ("uniform", "normal"):
        raise InputError(
            f"{type(filling).__name__}: distribution is {distribution!r}; "
            "give 'uniform' or 'normal'"
        )


def magnitude(gain: float, inputs: int, outputs: int) -> float:
    """Return Veles's default magnitude of a dense layer, min(sqrt(C / (in + out)), 0.5)."""
    return min(math.sqrt(gain / (inputs + outputs)), 0.5)
