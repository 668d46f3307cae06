"""Parts of an array along its last axis, such as some channels of images, and the way back.

Shapes: x is (batch, ..., n); a slice of it is (batch, ..., stop - start).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self, final

from veloflow.core import Inputs
from veloflow.devices import Array
from veloflow.devices.expressions import Const
from veloflow.errors import ShapeError
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer
from veloflow.units.strips import bind_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from veloflow.core import Unit, Workflow

__all__ = ["GDSlice", "GDSplit", "Slice", "Split", "channels"]


@final
class Slice(Forward):
    """A part of the last axis: y = x[..., start : stop].

    Args:
        start, stop: as in Python, from 0 on; ``stop`` may be None, for the end.
    """

    def __init__(
        self, workflow: Workflow, start: int, stop: int | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        self.start = start
        self.stop = stop
        self._launch: Callable[[], None]

    def initialize(self) -> None:
        """Declare the output.

        Raises:
            ShapeError: the input has no such part.
        """
        shape = self.input.shape
        stop = shape[-1] if self.stop is None else self.stop
        if len(shape) < 2 or not 0 <= self.start < stop <= shape[-1]:
            raise ShapeError(
                f"unit {self.path!r}: an input of shape {shape} has no part from {self.start} to "
                f"{stop} in its last axis"
            )
        self.output = self.declare(*shape[:-1], stop - self.start)

    def prepare(self) -> None:
        """Bind the copy."""
        self._launch = bind_columns(
            self.device, self.input, self.output, self.output.shape[-1], first=self.start
        )

    def run(self) -> None:
        """Compute ``output``."""
        self._launch()


@final
class GDSlice(Backward):
    """The gradient of :class:`Slice`: the error where the slice was, 0 elsewhere."""

    forward: Slice
    forward_kind: ClassVar[type[Forward]] = Slice

    def prepare(self) -> None:
        """Bind the way back, when anybody reads ``err_input``."""
        self._launches: list[Callable[[], None]] = []
        if self.needs_err_input:
            clear = self.device.elementwise({"x": Const(0.0)}, {"x": self.err_input})
            width, start = self.err_output.shape[-1], self.forward.start
            copy = bind_columns(self.device, self.err_output, self.err_input, width, start=start)
            self._launches = [clear, copy]

    def run(self) -> None:
        """Compute ``err_input``."""
        for launch in self._launches:
            launch()


@final
class Split(Forward):
    """All parts of the last axis, one after another.

    Args:
        sizes: of the parts; together they are the whole axis.

    Attributes:
        output0, output1, …: the parts.
    """

    def __init__(
        self, workflow: Workflow, sizes: Sequence[int], *, name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        self.sizes = tuple(sizes)
        if not self.sizes or any(size < 1 for size in self.sizes):
            raise ShapeError(f"unit {self.path!r}: parts of sizes {self.sizes}; give some, from 1")
        self.outputs: list[Array] = []
        self._launches: list[Callable[[], None]] = []

    def initialize(self) -> None:
        """Declare the parts.

        Raises:
            ShapeError: they are not the whole.
        """
        shape = self.input.shape
        if len(shape) < 2 or sum(self.sizes) != shape[-1]:
            raise ShapeError(
                f"unit {self.path!r}: parts of sizes {self.sizes} do not make up the last axis of "
                f"an input of shape {shape}"
            )
        self.outputs = [self.declare(*shape[:-1], size) for size in self.sizes]
        for number, array in enumerate(self.outputs):
            setattr(self, f"output{number}", array)

    def starts(self) -> list[int]:
        """Return where each part begins."""
        return [sum(self.sizes[:number]) for number in range(len(self.sizes))]

    def prepare(self) -> None:
        """Bind the copies."""
        self._launches = [
            bind_columns(self.device, self.input, array, array.shape[-1], first=first)
            for array, first in zip(self.outputs, self.starts(), strict=True)
        ]

    def run(self) -> None:
        """Compute the parts."""
        for launch in self._launches:
            launch()


@final
class GDSplit(Backward):
    """The gradient of :class:`Split`: the errors of all parts side by side.

    Its inputs are ``error0``, ``error1`` and so on, one for each part.
    """

    forward: Split
    forward_kind: ClassVar[type[Forward]] = Split

    err_output = None  # type: ignore[assignment] # errors are read in its place
    error = Inputs[Array]("batch ...")

    def link_errors(self, *ends: tuple[Unit, str]) -> Self:
        """Link these attributes of units, in the order of the parts."""
        for number, (unit, attribute) in enumerate(ends):
            self.link_data(unit, **{f"error{number}": attribute})
        return self

    def initialize(self) -> None:
        """Declare ``err_input``.

        Raises:
            ShapeError: the errors are not those of the parts.
        """
        shapes = [array.shape for array in self.error]
        parts = [array.shape for array in self.forward.outputs]
        if shapes != parts:
            raise ShapeError(
                f"unit {self.path!r}: errors have shapes {shapes}, but the parts of "
                f"{self.forward.path!r} have {parts}"
            )
        self._launches: list[Callable[[], None]] = []
        if self.needs_err_input:
            self.err_input = self.declare(*self.forward.input.shape)

    def prepare(self) -> None:
        """Bind the copies, when anybody reads ``err_input``."""
        if self.needs_err_input:
            self._launches = [
                bind_columns(self.device, array, self.err_input, array.shape[-1], start=start)
                for array, start in zip(self.error, self.forward.starts(), strict=True)
            ]

    def run(self) -> None:
        """Compute ``err_input``."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


def channels(start: int, stop: int | None = None, *, name: str | None = None) -> Layer:
    """Return a layer that takes a part of the last axis, from ``start`` to before ``stop``."""
    make = partial(Slice, start=start, stop=stop, name=name)
    return Layer(f"channels({start}, {stop})", make, GDSlice)
