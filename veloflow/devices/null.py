"""The null device: computes nothing and counts launches, for tests of what runs when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from veloflow.devices.base import Array, Device, DeviceInfo, Launch, Program
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from veloflow.devices.expressions import Expression
    from veloflow.devices.recurrence import Inputs, Recurrence
    from veloflow.devices.window import Window

__all__ = ["NullDevice"]


class _NoMemory:
    """Stands where another device has memory."""

    def __repr__(self) -> str:
        return "no memory"


class NullDevice(Device):
    """Keeps shapes only, reads zeros, and counts in ``launches`` what was launched, by operation.

    Attributes: ``launches`` (a Counter of "gemm", "joint_products", "convolution",
    "convolution_gradient", "elementwise", "reduce", "softmax", "gather", "uniform", "program" and
    "recurrence").
    """

    name = "null"

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()

    def allocate(self, array: Array) -> None:
        array.memory = array.memory or _NoMemory()

    def view(self, array: Array, start: int, shape: Sequence[int]) -> Array:
        part = Array(self, shape, array.dtype)
        if start < 0 or start + part.size > array.size:
            raise ShapeError(
                f"a view of {part.size} elements from {start} on does not fit into {array!r}"
            )
        part.memory = array.memory
        return part

    def read(self, array: Array) -> NDArray[Any]:
        return np.broadcast_to(np.zeros((), array.dtype), array.shape)

    def write(self, array: Array, values: ArrayLike) -> None:
        """Only look whether the values fit."""
        try:
            np.broadcast_to(np.asarray(values), array.shape)
        except ValueError as error:
            raise ShapeError(f"cannot write values of another shape to {array!r}") from error

    def _launch(self, operation: str) -> Launch:
        def launch(**scalars: float) -> None:
            self.launches[operation] += 1

        return launch

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
        bias: Array | None = None,
        activation: Expression | None = None,
        stacked: bool = False,
    ) -> Launch:
        return self._launch("gemm")

    def joint_products(
        self, a: Array, factors: Sequence[Array | None], outs: Sequence[Array]
    ) -> Launch:
        return self._launch("joint_products")

    def convolution(
        self,
        x: Array,
        weights: Array,
        out: Array,
        window: Window,
        *,
        groups: int = 1,
        bias: Array | None = None,
        activation: Expression | None = None,
    ) -> Launch:
        return self._launch("convolution")

    def convolution_gradient(
        self,
        err: Array,
        x: Array,
        weights: Array,
        window: Window,
        *,
        groups: int = 1,
        y: Array | None = None,
        slope: Expression | None = None,
        weights_gradient: Array | None = None,
        bias_gradient: Array | None = None,
        input_gradient: Array | None = None,
    ) -> Launch:
        return self._launch("convolution_gradient")

    def elementwise(
        self, formulas: Mapping[str, Expression], arrays: Mapping[str, Array]
    ) -> Launch:
        return self._launch("elementwise")

    def reduce(
        self,
        operation: Literal["sum", "max"],
        formula: Expression,
        arrays: Mapping[str, Array],
        out: Array,
        *,
        axis: Literal[0, 1] | None,
    ) -> Launch:
        return self._launch("reduce")

    def softmax(self, x: Array, out: Array, winners: Array | None = None) -> Launch:
        return self._launch("softmax")

    def gather(self, source: Array, indices: Array, out: Array, *, fill: float = 0.0) -> Launch:
        return self._launch("gather")

    def uniform(self, out: Array, key: tuple[int, int]) -> Launch:
        return self._launch("uniform")

    def program(
        self, program: Program, arrays: Mapping[str, Array], space: Sequence[int]
    ) -> Launch:
        return self._launch("program")

    def recurrence(
        self,
        recurrence: Recurrence,
        arrays: Mapping[str, Array],
        weights: Array,
        inputs: Inputs | None = None,
    ) -> Launch:
        return self._launch("recurrence")

    def synchronize(self) -> None:
        """Return at once: nothing is ever pending."""

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            name=self.name,
            kind="null",
            hardware="none",
            driver="computes nothing",
            memory=0,
            compute_units=0,
        )
