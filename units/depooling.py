"""Depooling: values go back to the places that a pooling unit had picked them from.

Shapes: a pooling unit made (batch, height', width', channels) of images of (batch, height, width,
channels), and knows the winner of each window. Depooling puts its input, of the first shape, back
to these places of the second, and 0 elsewhere. Where overlapping windows share a winner it gets the
mean of their values: the value itself, where nothing has changed it since. Zeiler, Taylor, Fergus,
"Adaptive deconvolutional networks" (2011), call it unpooling.

A pooling layer and its depooling in a row keep one value of each window in its place, which Veles
called pool-depool.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array, Program
from veloflow.devices.expressions import element, maximum
from veloflow.errors import GraphError
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer, unit_named
from veloflow.units.picking import Picking, Stochastic
from veloflow.units.pooling import (
    FORWARD,
    MAX_BACK,
    PARAMETERS,
    SCALARS,
    MaxPooling,
    Pooling,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from veloflow.core import Workflow

__all__ = ["Depooling", "GDDepooling", "depool"]


def _take(
    x: NDArray[Any], winners: NDArray[np.int32], y: NDArray[Any], *, n: int, c: int, **grid: int
) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    y[...] = 0
    for number, (rows, columns), (high, wide) in windows(**grid):
        is_own = winners[:, high, wide] == number
        np.copyto(y[:, high, wide], images[:, rows, columns], where=is_own)


_TAKE = Program(
    "take_winners",
    f"""
kernel void take_winners(global const real *x, global const int *winners, global real *y,
                         {PARAMETERS})
{{{FORWARD}
    for (int k = 0; k < c; ++k) {{
        const int winner = winners[at + k];
        const bool is_inside = winner >= 0 && winner / kx < high && winner % kx < wide;
        y[at + k] = is_inside ? in[((long)(winner / kx) * w + winner % kx) * c + k] : 0;
    }}
}}
""",
    _take,
    ("x", "winners", "y"),
    SCALARS,  # type: ignore[arg-type] # "int" is one of the literals
)


@final
class Depooling(Forward):
    """Puts values back to where a pooling unit took its own from.

    Args:
        pooling: a unit that picks: max, max-abs or stochastic pooling. It must have picked: a
            stochastic one that only expects, in use, has no winners (give it ``picks_always``).
    """

    winners = Input[Array]("batch *sample", dtype="int32")
    input = Input[Array]("batch *sample")

    def __init__(self, workflow: Workflow, pooling: Pooling, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        if not isinstance(pooling, MaxPooling | Picking):
            raise GraphError(
                f"unit {self.path!r}: {pooling.path!r} is {type(pooling).__name__}, which picks no "
                "values; depooling needs max, max-abs or stochastic pooling"
            )
        if isinstance(pooling, Stochastic) and not pooling.picks_always:
            raise GraphError(
                f"unit {self.path!r}: {pooling.path!r} picks only while training; make it with "
                "picks_always=True"
            )
        self.pooling = pooling
        self.link_data(pooling, "winners")
        #: how many windows each place has won, at least 1; None where no windows overlap
        self.wins: Array | None = None
        self._launches: list[Callable[[], None]] = []

    def initialize(self) -> None:
        """Declare the output."""
        self.output = self.declare(*self.pooling.input.shape)
        window = self.pooling.window
        if any(step < size for step, size in zip(window.stride, window.kernel, strict=True)):
            self.wins = self.declare(*self.output.shape)
            self._ones = self.declare(*self.winners.shape)

    def prepare(self) -> None:
        """Bind the way back of the pooling unit."""
        self._launches = [self._bind_back(self.input, self.output)]
        if self.wins is not None:
            self._ones.write(1.0)
            y, wins = element("y"), maximum(element("wins"), 1.0)
            arrays = {"y": self.output, "wins": self.wins}
            self._launches += [
                self._bind_back(self._ones, self.wins),
                self.device.elementwise({"y": y / wins, "wins": wins}, arrays),
            ]

    def _bind_back(self, source: Array, target: Array) -> Callable[[], None]:
        """Bind what adds each value of ``source`` to its place in ``target``."""
        height, width, _ = self.pooling.window.image
        arrays = {"err": source, "winners": self.winners, "x": target}
        launch = self.device.program(MAX_BACK, arrays, (len(source) * height, width))
        return partial(launch, **self.pooling.scalars())

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class GDDepooling(Backward):
    """The gradient of :class:`Depooling`: the error at the place where each value went.

    It is divided by the number of windows that share this place.
    """

    forward: Depooling
    forward_kind: ClassVar[type[Forward]] = Depooling

    def initialize(self) -> None:
        """Declare ``err_input``, and shares of errors where windows overlap."""
        super().initialize()
        self._shares = self.err_output
        if self.needs_err_input and self.forward.wins is not None:
            self._shares = self.declare(*self.err_output.shape)

    def prepare(self) -> None:
        """Bind the pooling of errors, when anybody reads ``err_input``."""
        self._launches: list[Callable[[], None]] = []
        if not self.needs_err_input:
            return
        pooling, wins = self.forward.pooling, self.forward.wins
        if wins is not None:
            arrays = {"err": self.err_output, "wins": wins, "share": self._shares}
            formula = element("err") / element("wins")
            self._launches.append(self.device.elementwise({"share": formula}, arrays))
        places = pooling.window.places
        arrays = {"x": self._shares, "winners": self.forward.winners, "y": self.err_input}
        take = self.device.program(_TAKE, arrays, (len(self.err_input) * places[0], places[1]))
        self._launches.append(partial(take, **pooling.scalars()))

    def run(self) -> None:
        """Compute ``err_input``."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


def depool(pooling: str, *, name: str | None = None) -> Layer:
    """Return a layer that undoes the pooling layer of this name, ``max_pool(2, name="pool")``."""
    text = f"depool({pooling!r})"

    def make(wf: Workflow) -> Depooling:
        return Depooling(wf, unit_named(wf, pooling, Pooling, f"layer {text}"), name=name)

    return Layer(text, make, GDDepooling)
