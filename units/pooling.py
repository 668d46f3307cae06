"""Pooling: the largest value, or the mean, of each window of an image, and the way back.

Shapes: x is (batch, height, width, channels), or (batch, height, width) with one channel; y is
(batch, height', width', channels) with height' = ceil((height - ky) / stride) + 1: at the lower and
right ends windows may be partial, as in Veles, and the mean is of what is in them.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.devices import Program
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer
from veloflow.units.patches import Window, pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = [
    "AvgPooling",
    "GDAvgPooling",
    "GDMaxPooling",
    "GDPooling",
    "MaxPooling",
    "Pooling",
    "avg_pool",
    "max_pool",
]

_NAMES = ("n", "h", "w", "c", "ky", "kx", "sy", "sx", "oh", "ow")
SCALARS = tuple((name, "int") for name in _NAMES)
PARAMETERS = ", ".join(f"const int {name}" for name in _NAMES)


def windows(
    h: int, w: int, ky: int, kx: int, sy: int, sx: int, oh: int, ow: int
) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
    """Yield each place in a window, where in the image it lies, and in which windows it exists."""
    for i in range(ky):
        for j in range(kx):
            high, wide = min(oh, -(-(h - i) // sy)), min(ow, -(-(w - j) // sx))
            if high > 0 and wide > 0:
                image = (
                    slice(i, i + (high - 1) * sy + 1, sy),
                    slice(j, j + (wide - 1) * sx + 1, sx),
                )
                yield i * kx + j, image, (slice(high), slice(wide))


def _max_pool(
    x: NDArray[Any], y: NDArray[Any], winners: NDArray[np.int32], *, n: int, c: int, **grid: int
) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    y[...] = -np.inf
    winners[...] = 0
    # NumPy is slow at masked arrays; numbers only grow, so that a maximum does as well
    for number, (rows, columns), (high, wide) in windows(**grid):
        part, best = images[:, rows, columns], y[:, high, wide]
        is_larger = ~(part <= best)  # NaN wins, and is seen
        np.maximum(best, part, out=best)
        own = winners[:, high, wide]
        np.maximum(own, is_larger * np.int32(number), out=own)


def _max_back(
    err: NDArray[Any], winners: NDArray[np.int32], x: NDArray[Any], *, n: int, c: int, **grid: int
) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    images[...] = 0
    for number, (rows, columns), (high, wide) in windows(**grid):
        own = np.where(winners[:, high, wide] == number, err[:, high, wide], 0)
        if grid["sy"] < grid["ky"] or grid["sx"] < grid["kx"]:
            images[:, rows, columns] += own
        else:  # no value is in two windows
            images[:, rows, columns] = own


def _counts(h: int, w: int, ky: int, kx: int, sy: int, sx: int, oh: int, ow: int) -> NDArray[Any]:
    high = np.minimum(np.arange(oh) * sy + ky, h) - np.arange(oh) * sy
    wide = np.minimum(np.arange(ow) * sx + kx, w) - np.arange(ow) * sx
    return (high[:, None] * wide[None, :])[None, :, :, None]


def _avg_pool(x: NDArray[Any], y: NDArray[Any], *, n: int, c: int, **grid: int) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    y[...] = 0
    for _, (rows, columns), (high, wide) in windows(**grid):
        y[:, high, wide] += images[:, rows, columns]
    y /= _counts(**grid).astype(y.dtype)


def _avg_back(err: NDArray[Any], x: NDArray[Any], *, n: int, c: int, **grid: int) -> None:
    if not n:
        return
    images = x.reshape(n, grid["h"], grid["w"], c)
    images[...] = 0
    share = err / _counts(**grid).astype(err.dtype)
    for _, (rows, columns), (high, wide) in windows(**grid):
        images[:, rows, columns] += share[:, high, wide]


#: what a work-item on a line of the output, and one on a line of the image, begins with
FORWARD = """
    const int line = get_global_id(0), ox = get_global_id(1);
    if (line >= n * oh || ox >= ow)
        return;
    const int oy = line % oh;
    const int high = min(ky, h - oy * sy), wide = min(kx, w - ox * sx);
    const global real *in = x + (((long)(line / oh) * h + oy * sy) * w + ox * sx) * c;
    const long at = ((long)line * ow + ox) * c;
"""
_BACK = """
    const int line = get_global_id(0), px = get_global_id(1);
    if (line >= n * h || px >= w)
        return;
    const int py = line % h;
    global real *out = x + ((long)line * w + px) * c;
"""
#: the windows that a pixel is in, and where channel k of their output lies
_EACH_WINDOW = """
        for (int oy = max(0, (py - ky + sy) / sy); oy <= py / sy && oy < oh; ++oy)
            for (int ox = max(0, (px - kx + sx) / sx); ox <= px / sx && ox < ow; ++ox) {
                const long at = (((long)(line / h) * oh + oy) * ow + ox) * c + k;
"""
_MACROS = """
#define READ_ONE(p) (*(p))
#define READ_MANY(p) (*(global const loose_reals *)(p))
#define READ_INT_ONE(p) (*(p))
#define READ_INT_MANY(p) TO_INTEGERS(*(global const loose_ints *)(p))
#define WRITE_ONE(p, value) (*(p) = (value))
#define WRITE_MANY(p, value) (*(global loose_reals *)(p) = (value))
#define WRITE_INT_ONE(p, value) (*(p) = (value))
#define WRITE_INT_MANY(p, value) (*(global loose_ints *)(p) = TO_INTS(value))
"""


def _each_channel(body: str) -> str:
    """Return loops over channels: ``body`` for vectors of them, and for those that are left."""
    words = {"VALUE": ("reals", "real"), "NUMBER": ("integers", "int")}
    words |= {
        f"{name}(": (f"{name}_MANY(", f"{name}_ONE(")
        for name in ("READ_INT", "WRITE_INT", "READ", "WRITE")
    }
    texts = [body, body]
    for word, instead in words.items():
        texts = [text.replace(word, own) for text, own in zip(texts, instead, strict=True)]
    return f"""
    int k = 0;
#if REALS > 1
    for (; k + REALS <= c; k += REALS) {{{texts[0]}    }}
#endif
    for (; k < c; ++k) {{{texts[1]}    }}
"""


_MAX_BODY = _each_channel("""
        VALUE best = (VALUE)(-INFINITY);
        NUMBER winner = (NUMBER)(0);
        for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j) {
                const VALUE value = READ(in + ((long)i * w + j) * c + k);
                const NUMBER is_larger = !(value <= best);
                best = is_larger ? value : best;
                winner = is_larger ? (NUMBER)(i * kx + j) : winner;
            }
        WRITE(y + at + k, best);
        WRITE_INT(winners + at + k, winner);
""")

_MAX = Program(
    "max_pool",
    f"""{_MACROS}
kernel void max_pool(global const real *x, global real *y, global int *winners, {PARAMETERS})
{{{FORWARD}{_MAX_BODY}}}
""",
    _max_pool,
    ("x", "y", "winners"),
    SCALARS,  # type: ignore[arg-type] # "int" is one of the literals
)

_MAX_BACK_BODY = _each_channel(f"""
        VALUE sum = (VALUE)(0);{_EACH_WINDOW}
                const NUMBER own = (NUMBER)((py - oy * sy) * kx + px - ox * sx);
                sum += READ_INT(winners + at) == own ? READ(err + at) : (VALUE)(0);
            }}
        WRITE(out + k, sum);
""")

MAX_BACK = Program(
    "max_back",
    f"""{_MACROS}
kernel void max_back(global const real *err, global const int *winners, global real *x,
                     {PARAMETERS})
{{{_BACK}{_MAX_BACK_BODY}}}
""",
    _max_back,
    ("err", "winners", "x"),
    SCALARS,  # type: ignore[arg-type]
)

_AVG_BODY = _each_channel("""
        VALUE sum = (VALUE)(0);
        for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j)
                sum += READ(in + ((long)i * w + j) * c + k);
        WRITE(y + at + k, sum / (VALUE)(high * wide));
""")

_AVG = Program(
    "avg_pool",
    f"""{_MACROS}
kernel void avg_pool(global const real *x, global real *y, {PARAMETERS})
{{{FORWARD}{_AVG_BODY}}}
""",
    _avg_pool,
    ("x", "y"),
    SCALARS,  # type: ignore[arg-type]
)

_AVG_BACK_BODY = _each_channel(f"""
        VALUE sum = (VALUE)(0);{_EACH_WINDOW}
                const int count = min(ky, h - oy * sy) * min(kx, w - ox * sx);
                sum += READ(err + at) / (VALUE)(count);
            }}
        WRITE(out + k, sum);
""")

_AVG_BACK = Program(
    "avg_back",
    f"""{_MACROS}
kernel void avg_back(global const real *err, global real *x, {PARAMETERS})
{{{_BACK}{_AVG_BACK_BODY}}}
""",
    _avg_back,
    ("err", "x"),
    SCALARS,  # type: ignore[arg-type]
)


class Pooling(Forward):
    """A layer that pools windows. An outline: subclasses say how.

    Args:
        size: of a window, one number or (height, width).
        stride: by how much it moves, one number or (height, width); by default its size.
    """

    def __init__(
        self,
        workflow: Workflow,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.size = pair(size, f"unit {self.path!r}: size")
        self.stride = self.size if stride is None else pair(stride, f"unit {self.path!r}: stride")
        self.window: Window
        self._launch: Launch

    def initialize(self) -> None:
        """Declare the output.

        Raises:
            ShapeError: the input is no batch of images that are large enough.
        """
        self.window = Window.over(
            self.input.shape,
            f"unit {self.path!r}",
            kernel=self.size,
            stride=self.stride,
            is_partial=True,
        )
        self.output = self.declare(len(self.input), *self.window.places, self.window.image[2])

    def scalars(self) -> dict[str, int]:
        """Return what the kernels are told."""
        given = self.window.scalars()
        return {"n": len(self.input), **{name: given[name] for name in _NAMES[1:]}}

    def run(self) -> None:
        """Compute ``output``."""
        self._launch(**self._given)

    def _bind(self, program: Program, **arrays: Array) -> None:
        places = self.window.places
        space = (len(self.input) * places[0], places[1])
        self._launch = self.device.program(program, arrays, space)
        self._given = self.scalars()


@final
class MaxPooling(Pooling):
    """The largest value of each window.

    Attributes:
        winners: which place in its window each value came from, int32, shaped as the output.
    """

    winners: Array

    def initialize(self) -> None:
        """Declare output and winners."""
        super().initialize()
        self.winners = self.declare(*self.output.shape, dtype="int32")

    def prepare(self) -> None:
        """Bind the pooling."""
        self._bind(_MAX, x=self.input, y=self.output, winners=self.winners)


@final
class AvgPooling(Pooling):
    """The mean of each window."""

    def prepare(self) -> None:
        """Bind the pooling."""
        self._bind(_AVG, x=self.input, y=self.output)


class GDPooling(Backward):
    """The gradient of pooling. An outline."""

    forward: Pooling
    forward_kind: ClassVar[type[Forward]] = Pooling

    def prepare(self) -> None:
        """Bind the way back, when anybody reads ``err_input``."""
        self._launch: Launch | None = None
        if self.needs_err_input:
            height, width, _ = self.forward.window.image
            space = (len(self.err_input) * height, width)
            program, arrays = self._way_back()
            self._launch = self.device.program(program, arrays, space)
            self._given = self.forward.scalars()

    @abstractmethod
    def _way_back(self) -> tuple[Program, dict[str, Array]]:
        """Return the program of the way back, and its arrays."""

    def run(self) -> None:
        """Compute ``err_input``."""
        if self._launch is not None:
            self._launch(**self._given)


@final
class GDMaxPooling(GDPooling):
    """The gradient of :class:`MaxPooling`: each error goes to the value that had won."""

    forward: MaxPooling
    forward_kind = MaxPooling

    def _way_back(self) -> tuple[Program, dict[str, Array]]:
        winners = self.forward.winners
        return MAX_BACK, {"err": self.err_output, "winners": winners, "x": self.err_input}


@final
class GDAvgPooling(GDPooling):
    """The gradient of :class:`AvgPooling`: each error is shared among the values of its window."""

    forward_kind = AvgPooling

    def _way_back(self) -> tuple[Program, dict[str, Array]]:
        return _AVG_BACK, {"err": self.err_output, "x": self.err_input}


# -- the short form --------------------------------------------------------------------------------


def max_pool(
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    *,
    name: str | None = None,
) -> Layer:
    """Return a layer that takes the largest value of each window of an image."""
    make = partial(MaxPooling, size=size, stride=stride, name=name)
    return Layer(f"max_pool({size})", make, GDMaxPooling)


def avg_pool(
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    *,
    name: str | None = None,
) -> Layer:
    """Return a layer that takes the mean of each window of an image."""
    make = partial(AvgPooling, size=size, stride=stride, name=name)
    return Layer(f"avg_pool({size})", make, GDAvgPooling)
