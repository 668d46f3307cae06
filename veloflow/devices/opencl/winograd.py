"""Convolutions by Cook and Toom on OpenCL: for which ones they pay, and how they are launched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.opencl.cook_toom import CookToom, cook_toom, function, transposed
from veloflow.devices.opencl.direct import PARTS, ROWS, Plan, Problem, errors_of, rounded
from veloflow.devices.opencl.recipes import Argument, ArrayArgument, Call

if TYPE_CHECKING:
    from veloflow.devices.opencl.engine import Engine
    from veloflow.devices.opencl.formulas import Numbers

__all__ = ["Tiling", "transforms"]

#: sums of a tile by taps, in one dimension. Five taps and four sums need 8 points, whose float32
#: error is about ten times that of the plain sum; more points are too many for float32
_OUTPUTS = {3: 4, 5: 4}
#: channels and kernels from which on the products outweigh the transforms
_LEAST = 8
#: how much a multiplication here costs beside one of the direct kernels, transforms included
_PRICE = 1.7
#: bytes of transformed images and sums at a time
_CACHED = 1 << 20
#: bytes of the sums of all parts in the gradient by weights
_PARTIAL = 1 << 26


@dataclass(frozen=True)
class Tiling:
    """How a convolution is cut into tiles."""

    problem: Problem
    lanes: int

    @classmethod
    def of(cls, problem: Problem, kernel_numbers: Numbers) -> Tiling | None:
        """Return the tiling, None where tiles are not right or do not pay.

        The answer depends on shapes alone, so that all slaves of a run give the same.
        """
        window, taps = problem.window, problem.window.kernel[0]
        if (
            problem.dtype != np.float32
            or problem.groups != 1
            or window.kernel != (taps, taps)
            or window.stride != (1, 1)
            or taps not in _OUTPUTS
            or min(window.image[2], problem.kernels) < _LEAST
        ):
            return None
        tiling = cls(problem, kernel_numbers.lanes)
        direct = problem.places * taps * taps * window.image[2] * problem.kernels
        ours = tiling.tiles * tiling.points * tiling.channels * tiling.columns
        return tiling if _PRICE * ours < direct and tiling.parts >= 2 else None

    @property
    def panel(self) -> int:
        """The numbers in a row of a panel."""
        return 2 * self.lanes

    @property
    def numbers(self) -> CookToom:
        """The matrices."""
        taps = self.problem.window.kernel[0]
        return cook_toom(_OUTPUTS[taps], taps)

    @property
    def points(self) -> int:
        """How many products a tile takes."""
        return self.numbers.points**2

    @property
    def across(self) -> tuple[int, int]:
        """How many tiles there are down and across an image."""
        outputs = self.numbers.outputs
        height, width = self.problem.window.places
        return -(-height // outputs), -(-width // outputs)

    @property
    def tiles(self) -> int:
        """How many tiles an image has."""
        return math.prod(self.across)

    @property
    def channels(self) -> int:
        """The channels, rounded up to whole panels."""
        return rounded(self.problem.window.image[2], self.panel)

    @property
    def columns(self) -> int:
        """The kernels, rounded up to whole panels."""
        return rounded(self.problem.kernels, self.panel)

    @property
    def parts(self) -> int:
        """Into how many parts a minibatch is cut for the gradient by weights."""
        one = self.points * self.channels * self.columns * 4
        return min(PARTS, self.problem.batch, max(1, _PARTIAL // one))

    def together(self, at_most: int) -> int:
        """Return how many images are transformed at a time: few, and in whole blocks."""
        one = 4 * self.points * self.tiles * (self.channels + self.columns)
        most = max(1, min(at_most, _CACHED // one))
        waste = {n: rounded(n * self.tiles, ROWS) / (n * self.tiles) for n in range(1, most + 1)}
        return min(waste, key=lambda n: (round(waste[n], 2), -n))

    def spare(self, together: int) -> int:
        """Return the numbers of memory that a work-item needs."""
        numbers, (down, across) = self.numbers, self.across
        edge = [n * numbers.outputs + numbers.taps - 1 for n in (down, across)]
        rows = rounded(together * self.tiles, ROWS) * self.points
        return rounded(math.prod(edge) * self.channels + rows * (self.channels + self.columns), 64)

    def sizes(self, together: int) -> list[Argument]:
        """Return what the kernels call SIZES."""
        problem = self.problem
        left, top = problem.window.padding[:2]
        values = (
            problem.batch, *problem.window.image, left, top, *problem.window.places,
            problem.kernels, *self.across, self.channels, self.columns, together,
        )  # fmt: skip
        return [np.int32(n) for n in values]

    def _weights(self, engine: Engine, *, backwards: bool) -> tuple[Call, dict[str, int]]:
        matrices = self.points * self.channels * self.columns
        numbers = (
            self.problem.window.image[2], self.problem.kernels, self.channels, self.columns,
            backwards,
        )  # fmt: skip
        call = Call(
            "transform_weights",
            (ArrayArgument("weights"), ArrayArgument("panels"), *(np.int32(n) for n in numbers)),
            *engine.spread(self.columns * (self.channels // self.lanes), 16),
        )
        return call, {"panels": 4 * (matrices + 64)}

    def forward(self, engine: Engine) -> Plan:
        """Return the launches of the forward pass."""
        problem = self.problem
        transform, scratch = self._weights(engine, backwards=False)
        # every work-item should have something to do
        items = 2 * engine.hardware.compute_units
        together = self.together(max(1, -(-problem.batch // items)))
        spare = self.spare(together)
        size, local = engine.spread(-(-problem.batch // together), 1)
        scratch["spare"] = 4 * math.prod(size) * spare
        names = ("x", "panels", "bias" if problem.has_bias else "weights", "out", "spare")
        arguments = (
            *(ArrayArgument(name) for name in names), np.int32(problem.has_bias), np.int64(spare),
            *self.sizes(together),
        )  # fmt: skip
        return [transform, Call("convolve_tiles", arguments, size, local, is_alone=True)], scratch

    def backward(self, engine: Engine, wanted: frozenset[str]) -> Plan:
        """Return the launches of the gradients."""
        problem, parts = self.problem, self.parts
        transform, scratch = self._weights(engine, backwards=True)
        has_dx, has_dw = "dx" in wanted, "dw" in wanted
        together = self.together(-(-problem.batch // parts))
        spare = self.spare(together)
        size, local = engine.spread(parts, 1)
        matrices = self.points * self.channels * self.columns
        scratch |= {
            "spare": 4 * math.prod(size) * spare,
            "partial": 4 * parts * matrices,
            "totals": 4 * (problem.batch * problem.kernels + self.panel),
        }
        names = ("x", "panels", "dx" if has_dx else "partial", "partial", "totals", "spare")
        flags = (np.int64(spare), np.int32(parts), np.int32(has_dx), np.int32(has_dw))
        arrays = (*errors_of(problem), *(ArrayArgument(name) for name in names))
        calls = [transform] if has_dx else []
        arguments = (*arrays, *flags, *self.sizes(together))
        calls.append(Call("tiles_back", arguments, size, local, is_alone=True))
        if not has_dw:
            return calls, scratch
        numbers = (
            problem.batch, parts, problem.window.image[2], problem.kernels, self.channels,
            self.columns, "db" in wanted,
        )  # fmt: skip
        bias = ArrayArgument("db" if "db" in wanted else "totals")
        ends = (ArrayArgument("partial"), ArrayArgument("totals"), ArrayArgument("dw"), bias)
        calls.append(
            Call(
                "finish_tiles",
                (*ends, *(np.int32(n) for n in numbers)),
                *engine.spread(problem.kernels * (self.channels // self.lanes), 16),
            )
        )
        return calls, scratch


def transforms(numbers: CookToom) -> str:
    """Return the OpenCL functions of the transforms and of their adjoints."""
    matrices = {
        "times_g": numbers.g, "times_gt": transposed(numbers.g), "times_b": numbers.b,
        "times_bt": transposed(numbers.b), "times_a": numbers.a, "times_at": transposed(numbers.a),
    }  # fmt: skip
    text = f"#define OUT {numbers.outputs}\n#define TAPS {numbers.taps}\n"
    return text + "".join(function(name, matrix) for name, matrix in matrices.items())
