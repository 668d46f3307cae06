"""Batch normalisation: each channel by its mean and variance in the minibatch.

Ioffe, Szegedy, "Batch normalization" (2015):
y = (x - mean) / sqrt(variance + epsilon) * scale + shift for each channel, the last axis. Mean and
variance are over all samples of the minibatch and all places; rows of padding are left out. While
training, running means of both are kept,

    running = (1 - momentum) * running + momentum * of this minibatch

with the variance divided by count - 1, as in torch; validation, testing and use take these.

With slaves each part of a minibatch is normalised by its own mean and variance, as a smaller batch
("ghost batch", Hoffer, Hubara, Soudry, 2017), and the mean and variance of the whole minibatch,
pooled from those of its parts in their order, go into the running ones on the master. These travel
to slaves with every piece that is not for training. So in sync mode the bits depend on the number
of parts, and never on who computes them.

Shapes: x and y are (batch, ..., channels); scale, shift, mean and variance are (channels,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, cast, final

import numpy as np

from veloflow.core import Input
from veloflow.devices.expressions import Expression, element, index, scalar, sqrt, where
from veloflow.errors import InputError
from veloflow.units.layer import Layer, trained_layer
from veloflow.units.layer_norm import GDNorm, Norm, NormLayerOptions, NormOptions
from veloflow.units.loader import TRAIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Part, Payload, Workflow
    from veloflow.devices import Array, Launch
    from veloflow.units.forward import Forward

__all__ = ["BatchNorm", "GDBatchNorm", "batch_norm"]


def _if_real(formula: Expression) -> Expression:
    """Return the formula in rows that are no padding, 0 elsewhere."""
    return where(index(0) < scalar("rows"), formula, 0.0)


@final
class BatchNorm(Norm):
    """Batch normalisation.

    Args:
        momentum: the weight of a minibatch in the running mean and variance, in (0, 1].
        epsilon, affine: as :class:`~veloflow.units.layer_norm.Norm` says.

    Attributes:
        running_mean, running_variance: (channels,), from 0 and 1 on.
    """

    loader_inputs: ClassVar[tuple[str, ...]] = ("minibatch_class", "minibatch_size")

    minibatch_class = Input[int]()
    minibatch_size = Input[int]()

    def __init__(
        self, workflow: Workflow, *, momentum: float = 0.1, **more: Unpack[NormOptions]
    ) -> None:
        super().__init__(workflow, **more)
        if not 0 < momentum <= 1:
            raise InputError(f"unit {self.path!r}: momentum is {momentum}; it lies in (0, 1]")
        self.momentum = momentum
        self.running_mean: Array
        self.running_variance: Array
        self.deviation: Array
        self._sums: Array
        self._squares: Array
        self._mean: Array
        self._is_training = False

    def initialize(self) -> None:
        """Declare output, scale, shift and statistics."""
        channels = self.input.shape[-1]
        self._declare_all(channels)
        names = ("_sums", "_squares", "_mean", "deviation", "running_mean", "running_variance")
        for name in names:
            setattr(self, name, self.declare(channels))

    def matrix(self, array: Array) -> Array:
        """Return an array as (samples and places, channels)."""
        return array.reshape(array.size // array.shape[-1], array.shape[-1])

    @property
    def rows(self) -> int:
        """How many rows of the present minibatch are no padding."""
        return self.minibatch_size * math.prod(self.input.shape[1:-1])

    def prepare(self) -> None:
        """Bind sums and formulas."""
        self._begin()
        self.running_variance.write(1.0)
        self._small = {
            "sum": self._sums, "squares": self._squares, "mean": self._mean,
            "inverse": self.deviation, "running_mean": self.running_mean,
            "running_variance": self.running_variance,
        }  # fmt: skip
        self._bind_measuring()
        self._bind_running()
        normalized = (element("x") - element("mean")) * element("inverse")
        formulas = {"normalized": normalized, "y": normalized}
        arrays = {
            "x": self.matrix(self.input), "normalized": self.matrix(self.normalized),
            "y": self.matrix(self.output), "mean": self.row(self._mean),
            "inverse": self.row(self.deviation),
        }  # fmt: skip
        if self.weights is not None and self.bias is not None:
            formulas["y"] = normalized * element("scale") + element("shift")
            arrays["scale"] = self.row(self.weights.value)
            arrays["shift"] = self.row(self.bias.value)
        self._normalize = self.device.elementwise(formulas, arrays)

    def _bind_measuring(self) -> None:
        """Bind mean and 1 / sqrt(variance + epsilon) of a minibatch."""
        device, x, count = self.device, self.matrix(self.input), scalar("inverse_count")
        centred = element("x") - element("sum") * count
        self._add = device.reduce("sum", _if_real(element("x")), {"x": x}, self._sums, axis=0)
        self._add_squares = device.reduce(
            "sum", _if_real(centred * centred), {"x": x, "sum": self.row(self._sums)},
            self._squares, axis=0,
        )  # fmt: skip
        formulas = {
            "mean": element("sum") * count,
            "inverse": 1 / sqrt(element("squares") * count + self.epsilon),
        }
        self._measure = device.elementwise(formulas, self._small)

    def _bind_running(self) -> None:
        """Bind the step of the running statistics, and their use."""
        mean, variance = element("running_mean"), element("running_variance")
        new = element("squares") * scalar("inverse_rest")
        step = {
            "running_mean": mean + self.momentum * (element("mean") - mean),
            "running_variance": variance + self.momentum * (new - variance),
        }
        self._step = self.device.elementwise(step, self._small)
        use = {"mean": mean, "inverse": 1 / sqrt(variance + self.epsilon)}
        self._use = self.device.elementwise(use, self._small)

    def _run(self) -> None:
        self._is_training = self.minibatch_class == TRAIN and not self.settings.testing
        if self._is_training:
            rows = self.rows
            self._add(rows=rows)
            self._add_squares(rows=rows, inverse_count=1 / rows)
            self._measure(inverse_count=1 / rows)
        else:
            self._use()
        self._normalize()

    def run(self) -> None:
        """Compute ``output``; when training take a step of the running statistics."""
        self._run()
        if self._is_training:
            self._step(inverse_rest=1 / max(self.rows - 1, 1))

    def state(self) -> Mapping[str, object]:
        """Return the running statistics."""
        return {
            "running_mean": np.array(self.running_mean.read()),
            "running_variance": np.array(self.running_variance.read()),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the running statistics back."""
        for name in ("running_mean", "running_variance"):
            cast("Array", getattr(self, name)).write(np.asarray(state[name]))

    # -- with slaves --------------------------------------------------------------------------

    def make_job(self, part: Part) -> Payload:
        """Return the running statistics, unless the part is for training."""
        return {} if part.batch.kind == TRAIN else self.state()

    def take_job(self, payload: Payload) -> None:
        """Take the running statistics for a part that is not for training."""
        if payload:
            self.restore(payload)

    def run_as_slave(self) -> None:
        """Compute ``output``: the master takes the step."""
        self._run()

    def make_update(self) -> Payload:
        """Return the statistics of the part; its count is 0 when it was not for training."""
        return {
            "count": self.rows if self._is_training else 0,
            "mean": np.array(self._mean.read()),
            "squares": np.array(self._squares.read()),
        }

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Pool the statistics of all parts, in order, and take a step of the running ones."""
        parts = [cast("Mapping[str, Any]", one) for one in updates if one["count"]]
        if not parts:
            return
        count, mean, squares = _pooled(parts)
        state = cast("Mapping[str, NDArray[np.floating]]", self.state())
        news = {"running_mean": mean, "running_variance": squares / max(count - 1, 1)}
        for name, new in news.items():
            old = state[name].astype(np.float64)
            cast("Array", getattr(self, name)).write(old + self.momentum * (new - old))


def _pooled(
    parts: Sequence[Mapping[str, Any]],
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Return count, mean and sum of squared deviations of the parts together."""
    count = sum(int(one["count"]) for one in parts)
    means = [np.asarray(one["mean"], np.float64) for one in parts]
    mean = sum(
        (int(one["count"]) * own for one, own in zip(parts, means, strict=True)),
        start=np.zeros_like(means[0]),
    ) / count  # fmt: skip
    squares = np.zeros_like(mean)
    for one, own in zip(parts, means, strict=True):
        squares += np.asarray(one["squares"], np.float64)
        squares += int(one["count"]) * np.square(own - mean)
    return count, mean, squares


@final
class GDBatchNorm(GDNorm):
    """The gradient of :class:`BatchNorm`.

    With means over the rows of the minibatch that are no padding and n the normalised x: dL/dx =
    scale / sqrt(variance + epsilon) * (err - mean of err - n * mean of err n).
    """

    forward: BatchNorm
    forward_kind: ClassVar[type[Forward]] = BatchNorm

    def initialize(self) -> None:
        """Declare ``err_input``, the velocities and sums."""
        super().initialize()
        channels = self.err_output.shape[-1]
        self._sums, self._products = self.declare(channels), self.declare(channels)

    def prepare(self) -> None:
        """Bind the gradients and the updates."""
        forward, device = self.forward, self.device
        self._launches = self._bind_parameters()
        self._back: Launch | None = None
        if self.needs_err_input:
            e, n = element("e"), element("n")
            arrays = {"e": forward.matrix(self.err_output), "n": forward.matrix(forward.normalized)}
            sums, products = self._sums, self._products
            if forward.weights is not None and forward.bias is not None:
                sums, products = forward.bias.gradient, forward.weights.gradient
            else:
                self._launches += [
                    device.reduce("sum", e, {"e": arrays["e"]}, sums, axis=0),
                    device.reduce("sum", e * n, arrays, products, axis=0),
                ]
            count = scalar("inverse_count")
            back = e - element("sum") * count - n * (element("product") * count)
            back = back * element("inverse")
            arrays["sum"], arrays["product"] = forward.row(sums), forward.row(products)
            arrays["inverse"] = forward.row(forward.deviation)
            arrays["target"] = forward.matrix(self.err_input)
            if forward.weights is not None:
                back = back * element("scale")
                arrays["scale"] = forward.row(forward.weights.value)
            self._back = device.elementwise({"target": _if_real(back)}, arrays)
        self._prepare_updates()

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()
        if self._back is not None:
            rows = self.forward.rows
            self._back(rows=rows, inverse_count=1 / rows)


# -- the short form --------------------------------------------------------------------------------


class BatchNormOptions(NormLayerOptions, total=False):
    """What batch normalisation may be told besides."""

    momentum: float


def batch_norm(**options: Unpack[BatchNormOptions]) -> Layer:
    """Return a layer that normalises each channel by its mean and variance in the minibatch."""
    known = BatchNormOptions.__optional_keys__
    return trained_layer("batch_norm()", BatchNorm, GDBatchNorm, options, known)
