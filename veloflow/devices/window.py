"""A window that moves over images: the geometry of convolutions and pooling.

Images are (batch, height, width, channels). A window of ``kernel`` (height, width) moves over them
by ``stride``, from ``padding`` outside on; each place of it sees the values under it, in the order
height, width, channels, and zeros outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Window"]

#: what :meth:`Window.scalars` gives
_GRID = ("h", "w", "c", "ky", "kx", "sy", "sx", "left", "top", "oh", "ow")


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
            size = window.kernel
            raise ShapeError(
                f"{what}: its window of {size[0]} x {size[1]} is larger than its images of "
                f"{image}, (height, width, channels); make it smaller, or give padding"
            )
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
    def wide(self) -> tuple[int, int]:
        """The height and width of an image with all that windows reach over."""
        (height, width, _), (left, top, _, _) = self.image, self.padding
        places = self.places
        reach = [
            (place - 1) * stride + kernel
            for place, stride, kernel in zip(places, self.stride, self.kernel, strict=True)
        ]
        return max(reach[0], top + height), max(reach[1], left + width)

    @property
    def length(self) -> int:
        """How many values are under the window."""
        return self.kernel[0] * self.kernel[1] * self.image[2]

    def scalars(self) -> dict[str, int]:
        """Return what kernels are told, by name."""
        values = (*self.image, *self.kernel, *self.stride, *self.padding[:2], *self.places)
        return dict(zip(_GRID, values, strict=True))
