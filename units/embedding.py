"""Sequences of tokens: embedding, positional encoding and the mean over time, with gradients.

Shapes: tokens are (batch, time), whole numbers from 0 on (of the run's dtype, as loaders give
them); vectors are (batch, time, size).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, final

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array, Program
from veloflow.devices.expressions import element, where
from veloflow.errors import DataError, ShapeError
from veloflow.units.filling import Filling, Gaussian
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward, GradientUnit
from veloflow.units.layer import Layer, Rates, trained_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch

__all__ = [
    "Embedding",
    "GDEmbedding",
    "GDMeanOverTime",
    "GDPositionalEncoding",
    "MeanOverTime",
    "PositionalEncoding",
    "embedding",
    "mean_over_time",
    "positional_encoding",
]


# -- embedding -------------------------------------------------------------------------------------


@final
class Embedding(Forward):
    """A vector for each token: y = W[token] (Bengio et al., 2003). W is (tokens, size).

    Args:
        tokens: how many there are; they are numbered from 0 on.
        size: of a vector.
        padding: the token that is none: its vector is 0 and stays 0; None for no such token.
        weights_filling: initial values; by default normal with standard deviation 1 / 3.
    """

    input = Input[Array]("batch *time")

    def __init__(
        self,
        workflow: Workflow,
        tokens: int,
        size: int,
        *,
        padding: int | None = None,
        weights_filling: Filling | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if tokens < 1 or size < 1:
            raise ShapeError(f"unit {self.path!r}: {tokens} tokens by {size}; give at least one")
        if padding is not None and not 0 <= padding < tokens:
            raise ShapeError(f"unit {self.path!r}: padding is {padding}, no token of {tokens}")
        self.tokens, self.size, self.padding = tokens, size, padding
        self.weights_filling = Gaussian(1.0) if weights_filling is None else weights_filling
        self.places: Array

    def initialize(self) -> None:
        """Declare output, weights, and the rows of weights that are wanted."""
        self.output = self.declare(*self.input.shape, self.size)
        self.weights = self._declare_parameter("weights", self.tokens, self.size)
        self.places = self.declare(*self.input.shape, dtype="int32")

    def prepare(self) -> None:
        """Fill the weights and bind the gathering."""
        assert self.weights is not None
        weights = self.weights.value
        weights.write(self.weights_filling.fill(self._random("weights"), weights.shape, 1.0))
        token = element("token")
        place = token if self.padding is None else where(token.equals(self.padding), -1.0, token)
        arrays = {"token": self.input, "place": self.places}
        self._number = self.device.elementwise({"place": place}, arrays)
        self._gather = self.device.gather(weights, self.places, self.output)

    def run(self) -> None:
        """Compute ``output``.

        Raises:
            DataError: a token is none of those that there are.
        """
        tokens = np.asarray(self.input.read())
        is_token = (tokens >= 0) & (tokens < self.tokens) & (tokens % 1 == 0)
        if not is_token.all():  # NaN is none either
            wrong = tokens[~is_token][0]
            raise DataError(
                f"unit {self.path!r}: a sample has the token {wrong}, and there are "
                f"{self.tokens}, from 0 on; give a larger number of tokens"
            )
        self._number()
        self._gather()


def _scatter(
    err: NDArray[Any], order: NDArray[np.int32], starts: NDArray[np.int32], gradient: NDArray[Any],
    *, tokens: int, size: int,
) -> None:  # fmt: skip
    if not tokens:
        return
    gradient[...] = 0
    rows, counts = err.reshape(-1, size), np.diff(starts)
    often = np.argsort(-counts, kind="stable")  # the most frequent token first
    # one place of each token at a time, so that each sum is added in the order of its places:
    # np.add.reduceat adds pairwise, and np.add.at takes ten times as long
    active = int(np.count_nonzero(counts))
    gradient[often[:active]] = rows[order[starts[often[:active]]]]
    for nth in range(1, int(counts.max())):
        active = int(np.count_nonzero(counts[often[:active]] > nth))
        now = often[:active]
        gradient[now] += rows[order[starts[now] + nth]]


#: the gradient of each token: the errors of its places, added in their order, so that every device
#: gives the same bits; ``order`` has the places token after token, from ``starts[token]`` on
_SCATTER = Program(
    "scatter_add",
    """
kernel void scatter_add(global const real *err, global const int *order, global const int *starts,
                        global real *gradient, const int tokens, const int size)
{
    const int token = get_global_id(0);
    if (token >= tokens)
        return;
    global real *target = gradient + (long)token * size;
    const int from = starts[token], to = starts[token + 1];
    for (int k = 0; k < size; ++k)
        target[k] = from < to ? err[(long)order[from] * size + k] : 0;
    for (int n = from + 1; n < to; ++n)
        for (int k = 0; k < size; ++k)
            target[k] += err[(long)order[n] * size + k];
}
""",
    _scatter,
    ("err", "order", "starts", "gradient"),
    (("tokens", "int"), ("size", "int")),
)


@final
class GDEmbedding(GradientUnit):
    """The gradient of :class:`Embedding`: dL/dW[token] is the sum of dL/dy where it stands.

    A token is no quantity, so there is no gradient by the input: ``err_input`` is 0.
    """

    forward: Embedding
    forward_kind: ClassVar[type[Forward]] = Embedding

    def initialize(self) -> None:
        """Declare what the solvers keep, and the order in which places are added."""
        super().initialize()
        self._order = self.declare(self.forward.places.size, dtype="int32")
        self._starts = self.declare(self.forward.tokens + 1, dtype="int32")

    def prepare(self) -> None:
        """Bind the sums and the updates."""
        forward = self.forward
        assert forward.weights is not None
        arrays = {
            "err": self.err_output,
            "order": self._order,
            "starts": self._starts,
            "gradient": forward.weights.gradient,
        }
        self._launch = self.device.program(_SCATTER, arrays, (forward.tokens,))
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradient."""
        forward = self.forward
        places = np.asarray(forward.places.read()).reshape(-1)
        self._order.write(np.argsort(places, kind="stable"))
        padding = np.count_nonzero(places < 0)
        counts = np.bincount(places[places >= 0], minlength=forward.tokens)
        self._starts.write(padding + np.concatenate([[0], np.cumsum(counts)]))
        self._launch(tokens=forward.tokens, size=forward.size)
        if self.needs_err_input:
            self.err_input.write(0)


# -- positional encoding ---------------------------------------------------------------------------


@final
class PositionalEncoding(Forward):
    """Adds where in the sequence a vector stands (Vaswani et al., 2017, section 3.5).

    y[t, 2 i] = x[t, 2 i] + sin(t / 10000^(2 i / size)), y[t, 2 i + 1] likewise with the cosine.
    """

    input = Input[Array]("batch time size")

    def initialize(self) -> None:
        """Declare the output."""
        self.output = self.declare(*self.input.shape)

    def waves(self) -> NDArray[np.float64]:
        """Return what is added to each sequence: float64 (time, size)."""
        _, time, size = self.input.shape
        even = np.arange(size) // 2 * 2
        angle = np.arange(time)[:, None] / 10000.0 ** (even / size)
        return np.where(np.arange(size) % 2, np.cos(angle), np.sin(angle))

    def prepare(self) -> None:
        """Compute the waves and bind the sum."""
        added = self.device.asarray(self.waves()[None], self.input.dtype)
        self._launch = self.device.elementwise(
            {"y": element("x") + element("wave")},
            {"x": self.input, "y": self.output, "wave": added},
        )

    def run(self) -> None:
        """Compute ``output``."""
        self._launch()


@final
class GDPositionalEncoding(Backward):
    """The gradient of :class:`PositionalEncoding`: what comes passes on."""

    forward: PositionalEncoding
    forward_kind: ClassVar[type[Forward]] = PositionalEncoding

    def prepare(self) -> None:
        """Bind the copy, when anybody reads ``err_input``."""
        self._launch: Launch | None = None
        if self.needs_err_input:
            self._launch = self.device.copy(self.err_output, self.err_input)

    def run(self) -> None:
        """Compute ``err_input``."""
        if self._launch is not None:
            self._launch()


# -- the mean over time ----------------------------------------------------------------------------


def _steps(x: NDArray[Any], lengths: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a mask (batch, time, 1) of real steps, and 1 / their number (batch, 1); 0 for none."""
    lengths = np.clip(lengths, 0, x.shape[1])
    real = np.arange(x.shape[1])[:, None] < lengths[:, None, None]
    share = np.where(lengths > 0, 1 / np.maximum(lengths, 1), 0)[:, None]
    return real, share.astype(x.dtype)


def _mean(
    x: NDArray[Any], y: NDArray[Any], lengths: NDArray[np.int32],
    *, batch: int, time: int, size: int,
) -> None:  # fmt: skip
    if batch:
        real, share = _steps(x, lengths)
        np.multiply(np.where(real, x, 0).sum(axis=1), share, out=y)


def _spread(
    err: NDArray[Any], target: NDArray[Any], lengths: NDArray[np.int32],
    *, batch: int, time: int, size: int,
) -> None:  # fmt: skip
    if batch:
        real, share = _steps(target, lengths)
        np.multiply((err * share)[:, None], real, out=target)


_SIZES: tuple[Any, ...] = (("batch", "int"), ("time", "int"), ("size", "int"))

_MEAN = Program(
    "mean_over_time",
    """
kernel void mean_over_time(global const real *x, global real *y, global const int *lengths,
                           const int batch, const int time, const int size)
{
    const int n = get_global_id(0), k = get_global_id(1);
    if (n >= batch || k >= size)
        return;
    const int length = min(lengths[n], time);
    real sum = 0;
    for (int t = 0; t < length; ++t)
        sum += x[((long)n * time + t) * size + k];
    y[(long)n * size + k] = length > 0 ? sum / (real)length : 0;
}
""",
    _mean,
    ("x", "y", "lengths"),
    _SIZES,
)

_SPREAD = Program(
    "spread_over_time",
    """
kernel void spread_over_time(global const real *err, global real *target,
                             global const int *lengths, const int batch, const int time,
                             const int size)
{
    const int n = get_global_id(0), k = get_global_id(1);
    if (n >= batch || k >= size)
        return;
    const int length = min(lengths[n], time);
    const real share = length > 0 ? err[(long)n * size + k] / (real)length : 0;
    for (int t = 0; t < time; ++t)
        target[((long)n * time + t) * size + k] = t < length ? share : 0;
}
""",
    _spread,
    ("err", "target", "lengths"),
    _SIZES,
)


@final
class MeanOverTime(Forward):
    """The mean of a sequence's vectors: (batch, time, size) -> (batch, size).

    ``minibatch_lengths``, int32 (batch,), may be linked to how many steps of each sequence are
    real: the mean is over these; of none it is 0.

    Args:
        masked: link the loader's ``minibatch_lengths``, in the short form.
    """

    input = Input[Array]("batch time size")
    minibatch_lengths = Input[Array]("batch", dtype="int32", optional=True)

    def __init__(
        self, workflow: Workflow, *, masked: bool = False, name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        if masked:  # what the short form links differs from unit to unit here
            self.loader_inputs = ("minibatch_lengths",)  # type: ignore[misc]
        self.lengths: Array

    def initialize(self) -> None:
        """Declare the output."""
        batch, time, size = self.input.shape
        self.output = self.declare(batch, size)
        self.sizes = {"batch": batch, "time": time, "size": size}
        self.is_masked = self.has_input("minibatch_lengths")
        self.lengths = (
            self.minibatch_lengths if self.is_masked else self.declare(batch, dtype="int32")
        )

    def prepare(self) -> None:
        """Bind the mean."""
        if not self.is_masked:
            self.lengths.write(self.sizes["time"])
        arrays = {"x": self.input, "y": self.output, "lengths": self.lengths}
        self._launch = self.device.program(_MEAN, arrays, self.output.shape)

    def run(self) -> None:
        """Compute ``output``."""
        self._launch(**self.sizes)


@final
class GDMeanOverTime(Backward):
    """The gradient of :class:`MeanOverTime`: each real step has its share of dL/dy."""

    forward: MeanOverTime
    forward_kind: ClassVar[type[Forward]] = MeanOverTime

    def prepare(self) -> None:
        """Bind the shares, when anybody reads ``err_input``."""
        self._launch: Launch | None = None
        if self.needs_err_input:
            arrays = {
                "err": self.err_output,
                "target": self.err_input,
                "lengths": self.forward.lengths,
            }
            self._launch = self.device.program(_SPREAD, arrays, self.err_output.shape)

    def run(self) -> None:
        """Compute ``err_input``."""
        if self._launch is not None:
            self._launch(**self.forward.sizes)


# -- the short form --------------------------------------------------------------------------------


class EmbeddingOptions(Rates, total=False):
    """What an embedding may be told: its own rates, which token is none, and how it begins."""

    padding: int
    weights_filling: Filling
    name: str


def embedding(tokens: int, size: int, **options: Unpack[EmbeddingOptions]) -> Layer:
    """Return a layer that has a vector of ``size`` for each token."""
    make = partial(Embedding, tokens=tokens, size=size)
    text = f"embedding({tokens}, {size})"
    return trained_layer(text, make, GDEmbedding, options, EmbeddingOptions.__optional_keys__)


def positional_encoding(*, name: str | None = None) -> Layer:
    """Return a layer that adds to vectors where in the sequence they stand."""
    make = partial(PositionalEncoding, name=name)
    return Layer("positional_encoding()", make, GDPositionalEncoding)


def mean_over_time(*, masked: bool = False, name: str | None = None) -> Layer:
    """Return a layer that takes the mean over time, over the real steps if ``masked``."""
    make = partial(MeanOverTime, masked=masked, name=name)
    return Layer(f"mean_over_time(masked={masked})", make, GDMeanOverTime)
