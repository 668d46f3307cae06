"""Pooling that picks a value: the largest magnitude of each window, or one by chance.

Stochastic pooling (Zeiler, Fergus, 2013) picks a value x_i of a window with probability p_i = w_i /
sum of w, where w_i = max(x_i, 0), or |x_i| ("abs"); in a window without any w, all are alike. When
it does not pick, in validation and use, it gives what it would pick on average: the sum of p_i x_i.
(Veles picks there too: ``picks_always``.)

Shapes are those of :mod:`veloflow.units.pooling`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array, Program
from veloflow.devices.random import key_of
from veloflow.units.layer import Layer
from veloflow.units.loader import TRAIN
from veloflow.units.pooling import (
    FORWARD,
    MAX_BACK,
    PARAMETERS,
    SCALARS,
    GDPooling,
    Pooling,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch

__all__ = [
    "GDPicking",
    "MaxAbsPooling",
    "Picking",
    "StochasticAbsPooling",
    "StochasticPooling",
    "max_abs_pool",
    "stochastic_abs_pool",
    "stochastic_pool",
]


def _max_abs(
    x: NDArray[Any], y: NDArray[Any], winners: NDArray[np.int32], *, n: int, c: int, **grid: int
) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    best = np.full(y.shape, -1, y.dtype)
    for number, (rows, columns), (high, wide) in windows(**grid):
        part = images[:, rows, columns]
        size = np.abs(part)
        is_larger = ~(size <= best[:, high, wide])  # NaN wins, and is seen
        np.copyto(best[:, high, wide], size, where=is_larger)
        np.copyto(y[:, high, wide], part, where=is_larger)
        np.copyto(winners[:, high, wide], np.int32(number), where=is_larger)


def _weights(part: NDArray[Any], is_abs: int) -> NDArray[Any]:
    weights: NDArray[Any] = np.abs(part) if is_abs else np.maximum(part, 0)
    return weights


def _pick(
    x: NDArray[Any],
    u: NDArray[Any],
    y: NDArray[Any],
    winners: NDArray[np.int32],
    *,
    n: int,
    c: int,
    absolute: int,
    **grid: int,
) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    total, count = np.zeros_like(y), np.zeros(y.shape, np.int64)
    for _, (rows, columns), (high, wide) in windows(**grid):
        total[:, high, wide] += _weights(images[:, rows, columns], absolute)
        count[:, high, wide] += 1
    limit, so_far, place = u * total, np.zeros_like(y), np.zeros(y.shape, np.int64)
    alike = np.minimum((u * count.astype(y.dtype)).astype(np.int64), count - 1)
    winners[...] = -1
    y[...] = total  # what stays where the sum is NaN
    for number, (rows, columns), (high, wide) in windows(**grid):
        part = images[:, rows, columns]
        here = (slice(None), high, wide)
        so_far[here] += _weights(part, absolute)
        is_picked = np.where(
            total[here] == 0, place[here] == alike[here], so_far[here] > limit[here]
        )
        is_picked &= winners[here] < 0
        np.copyto(y[here], part, where=is_picked)
        np.copyto(winners[here], np.int32(number), where=is_picked)
        place[here] += 1


def _expect(
    x: NDArray[Any], y: NDArray[Any], *, n: int, c: int, absolute: int, **grid: int
) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    total, plain, count = np.zeros_like(y), np.zeros_like(y), np.zeros_like(y)
    y[...] = 0
    for _, (rows, columns), (high, wide) in windows(**grid):
        part = images[:, rows, columns]
        weight = _weights(part, absolute)
        total[:, high, wide] += weight
        y[:, high, wide] += weight * part
        plain[:, high, wide] += part
        count[:, high, wide] += 1
    y[...] = np.where(total == 0, plain / count, y / np.where(total == 0, 1, total))


_MAX_ABS = Program(
    "max_abs_pool",
    f"""
kernel void max_abs_pool(global const real *x, global real *y, global int *winners, {PARAMETERS})
{{{FORWARD}
    for (int k = 0; k < c; ++k) {{
        real best = -1, value = 0;
        int winner = 0;
        for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j) {{
                const real here = in[((long)i * w + j) * c + k];
                const bool is_larger = !(fabs(here) <= best);
                best = is_larger ? fabs(here) : best;
                value = is_larger ? here : value;
                winner = is_larger ? i * kx + j : winner;
            }}
        y[at + k] = value;
        winners[at + k] = winner;
    }}
}}
""",
    _max_abs,
    ("x", "y", "winners"),
    SCALARS,  # type: ignore[arg-type] # "int" is one of the literals
)

_WEIGHT = "(absolute ? fabs(here) : max(here, (real)0))"

_PICK = Program(
    "stochastic_pool",
    f"""
kernel void stochastic_pool(global const real *x, global const real *u, global real *y,
                            global int *winners, {PARAMETERS}, const int absolute)
{{{FORWARD}
    for (int k = 0; k < c; ++k) {{
        real total = 0;
        for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j) {{
                const real here = in[((long)i * w + j) * c + k];
                total += {_WEIGHT};
            }}
        const real limit = u[at + k] * total;
        const int alike = min((int)(u[at + k] * (real)(high * wide)), high * wide - 1);
        real so_far = 0, value = total;
        int winner = -1;
        for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j) {{
                const real here = in[((long)i * w + j) * c + k];
                so_far += {_WEIGHT};
                const bool is_here = total == 0 ? i * wide + j == alike : so_far > limit;
                if (winner < 0 && is_here) {{
                    winner = i * kx + j;
                    value = here;
                }}
            }}
        y[at + k] = value;
        winners[at + k] = winner;
    }}
}}
""",
    _pick,
    ("x", "u", "y", "winners"),
    (*SCALARS, ("absolute", "int")),  # type: ignore[arg-type]
)

_EXPECT = Program(
    "expected_pool",
    f"""
kernel void expected_pool(global const real *x, global real *y, {PARAMETERS}, const int absolute)
{{{FORWARD}
    for (int k = 0; k < c; ++k) {{
        real total = 0, plain = 0, sum = 0;
        for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j) {{
                const real here = in[((long)i * w + j) * c + k];
                const real weight = {_WEIGHT};
                total += weight;
                sum += weight * here;
                plain += here;
            }}
        y[at + k] = total == 0 ? plain / (high * wide) : sum / total;
    }}
}}
""",
    _expect,
    ("x", "y"),
    (*SCALARS, ("absolute", "int")),  # type: ignore[arg-type]
)


class Picking(Pooling):
    """Pooling that picks one value of each window. An outline.

    Attributes:
        winners: which place in its window each value came from, int32, shaped as the output.
    """

    winners: Array

    def initialize(self) -> None:
        """Declare output and winners."""
        super().initialize()
        self.winners = self.declare(*self.output.shape, dtype="int32")


@final
class MaxAbsPooling(Picking):
    """The value of each window that is farthest from 0, with its sign."""

    def prepare(self) -> None:
        """Bind the pooling."""
        self._bind(_MAX_ABS, x=self.input, y=self.output, winners=self.winners)


class Stochastic(Picking):
    """Stochastic pooling. An outline.

    The random numbers are a function of the seed, the unit's path, the epoch and the sample's place
    in the epoch's order: the same on every device, whoever computes a sample, and when resumed.

    Args:
        size, stride: of :class:`~veloflow.units.Pooling`.
        picks_always: pick in validation, testing and use too, as Veles does.

    Attributes:
        noise: the random numbers of the last minibatch for which it picked.
    """

    loader_inputs: ClassVar[tuple[str, ...]] = (
        "minibatch_class", "minibatch_position", "epoch_number",
    )  # fmt: skip
    #: whether values count by their magnitudes
    is_absolute: ClassVar[bool]

    minibatch_class = Input[int]()
    minibatch_position = Input[int]()
    epoch_number = Input[int]()

    def __init__(
        self,
        workflow: Workflow,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        picks_always: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, size, stride=stride, name=name)
        self.picks_always = picks_always
        self.noise: Array
        self._draw: Launch
        self._expect: Launch

    def initialize(self) -> None:
        """Declare output, winners and noise."""
        super().initialize()
        self.noise = self.declare(*self.output.shape)

    def prepare(self) -> None:
        """Bind drawing, picking and expecting."""
        key = key_of(self.settings.seed, self.path, "pooling")
        self._draw = self.device.uniform(self.noise, key)
        self._bind(_EXPECT, x=self.input, y=self.output)
        self._expect = self._launch
        self._bind(_PICK, x=self.input, u=self.noise, y=self.output, winners=self.winners)

    @property
    def is_picking(self) -> bool:
        """Whether it picks for the present minibatch."""
        is_training = self.minibatch_class == TRAIN and not self.settings.testing
        return is_training or self.picks_always

    def run(self) -> None:
        """Compute ``output``."""
        absolute = int(self.is_absolute)
        if self.is_picking:
            self._draw(stream=self.epoch_number, row=self.minibatch_position)
            self._launch(**self._given, absolute=absolute)
        else:
            self._expect(**self._given, absolute=absolute)


@final
class StochasticPooling(Stochastic):
    """Stochastic pooling: values above 0 are picked in proportion to themselves."""

    is_absolute = False


@final
class StochasticAbsPooling(Stochastic):
    """Stochastic pooling: values are picked in proportion to their magnitudes."""

    is_absolute = True


@final
class GDPicking(GDPooling):
    """The gradient of any :class:`Picking`: each error goes to the value that was picked."""

    forward: Picking
    forward_kind = Picking

    def _way_back(self) -> tuple[Program, dict[str, Array]]:
        winners = self.forward.winners
        return MAX_BACK, {"err": self.err_output, "winners": winners, "x": self.err_input}


# -- the short form --------------------------------------------------------------------------------


def max_abs_pool(
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    *,
    name: str | None = None,
) -> Layer:
    """Return a layer that takes the value of each window that is farthest from 0."""
    make = partial(MaxAbsPooling, size=size, stride=stride, name=name)
    return Layer(f"max_abs_pool({size})", make, GDPicking)


def stochastic_pool(
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    *,
    picks_always: bool = False,
    name: str | None = None,
) -> Layer:
    """Return a layer that picks a value of each window by chance, in proportion to max(x, 0)."""
    make = partial(
        StochasticPooling, size=size, stride=stride, picks_always=picks_always, name=name
    )
    return Layer(f"stochastic_pool({size})", make, GDPicking)


def stochastic_abs_pool(
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    *,
    picks_always: bool = False,
    name: str | None = None,
) -> Layer:
    """Return a layer that picks a value of each window by chance, in proportion to |x|."""
    make = partial(
        StochasticAbsPooling, size=size, stride=stride, picks_always=picks_always, name=name
    )
    return Layer(f"stochastic_abs_pool({size})", make, GDPicking)
