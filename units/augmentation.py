"""Images changed at random while training: cut, turned, mirrored, scaled, lit; and how they fit.

What is drawn comes from a generator that belongs to one sample in one pass, so a sample is changed
in the same way whoever reads it, and in another way in each pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veloflow.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Augmentation", "Fit", "fitted"]

Fit = Literal["stretch", "pad", "crop"]


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit, background: int) -> Image.Image:
    """Return an image scaled to ``size`` (height, width).

    Args:
        image: any.
        size: (height, width) of the result.
        fit: "stretch" changes the proportions; "pad" keeps them, with ``background`` around;
            "crop" keeps them and cuts off what is too much, the same on both sides.
        background: the value, 0 to 255, of what is added.
    """
    from PIL import ImageOps

    target = (size[1], size[0])
    match fit:
        case "stretch":
            return image.resize(target)
        case "pad":
            color = (background,) * len(image.getbands())
            return ImageOps.pad(image, target, color=color if len(color) > 1 else background)
        case "crop":
            return ImageOps.fit(image, target)


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random.

    Attributes:
        crop: cut a part out that has between this share of the area and all of it, with the
            proportions of the whole; 1 for no cutting.
        mirror: exchange left and right for half of the images.
        rotate: turn by up to so many degrees to either side.
        shift: move by up to this share of the height and width.
        brightness, contrast: change by a factor between 1 - b and 1 + b.
        background: the value, 0 to 255, of what comes in from outside.
    """

    crop: float = 1.0
    mirror: bool = False
    rotate: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    background: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise InputError(f"augmentation: crop is {self.crop}; give a share of the area, 0 to 1")
        for name in ("shift", "brightness", "contrast"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"augmentation: {name} is {getattr(self, name)}; give one in [0, 1)"
                )
        if not 0 <= self.rotate <= 180:
            raise InputError(f"augmentation: rotate is {self.rotate}; give degrees from 0 to 180")

    def apply(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Return a changed copy of the image, of the same size."""
        # every number is drawn, whatever is in use: one option changes no other's numbers
        numbers = random.random(9)
        signs = 2 * numbers - 1
        width, height = image.size
        if self.crop < 1:
            side = (self.crop + (1 - self.crop) * numbers[0]) ** 0.5
            left, top = numbers[1] * (1 - side) * width, numbers[2] * (1 - side) * height
            box = (left, top, left + side * width, top + side * height)
            image = image.resize(image.size, box=box)
        image = self._moved(image, float(signs[3]), signs[4:6] * (width, height))
        if self.mirror and numbers[8] < 0.5:
            from PIL import ImageOps

            image = ImageOps.mirror(image)
        return self._lit(image, float(signs[6]), float(signs[7]))

    def _moved(self, image: Image.Image, turn: float, move: NDArray[np.floating]) -> Image.Image:
        from PIL.Image import Resampling

        if not self.rotate and not self.shift:
            return image
        bands = len(image.getbands())
        return image.rotate(
            turn * self.rotate,
            resample=Resampling.BILINEAR,
            translate=(round(float(move[0]) * self.shift), round(float(move[1]) * self.shift)),
            fillcolor=(self.background,) * bands if bands > 1 else self.background,
        )

    def _lit(self, image: Image.Image, light: float, contrast: float) -> Image.Image:
        from PIL import ImageEnhance

        if self.brightness:
            image = ImageEnhance.Brightness(image).enhance(1 + light * self.brightness)
        if self.contrast:
            image = ImageEnhance.Contrast(image).enhance(1 + contrast * self.contrast)
        return image
