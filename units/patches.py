"""Patches of images as rows of a matrix, and back: what turns convolutions into products.

Images are (batch, height, width, channels). A window of ``kernel`` (height, width) moves over them
by ``stride``, from ``padding`` outside on; each place of it gives a row with the values under it,
in the order height, width, channels, and zeros outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices import Program
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FOLD", "UNFOLD", "Window", "padding_of", "pair"]


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


@dataclass(frozen=True)
class Window:
    """A window that moves over images of (height, width, channels).

    Attributes:
        image: the shape of one image.
        kernel, stride: (height, width).
        padding: (left, top, right, bottom).
        is_partial: also take places where the window reaches over the end (with pooling).
    """

    image: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    is_partial: bool = False

    @classmethod
    def over(cls, shape: Sequence[int], what: str, **more: Any) -> Window:
        """Return a window over a batch of images; without channels they have one.

        Raises:
            ShapeError: these are no images, or they are smaller than the window.
        """
        if len(shape) not in (3, 4):
            raise ShapeError(
                f"{what} takes images, (batch, height, width, channels) or (batch, height, width), "
                f"and its input has shape {tuple(shape)}"
            )
        height, width, channels = (*shape[1:], 1)[:3]
        image = (height, width, channels)
        window = cls(image, **more)
        if min(window.places) < 1:
            raise ShapeError(f"{what}: images of {image} are smaller than a window of {more}")
        return window

    @property
    def places(self) -> tuple[int, int]:
        """How many places there are: (height, width) of the output."""
        left, top, right, bottom = self.padding
        sizes = (self.image[0] + top + bottom, self.image[1] + left + right)
        found = []
        for size, kernel, stride in zip(sizes, self.kernel, self.stride, strict=True):
            room = size - kernel
            steps = -(-room // stride) if self.is_partial else room // stride
            if self.is_partial and steps * stride >= size:  # it would see nothing at all
                steps -= 1
            found.append(steps + 1)
        return found[0], found[1]

    @property
    def length(self) -> int:
        """How many values are under the window."""
        return self.kernel[0] * self.kernel[1] * self.image[2]

    def scalars(self) -> dict[str, int]:
        """Return what kernels are told, by name."""
        values = (*self.image, *self.kernel, *self.stride, *self.padding[:2], *self.places)
        return dict(zip(_GRID, values, strict=True))


#: what :meth:`Window.scalars` gives
_GRID = ("h", "w", "c", "ky", "kx", "sy", "sx", "left", "top", "oh", "ow")
#: the scalars of both programs; ``first`` and ``count`` are samples
_SCALARS = tuple((name, "int") for name in ("first", "count", *_GRID))
_PARAMETERS = ", ".join(f"const int {name}" for name, _ in _SCALARS)


def _wide_shape(count: int, grid: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of images with all that windows reach over."""
    height = max((grid["oh"] - 1) * grid["sy"] + grid["ky"], grid["top"] + grid["h"])
    width = max((grid["ow"] - 1) * grid["sx"] + grid["kx"], grid["left"] + grid["w"])
    return count, height, width, grid["c"]


def _inside(wide: NDArray[Any], grid: Mapping[str, int]) -> NDArray[Any]:
    """Return the images themselves in an array of that shape."""
    top, left = grid["top"], grid["left"]
    return wide[:, top : top + grid["h"], left : left + grid["w"]]


def _samples(x: NDArray[Any], first: int, count: int, grid: Mapping[str, int]) -> NDArray[Any]:
    return x.reshape(-1, grid["h"], grid["w"], grid["c"])[first : first + count]


def _by_place(rows: NDArray[Any], count: int, grid: Mapping[str, int]) -> NDArray[Any]:
    """Return the rows of some samples as (count, oh, ow, ky, kx, c)."""
    shape = (count, *(grid[name] for name in ("oh", "ow", "ky", "kx", "c")))
    return rows.reshape(-1)[: math.prod(shape)].reshape(shape)


def _unfold(x: NDArray[Any], rows: NDArray[Any], *, first: int, count: int, **grid: int) -> None:
    if not count:
        return
    images = _samples(x, first, count, grid)
    shape = _wide_shape(count, grid)
    if shape != images.shape:
        wide = np.zeros(shape, x.dtype)
        _inside(wide, grid)[...] = images
        images = wide
    target = _by_place(rows, count, grid)
    b, y, z, k = images.strides
    windows = np.lib.stride_tricks.as_strided(
        images, target.shape, (b, y * grid["sy"], z * grid["sx"], y, z, k), writeable=False
    )
    np.copyto(target, windows)


def _fold(rows: NDArray[Any], x: NDArray[Any], *, first: int, count: int, **grid: int) -> None:
    if not count:
        return
    wide = np.zeros(_wide_shape(count, grid), x.dtype)
    windows = _by_place(rows, count, grid)
    _, oh, ow, ky, kx, _ = windows.shape
    for i in range(ky):
        for j in range(kx):
            places = wide[:, i :: grid["sy"], j :: grid["sx"]]
            places[:, :oh, :ow] += windows[..., i, j, :]
    _samples(x, first, count, grid)[...] = _inside(wide, grid)


#: images -> rows, (count * oh * ow, ky * kx * c); over (rows, ky)
UNFOLD = Program(
    "unfold",
    f"""
kernel void unfold(global const real *x, global real *rows, {_PARAMETERS})
{{
    const int row = get_global_id(0), i = get_global_id(1);
    if (row >= count * oh * ow)
        return;
    const int ox = row % ow, oy = row / ow % oh, n = row / (ow * oh);
    const int y = oy * sy + i - top, x0 = ox * sx - left;
    global real *out = rows + ((long)row * ky + i) * kx * c;
    const global real *in = x + (((long)(first + n) * h + y) * w + x0) * c;
    const int from = y < 0 || y >= h ? kx : min(kx, max(0, -x0));
    const int to = max(from, min(kx, w - x0));
    for (int at = 0; at < from * c; ++at)
        out[at] = 0;
    for (int at = from * c; at < to * c; ++at)
        out[at] = in[at];
    for (int at = to * c; at < kx * c; ++at)
        out[at] = 0;
}}
""",
    _unfold,
    ("x", "rows"),
    _SCALARS,  # type: ignore[arg-type] # "int" is one of the literals
)

#: rows -> images, each value the sum of all rows' values for its place; over (count * h, w)
FOLD = Program(
    "fold",
    f"""
kernel void fold(global const real *rows, global real *x, {_PARAMETERS})
{{
    const int line = get_global_id(0), px = get_global_id(1);
    if (line >= count * h || px >= w)
        return;
    const int n = line / h, py = line % h;
    global real *out = x + (((long)(first + n) * h + py) * w + px) * c;
    for (int k = 0; k < c; ++k)
        out[k] = 0;
    for (int i = 0; i < ky; ++i) {{
        const int y = py + top - i;
        if (y < 0 || y % sy || y / sy >= oh)
            continue;
        for (int j = 0; j < kx; ++j) {{
            const int z = px + left - j;
            if (z < 0 || z % sx || z / sx >= ow)
                continue;
            const long row = ((long)n * oh + y / sy) * ow + z / sx;
            const global real *in = rows + ((row * ky + i) * kx + j) * c;
            for (int k = 0; k < c; ++k)
                out[k] += in[k];
        }}
    }}
}}
""",
    _fold,
    ("rows", "x"),
    _SCALARS,  # type: ignore[arg-type]
)
