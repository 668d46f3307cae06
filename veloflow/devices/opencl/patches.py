"""Convolutions by products of matrices: what the window sees becomes rows of patches in memory.

For devices with thousands of work-items and memory to spare, which the sums in registers of
:mod:`veloflow.devices.opencl.direct` (an image is one work-item's) would leave idle. The patches of
some images at a time are unfolded, multiplied and, on the way back, folded again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.devices.base import in_turn
from veloflow.devices.expressions import element
from veloflow.devices.numpy_convolution import Parts
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.judge import Twin, samples, trial_of
from veloflow.devices.opencl.recipes import (
    Argument,
    ArrayArgument,
    Call,
    Recipe,
    Trial,
    kernel_source,
)

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch
    from veloflow.devices.expressions import Expression
    from veloflow.devices.window import Window

__all__ = ["Patches"]

#: bytes of patches that are in memory at a time
_TOGETHER = 1 << 28
#: a part of an array begins at a multiple of that many elements
_ALIGNED = 128


@dataclass(frozen=True)
class Patches:
    """The convolutions of one window, without groups, over a minibatch of images."""

    engine: Engine
    device: Device
    window: Window
    batch: int
    kernels: int
    dtype: np.dtype[Any]

    @property
    def places(self) -> int:
        """The places of one image."""
        return math.prod(self.window.places)

    def forward(
        self,
        x: Array,
        weights: Array,
        out: Array,
        bias: Array | None,
        activation: Expression | None,
    ) -> Launch:
        """Bind the sums with bias and activation."""
        steps: list[Launch] = []
        matrix = self.device.view(weights, 0, (self.kernels, self.window.length))
        for first, count in self._chunks():
            rows = self._rows(count)
            steps.append(self._move("unfold", {"x": x, "rows": rows}, first, count))
            sums = self._part(out, first, (count * self.places, self.kernels))
            steps.append(
                self.device.gemm(
                    self._flat(rows), matrix, sums, transpose_b=True, bias=bias,
                    activation=activation,
                )
            )  # fmt: skip
        return in_turn(steps)

    def backward(
        self,
        err: Array,
        x: Array,
        weights: Array,
        y: Array | None,
        slope: Expression | None,
        gradients: Mapping[str, Array],
    ) -> Launch:
        """Bind the wanted gradients: "dw", "db", "dx"."""
        steps: list[Launch] = []
        flat = (self.batch * self.places, self.kernels)
        delta = self.device.view(err, 0, flat)
        if slope is not None and y is not None:
            arrays = {"err": delta, "y": self.device.view(y, 0, flat)}
            delta = arrays["delta"] = self.engine.shared("delta", self.device, flat, self.dtype)
            steps.append(self.device.elementwise({"delta": element("err") * slope}, arrays))
        if "db" in gradients:
            total = {"delta": delta}
            steps.append(
                self.device.reduce("sum", element("delta"), total, gradients["db"], axis=0)
            )
        for first, count in self._chunks():
            part = self._part(delta, first, (count, self.places, self.kernels))
            if "dw" in gradients:
                steps += self._to_weights(part, x, gradients["dw"], first, count)
            if "dx" in gradients:
                rows = self._rows(count)
                matrix = self.device.view(weights, 0, (self.kernels, self.window.length))
                errors = self.device.view(part, 0, (count * self.places, self.kernels))
                steps.append(self.device.gemm(errors, matrix, self._flat(rows)))
                arrays = {"rows": rows, "dx": gradients["dx"]}
                steps.append(self._move("fold_patches", arrays, first, count))
        return in_turn(steps)

    def _to_weights(
        self, delta: Array, x: Array, dw: Array, first: int, count: int
    ) -> Iterator[Launch]:
        """Bind a product for each image, so that all work-items have some, and their sum."""
        rows = self._rows(count)
        yield self._move("unfold", {"x": x, "rows": rows}, first, count)
        shape = (count, self.kernels, self.window.length)
        products = self.engine.shared("products", self.device, shape, self.dtype)
        yield self.device.gemm(delta, rows, products, transpose_a=True, stacked=True)
        total = self.device.view(dw, 0, shape[1:])
        if first:
            total = self.engine.shared("total", self.device, shape[1:], self.dtype)
        yield self.device.reduce("sum", element("p"), {"p": products}, total, axis=0)
        if first:
            arrays = {"dw": self.device.view(dw, 0, shape[1:]), "total": total}
            yield self.device.elementwise({"dw": element("dw") + element("total")}, arrays)

    # -- some images at a time ----------------------------------------------------------------

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Yield the first of some images and their number."""
        length, size = self.window.length, self.places * self.kernels
        image = (self.places + self.kernels) * length * self.dtype.itemsize
        step = _ALIGNED // math.gcd(_ALIGNED, size)
        together = max(step, _TOGETHER // max(1, image) // step * step)
        for first in range(0, self.batch, together):
            yield first, min(together, self.batch - first)

    def _rows(self, count: int) -> Array:
        shape = (count, self.places, self.window.length)
        return self.engine.shared("patches", self.device, shape, self.dtype)

    def _flat(self, rows: Array) -> Array:
        return self.device.view(rows, 0, (rows.shape[0] * rows.shape[1], rows.shape[2]))

    def _part(self, array: Array, first: int, shape: Sequence[int]) -> Array:
        return self.device.view(array, first * self.places * self.kernels, shape)

    # -- kernels ------------------------------------------------------------------------------

    def _move(self, name: str, arrays: Mapping[str, Array], first: int, count: int) -> Launch:
        """Bind "unfold" (from x to rows) or "fold_patches" (from rows to dx)."""
        target = [*arrays][1]

        def variant() -> Variant:
            numbers = self.engine.numbers(self.dtype)
            parts = [self.engine.defines, numbers.defines]
            parts += [kernel_source("ranges"), kernel_source("patches")]

            def trial() -> Trial:
                images = (4, *self.window.image)
                row = (2, self.places, self.window.length)
                shapes = {"x": images, "dx": images, "rows": row}
                given = samples({key: (shapes[key], self.dtype) for key in arrays})
                call = self._call(name, [*arrays], 1, 2)
                return trial_of(_twin(name, self.window, 1, 2), [call], given, [target])

            call = self._call(name, [*arrays], first, count)
            return Variant([(Recipe("patches", "".join(parts)), [name], trial)], [call])

        twin = _twin(name, self.window, first, count)
        return self.engine.operation(name, [variant], twin, arrays, [target])

    def _call(self, name: str, arrays: Sequence[str], first: int, count: int) -> Call:
        moved = self.window.image if name == "fold_patches" else (self.places, self.window.length)
        units = count * math.prod(moved)
        size, local = self.engine.spread(units, 1 << 14)
        arguments: list[Argument] = [ArrayArgument(one) for one in arrays]
        arguments += [np.int64(first), np.int64(count)]
        arguments += [np.int32(number) for number in self.window.scalars().values()]
        return Call(name, tuple(arguments), size, local, is_alone=True)


def _twin(name: str, window: Window, first: int, count: int) -> Twin:
    """Return what moves patches with NumPy."""

    def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
        image_key = "x" if name == "unfold" else "dx"
        images = cast("np.ndarray[Any, Any]", host.host(twins[image_key]))
        rows = cast("np.ndarray[Any, Any]", host.host(twins["rows"]))
        own = images.reshape(-1, *window.image)[first : first + count]
        parts = Parts(window, count, 1, images.dtype)
        wide, _ = parts.scratch()
        all_rows = rows.reshape(-1, *window.places, *window.kernel, window.image[2])

        def launch() -> None:
            for run, some in parts:
                if name == "unfold":
                    parts.inside(wide[:some])[...] = own[run]
                    all_rows[run] = parts.patches(wide[:some])
                else:
                    parts.fold(all_rows[run], wide[:some])
                    own[run] = parts.inside(wide[:some])

        return cast("Launch", launch)

    return twin
