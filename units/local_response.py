"""Local response normalisation across channels, and its gradient (Krizhevsky et al., 2012).

y_i = x_i / (k + alpha * sum of x_j^2 for |i - j| <= n // 2) ^ beta, the sum being over the last
axis, the channels, and cut off at the first and the last of them. As in Veles alpha multiplies the
plain sum; Caffe and torch divide it by n, so their alpha is n times ours.

Shapes: x and y are (batch, ..., channels).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

from veloflow.devices import Program
from veloflow.devices.expressions import element
from veloflow.errors import InputError
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Array, Device

__all__ = ["GDLocalResponse", "LocalResponse", "lrn"]


def _window_sum(
    x: NDArray[Any], y: NDArray[Any], *, rows: int, count: int, reach: int, squares: int
) -> None:
    if not rows:
        return
    values, sums = x.reshape(rows, count), y.reshape(rows, count)
    if squares:
        values = values * values
    sums[...] = 0
    for step in range(-reach, reach + 1):
        low, high = max(0, -step), min(count, count - step)
        if low < high:
            sums[:, low:high] += values[:, low + step : high + step]


_WINDOW_SUM = Program(
    "window_sum",
    """
kernel void window_sum(global const real *x, global real *y, const int rows, const int count,
                       const int reach, const int squares)
{
    const int row = get_global_id(0);
    if (row >= rows)
        return;
    const global real *in = x + (long)row * count;
    global real *out = y + (long)row * count;
    for (int i = 0; i < count; ++i) {
        real sum = 0;
        for (int j = max(0, i - reach); j <= min(count - 1, i + reach); ++j)
            sum += squares ? in[j] * in[j] : in[j];
        out[i] = sum;
    }
}
""",
    _window_sum,
    ("x", "y"),
    (("rows", "int"), ("count", "int"), ("reach", "int"), ("squares", "int")),
)


def _bind_window_sum(
    device: Device, x: Array, y: Array, n: int, *, squares: bool
) -> Callable[[], None]:
    """Bind y = the sum of x, or of its squares, over windows of ``n`` channels."""
    rows, count = math.prod(x.shape[:-1]), x.shape[-1]
    launch = device.program(_WINDOW_SUM, {"x": x, "y": y}, (rows,))
    return lambda: launch(rows=rows, count=count, reach=n // 2, squares=int(squares))


@final
class LocalResponse(Forward):
    """Local response normalisation: channels with strong neighbours are damped.

    Args:
        alpha, beta, k: of the formula.
        n: how many channels a window holds, an odd number.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        n: int = 5,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if n < 1 or n % 2 == 0:
            raise InputError(f"unit {self.path!r}: n is {n}; give an odd number of channels")
        if not (alpha >= 0 and k > 0):
            raise InputError(
                f"unit {self.path!r}: alpha is {alpha}, k is {k}; give alpha from 0 on, k above 0"
            )
        self.alpha, self.beta, self.k, self.n = alpha, beta, k, n
        self._launches: list[Callable[[], None]] = []

    def initialize(self) -> None:
        """Declare output and sums of squares."""
        self.output = self.declare(*self.input.shape)
        self.squares = self.declare(*self.input.shape)

    def prepare(self) -> None:
        """Bind the sums and the division."""
        assert self.squares is not None
        base = self.k + self.alpha * element("s")
        arrays = {"x": self.input, "s": self.squares, "y": self.output}
        self._launches = [
            _bind_window_sum(self.device, self.input, self.squares, self.n, squares=True),
            self.device.elementwise({"y": element("x") * base ** (-self.beta)}, arrays),
        ]

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class GDLocalResponse(Backward):
    """The gradient of :class:`LocalResponse`.

    With d = k + alpha * sums and e = dL/dy: dL/dx_j = e_j / d_j^beta - 2 alpha beta x_j * (the sum
    of e_i y_i / d_i over the window around j).
    """

    forward: LocalResponse
    forward_kind: ClassVar[type[Forward]] = LocalResponse

    def initialize(self) -> None:
        """Declare ``err_input`` and what it is made of."""
        super().initialize()
        if self.needs_err_input:
            self._share = self.declare(*self.err_output.shape)
            self._window = self.declare(*self.err_output.shape)

    def prepare(self) -> None:
        """Bind the way back, when anybody reads ``err_input``."""
        self._launches: list[Callable[[], None]] = []
        if not self.needs_err_input:
            return
        forward, device = self.forward, self.device
        assert forward.squares is not None
        e, x, y = element("e"), element("x"), element("y")
        base = forward.k + forward.alpha * element("s")
        known = {"e": self.err_output, "s": forward.squares}
        share = {"share": e * y / base}
        back = e * base ** (-forward.beta) - 2 * forward.alpha * forward.beta * x * element("w")
        self._launches = [
            device.elementwise(share, {**known, "y": forward.output, "share": self._share}),
            _bind_window_sum(device, self._share, self._window, forward.n, squares=False),
            device.elementwise(
                {"target": back},
                {**known, "x": forward.input, "w": self._window, "target": self.err_input},
            ),
        ]

    def run(self) -> None:
        """Compute ``err_input``."""
        for launch in self._launches:
            launch()


# -- the short form --------------------------------------------------------------------------------


def lrn(
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    n: int = 5,
    name: str | None = None,
) -> Layer:
    """Return a layer that normalises each channel by its ``n`` neighbours."""
    make = partial(LocalResponse, alpha=alpha, beta=beta, k=k, n=n, name=name)
    return Layer(f"lrn(n={n})", make, GDLocalResponse)
