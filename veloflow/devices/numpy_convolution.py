"""Convolutions with NumPy: some images at a time become rows of patches, and those are multiplied.

The rows of a few images stay in the cache between their unfolding and the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from veloflow.devices.numpy_plan import aligned_zeros
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from veloflow.devices.base import Array
    from veloflow.devices.window import Window

    AnyArray: TypeAlias = NDArray[Any]

__all__ = ["Convolution", "Gradient", "Parts", "check_convolution"]

#: numbers of patches that are unfolded at a time
_UNFOLDED = 1 << 20


def check_convolution(
    x: Array,
    weights: Array,
    out: Array,
    window: Window,
    groups: int,
    others: Sequence[Array | None],
) -> None:
    """Refuse shapes and dtypes that make no convolution; ``others`` need only the dtype.

    Raises:
        ShapeError: they do not fit.
    """
    kernels, length, channels = len(weights), weights.size // len(weights), window.image[2]
    if groups < 1 or channels % groups or kernels % groups:
        raise ShapeError(f"{channels} channels and {kernels} kernels do not make {groups} groups")
    batch = len(x)
    wanted = {
        "x": (x, batch * math.prod(window.image)),
        "weights": (weights, kernels * window.length // groups),
        "the output": (out, batch * math.prod(window.places) * kernels),
    }
    for name, (array, size) in wanted.items():
        if array.size != size or (name == "weights" and length * groups != window.length):
            raise ShapeError(f"{name} of shape {array.shape} does not fit {window} of {x.shape}")
    if len({one.dtype for one in (x, weights, out, *others) if one is not None}) != 1:
        raise ShapeError("the arrays of a convolution must have one dtype")


@dataclass(frozen=True)
class Parts:
    """A minibatch cut into runs of images, with what they need for a while."""

    window: Window
    batch: int
    groups: int
    dtype: DTypeLike

    @property
    def together(self) -> int:
        """How many images are unfolded at a time."""
        size = math.prod(self.window.places) * self.length
        return max(1, min(self.batch, _UNFOLDED // max(1, size)))

    @property
    def length(self) -> int:
        """The numbers of a patch that one group sees."""
        return self.window.length // self.groups

    def scratch(self) -> tuple[AnyArray, AnyArray]:
        """Return memory for wide images, zeroed, and for their patches, of one group."""
        channels = self.window.image[2] // self.groups
        wide = aligned_zeros((self.together, *self.window.wide, channels), self.dtype)
        rows = (self.together, *self.window.places, *self.window.kernel, channels)
        return wide, aligned_zeros(rows, self.dtype)

    def __iter__(self) -> Iterator[tuple[slice, int]]:
        for first in range(0, self.batch, self.together):
            count = min(self.together, self.batch - first)
            yield slice(first, first + count), count

    def inside(self, wide: AnyArray) -> AnyArray:
        """Return the images themselves in wide ones."""
        (height, width, _), (left, top, _, _) = self.window.image, self.window.padding
        return wide[:, top : top + height, left : left + width]

    def patches(self, wide: AnyArray) -> AnyArray:
        """Return the patches of wide images as a view, (count, oh, ow, ky, kx, channels)."""
        (sy, sx), (b, y, x, c) = self.window.stride, wide.strides
        shape = (len(wide), *self.window.places, *self.window.kernel, wide.shape[3])
        return np.lib.stride_tricks.as_strided(wide, shape, (b, y * sy, x * sx, y, x, c))

    def fold(self, rows: AnyArray, wide: AnyArray) -> None:
        """Add patches up where they overlap."""
        (ky, kx), (sy, sx), (oh, ow) = self.window.kernel, self.window.stride, self.window.places
        wide[...] = 0
        for i in range(ky):
            for j in range(kx):
                places = wide[:, i::sy, j::sx][:, :oh, :ow]
                places += rows[..., i, j, :]

    def channels(self, group: int, count: int) -> slice:
        """Return the part of ``count`` channels or kernels that belongs to a group."""
        return slice(group * (count // self.groups), (group + 1) * (count // self.groups))


class Convolution:
    """The sums of a convolution on host arrays: a call computes them."""

    def __init__(
        self, x: AnyArray, weights: AnyArray, out: AnyArray, window: Window, groups: int
    ) -> None:
        self._parts = Parts(window, len(x), groups, x.dtype)
        self._x = x.reshape(-1, *window.image)
        self._weights = weights.reshape(groups, -1, self._parts.length)
        self._out = out.reshape(-1, math.prod(window.places), len(weights))
        self._wide, self._rows = self._parts.scratch()
        spare = (self._parts.together * self._out.shape[1], len(weights) // groups)
        self._sums = aligned_zeros(spare, x.dtype) if groups > 1 else None

    def __call__(self) -> None:
        parts, kernels = self._parts, self._out.shape[2]
        for run, count in parts:
            for group, weights in enumerate(self._weights):
                wide, rows = self._wide[:count], self._rows[:count]
                channels = parts.channels(group, self._x.shape[3])
                parts.inside(wide)[...] = self._x[run, ..., channels]
                np.copyto(rows, parts.patches(wide))
                matrix = rows.reshape(-1, parts.length)
                if self._sums is None:
                    np.matmul(matrix, weights.T, out=self._out[run].reshape(-1, kernels))
                else:
                    sums = np.matmul(matrix, weights.T, out=self._sums[: len(matrix)])
                    own = parts.channels(group, kernels)
                    self._out[run, :, own] = sums.reshape(count, -1, sums.shape[1])


class Gradient:
    """The gradients by weights and input of a convolution on host arrays, from the one by sums."""

    def __init__(
        self,
        delta: AnyArray,
        x: AnyArray,
        weights: AnyArray,
        window: Window,
        groups: int,
        weights_gradient: AnyArray | None,
        input_gradient: AnyArray | None,
    ) -> None:
        self._parts = Parts(window, len(delta), groups, weights.dtype)
        self._delta = delta.reshape(-1, math.prod(window.places), len(weights))
        self._x = x.reshape(-1, *window.image)
        self._weights = weights.reshape(groups, -1, self._parts.length)
        self._wide, self._rows = self._parts.scratch()
        self._by_weights = self._by_input = None
        if weights_gradient is not None:
            self._by_weights = weights_gradient.reshape(self._weights.shape)
            self._sum = aligned_zeros(self._weights.shape[1:], weights.dtype)
        if input_gradient is not None:
            self._by_input = input_gradient.reshape(-1, *window.image)
            self._other_wide, _ = self._parts.scratch()
        own = (self._parts.together * self._delta.shape[1], self._weights.shape[1])
        self._own = aligned_zeros(own, weights.dtype) if groups > 1 else None

    def __call__(self) -> None:
        for run, count in self._parts:
            for group in range(len(self._weights)):
                delta = self._delta_of(run, group)
                if self._by_weights is not None:
                    self._add_to_weights(delta, run, group, count)
                if self._by_input is not None:
                    self._go_back(delta, run, group, count)

    def _delta_of(self, run: slice, group: int) -> AnyArray:
        kernels = self._delta.shape[2]
        if self._own is None:
            return self._delta[run].reshape(-1, kernels)
        part = self._delta[run, :, self._parts.channels(group, kernels)]
        own = self._own[: part.shape[0] * part.shape[1]]
        own.reshape(part.shape)[...] = part
        return own

    def _add_to_weights(self, delta: AnyArray, run: slice, group: int, count: int) -> None:
        assert self._by_weights is not None
        parts, wide, rows = self._parts, self._wide[:count], self._rows[:count]
        parts.inside(wide)[...] = self._x[run, ..., parts.channels(group, self._x.shape[3])]
        np.copyto(rows, parts.patches(wide))
        matrix = rows.reshape(-1, parts.length)
        if run.start == 0:
            np.matmul(delta.T, matrix, out=self._by_weights[group])
        else:
            self._by_weights[group] += np.matmul(delta.T, matrix, out=self._sum)

    def _go_back(self, delta: AnyArray, run: slice, group: int, count: int) -> None:
        assert self._by_input is not None
        parts, wide, rows = self._parts, self._other_wide[:count], self._rows[:count]
        np.matmul(delta, self._weights[group], out=rows.reshape(-1, parts.length))
        parts.fold(rows, wide)
        channels = parts.channels(group, self._by_input.shape[3])
        self._by_input[run, ..., channels] = parts.inside(wide)
