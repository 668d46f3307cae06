"""Cutter: the inside of images, without a border, and its gradient.

Shapes: x is (batch, height, width, channels), or (batch, height, width) with one channel; y is
(batch, height - top - bottom, width - left - right[, channels]).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, final

from veloflow.devices.expressions import Const
from veloflow.errors import ShapeError
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer
from veloflow.units.patches import padding_of
from veloflow.units.strips import Strips, bind_strips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from veloflow.core import Workflow
    from veloflow.devices import Array

__all__ = ["Cutter", "GDCutter", "cut"]


@final
class Cutter(Forward):
    """Cuts a border off.

    Args:
        border: how wide it is: one number, (y, x), or (left, top, right, bottom).
    """

    def __init__(
        self, workflow: Workflow, border: int | Sequence[int], *, name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        self.border = padding_of(border, f"unit {self.path!r}: border")
        self._launch: Callable[[], None]

    def initialize(self) -> None:
        """Declare the output.

        Raises:
            ShapeError: the input is no batch of images, or nothing of them is left.
        """
        shape = self.input.shape
        left, top, right, bottom = self.border
        if len(shape) not in (3, 4) or min(shape[1] - top - bottom, shape[2] - left - right) < 1:
            raise ShapeError(
                f"unit {self.path!r}: nothing is left of an input of shape {shape} without a "
                f"border of (left, top, right, bottom) = {self.border}"
            )
        size = (shape[1] - top - bottom, shape[2] - left - right)
        self.output = self.declare(len(self.input), *size, *shape[3:])

    def bind_copy(self, whole: Array, inside: Array, *, is_back: bool) -> Callable[[], None]:
        """Bind the copy of the inside out of the whole, or back into it."""
        batch, height, width, channels = (*whole.shape, 1)[:4]
        left, top, _, _ = self.border
        line, lines, count = width * channels, inside.shape[1], inside.shape[2] * channels
        out_of = Strips(top * line + left * channels, line, height * line)
        into = Strips(0, count, lines * count)
        shape = (batch, lines, count)
        if is_back:
            return bind_strips(self.device, inside, whole, shape, into, out_of)
        return bind_strips(self.device, whole, inside, shape, out_of, into)

    def prepare(self) -> None:
        """Bind the copy."""
        self._launch = self.bind_copy(self.input, self.output, is_back=False)

    def run(self) -> None:
        """Compute ``output``."""
        self._launch()


@final
class GDCutter(Backward):
    """The gradient of :class:`Cutter`: the error inside, 0 in the border."""

    forward: Cutter
    forward_kind: ClassVar[type[Forward]] = Cutter

    def prepare(self) -> None:
        """Bind the way back, when anybody reads ``err_input``."""
        self._launches: list[Callable[[], None]] = []
        if self.needs_err_input:
            clear = self.device.elementwise({"x": Const(0.0)}, {"x": self.err_input})
            back = self.forward.bind_copy(self.err_input, self.err_output, is_back=True)
            self._launches = [clear, back]

    def run(self) -> None:
        """Compute ``err_input``."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


def cut(border: int | Sequence[int], *, name: str | None = None) -> Layer:
    """Return a layer that cuts a border off images, given as padding of convolutions is."""
    return Layer(f"cut({border})", partial(Cutter, border=border, name=name), GDCutter)
