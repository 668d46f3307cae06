"""Self-organizing maps (Kohonen, 1982 and 2013): neurons on a grid learn where samples lie.

Shapes: x is (batch, ...), seen as (batch, features); W is (neurons, features). The winner of a
sample is the neuron nearest to it; d is the distance of two neurons on the grid, which spans
[-1, 1] in both directions, every second row moved by half a step. At the time t

    radius(t) = radius / (1 + radius_decay t)      rate(t) = rate / (1 + rate_decay t)
    pull(i, j) = exp(-d(i, j)^2 / (2 radius(t)^2))

Two rules move the neurons:

    "batch": once an epoch, w_j = sum of pull(winner of x, j) x / sum of pull(winner of x, j); t is
        the number of epochs (Kohonen, 2013)
    "online": sample by sample, as Veles did, w_j += rate(t) pull(winner of x, j) (x - w_j); t is
        the number of minibatches
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, final

import numpy as np

from veloflow.core import Bool, Input, Part, Payload, Repeater, Workflow
from veloflow.devices import Array, Program
from veloflow.devices.expressions import element, exp, index, scalar, where
from veloflow.devices.parameters import Parameter, Parameters
from veloflow.errors import DataError, InputError, ShapeError
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.filling import Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.kohonen_decision import DecisionKohonen, EvaluatorKohonen
from veloflow.units.kohonen_grid import coordinates, principal_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.units.loader import Loader


__all__ = [
    "Kohonen",
    "KohonenTrainer",
    "KohonenUnits",
    "kohonen_workflow",
]


@final
class Kohonen(Forward):
    """The map: finds each sample's winner, and gives where that one lies.

    Args:
        shape: (rows, columns) of the grid.
        weights_filling: where neurons begin; by default uniform in [-0.1, 0.1).
        plane_of: samples (n, ...), as the loader gives them; then neurons begin on their plane of
            principal components instead, see :func:`principal_plane`.

    Attributes:
        output: the winners' weights, shaped as the input.
        winners: int32 (batch,).
        neurons: how many there are.
        coordinates: (neurons, 2), places on the grid, in [-1, 1].
    """

    def __init__(
        self,
        workflow: Workflow,
        shape: Sequence[int],
        *,
        weights_filling: Filling | None = None,
        plane_of: NDArray[Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if len(shape) != 2 or min(shape) < 1 or math.prod(shape) < 2:
            raise ShapeError(
                f"unit {self.path!r}: a map of shape {tuple(shape)}; give (rows, columns) with at "
                "least two neurons"
            )
        self.shape = (shape[0], shape[1])
        self.neurons = math.prod(shape)
        self.coordinates = coordinates(*self.shape)
        self.weights_filling = Uniform(0.1) if weights_filling is None else weights_filling
        self.plane_of = plane_of
        self.winners: Array

    def initialize(self) -> None:
        """Declare output, winners and weights."""
        batch, features = len(self.input), math.prod(self.input.shape[1:])
        self.output = self.declare(*self.input.shape)
        self.winners = self.declare(batch, dtype="int32")
        self.weights = self._declare_parameter("weights", self.neurons, features)
        self._norms = self.declare(self.neurons)
        self._nearness = self.declare(batch, self.neurons)

    def prepare(self) -> None:
        """Fill the weights and bind the search."""
        assert self.weights is not None
        device, weights = self.device, self.weights.value
        weights.write(self._first_weights(weights.shape))
        w = element("w")
        self._launches = [
            # the nearest has the largest x w - |w|^2 / 2
            device.reduce("sum", -0.5 * w * w, {"w": weights}, self._norms, axis=1),
            device.gemm(self.input, weights, self._nearness, transpose_b=True, bias=self._norms),
            device.softmax(self._nearness, self._nearness, self.winners),
            device.gather(weights, self.winners, self.output),
        ]

    def _first_weights(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if self.plane_of is None:
            return self.weights_filling.fill(self._random("weights"), shape, 0.1)
        samples = np.asarray(self.plane_of, np.float64).reshape(len(self.plane_of), -1)
        if samples.shape[1] != shape[1] or not np.isfinite(samples).all():
            raise DataError(
                f"unit {self.path!r}: plane_of has {samples.shape[1]} features, or NaN; give "
                f"samples of {shape[1]} finite features, as the loader gives them"
            )
        return principal_plane(samples, *self.shape)

    def run(self) -> None:
        """Find the winners."""
        for launch in self._launches:
            launch()


def _online(
    x: NDArray[Any], weights: NDArray[Any], distances: NDArray[Any],
    *, samples: int, neurons: int, features: int, rate: float, narrowness: float,
) -> None:  # fmt: skip
    for sample in x.reshape(len(x), -1)[:samples]:
        apart = sample - weights
        winner = np.square(apart).sum(axis=1).argmin()
        pull = (rate * np.exp(-narrowness * distances[winner])).astype(weights.dtype)
        weights += pull[:, None] * apart


#: one sample after another: nothing here can be done side by side but the neurons
_ONLINE = Program(
    "kohonen_online",
    """
kernel void kohonen_online(global const real *x, global real *weights,
                           global const real *distances, const int samples, const int neurons,
                           const int features, const real rate, const real narrowness)
{
    if (get_global_id(0))
        return;
    for (int n = 0; n < samples; ++n) {
        global const real *sample = x + (long)n * features;
        int winner = 0;
        real least = INFINITY;
        for (int j = 0; j < neurons; ++j) {
            real sum = 0;
            for (int k = 0; k < features; ++k) {
                const real apart = sample[k] - weights[(long)j * features + k];
                sum += apart * apart;
            }
            if (sum < least) {
                least = sum;
                winner = j;
            }
        }
        for (int j = 0; j < neurons; ++j) {
            const real pull = rate * exp(-narrowness * distances[(long)winner * neurons + j]);
            for (int k = 0; k < features; ++k) {
                global real *weight = weights + (long)j * features + k;
                *weight += pull * (sample[k] - *weight);
            }
        }
    }
}
""",
    _online,
    ("x", "weights", "distances"),
    (("samples", "int"), ("neurons", "int"), ("features", "int"), ("rate", "real"),
     ("narrowness", "real")),
)  # fmt: skip


@final
class KohonenTrainer(DeviceUnit):
    """Moves the neurons of a map; the rules stand at the top.

    On slaves in sync mode, the batch rule adds up what the parts of a minibatch pull, and the
    online rule adds the moves that each part makes alone, one sample after another.

    Args:
        forward: the map.
        rule: "batch" or "online".
        rate, rate_decay: how far a sample pulls (online rule only), and how fast that fades.
        radius, radius_decay: how far the pull reaches on the grid, and how fast that shrinks.

    Attributes:
        time: epochs (batch) or minibatches (online) so far.
        change: the mean magnitude by which the last epoch has moved a weight; infinite before.
    """

    group: ClassVar[str] = "trainer"

    input = Input[Array]("batch ...")
    minibatch_size = Input[int]()
    train_ended = Input[Bool]()

    def __init__(
        self,
        workflow: Workflow,
        forward: Kohonen,
        *,
        rule: Literal["batch", "online"] = "batch",
        rate: float = 0.1,
        rate_decay: float = 0.05,
        radius: float = 1.0,
        radius_decay: float = 0.05,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if rule not in ("batch", "online"):
            raise InputError(f"unit {self.path!r}: the rule is {rule!r}; give 'batch' or 'online'")
        numbers = (rate, rate_decay, radius_decay)
        if not radius > 0 or not all(math.isfinite(one) and one >= 0 for one in (*numbers, radius)):
            raise InputError(
                f"unit {self.path!r}: rate {rate}, radius {radius} and decays {rate_decay}, "
                f"{radius_decay} must be finite, the radius above 0 and none below"
            )
        self.forward, self.rule = forward, rule
        self.rate, self.rate_decay = rate, rate_decay
        self.radius, self.radius_decay = radius, radius_decay
        self.time = 0
        self.change = math.inf
        self._before: NDArray[Any] | None = None
        self._mass: Parameter | None = None

    def initialize(self) -> None:
        """Declare the pulls and what adds up in an epoch."""
        neurons, features = self.forward.neurons, math.prod(self.input.shape[1:])
        self._distances = self.declare(neurons, neurons)
        if self.rule == "online":
            self._moved = self.declare(neurons, features)
            return
        # the sums of pulls travel as gradients do, beside those of what is pulled to
        mass = self.service(Parameters).declare(f"{self.path}/mass", (neurons,))
        self._mass = mass
        self._pulls_of = self.declare(neurons, neurons)
        self._pulls = self.declare(len(self.input), neurons)
        self._known = self.declare(len(self.input), dtype="int32")
        self._sums = [self.declare(neurons, features), self.declare(neurons)]

    def prepare(self) -> None:
        """Bind the rule."""
        apart = self.forward.coordinates[:, None] - self.forward.coordinates[None]
        self._distances.write(np.square(apart).sum(axis=2))
        assert self.forward.weights is not None
        if self._mass is None:
            self._bind_online(self.forward.weights)
        else:
            self._bind_batch(self.forward.weights, self._mass)
        self._before = np.array(self.forward.weights.value.read())

    def _bind_online(self, weights: Parameter) -> None:
        device = self.device
        arrays = {"x": self.input, "weights": self._moved, "distances": self._distances}
        self._begin = device.copy(weights.value, self._moved)
        self._sweep = device.program(_ONLINE, arrays, (1,))
        arrays = {"moved": self._moved, "w": weights.value, "g": weights.gradient}
        self._difference = device.elementwise({"g": element("moved") - element("w")}, arrays)
        self._apply = device.elementwise({"w": element("w") + element("g")}, arrays)

    def _bind_batch(self, weights: Parameter, mass: Parameter) -> None:
        device, forward = self.device, self.forward
        is_sample = index(0) < scalar("samples")
        self._know = device.elementwise(
            {"known": where(is_sample, element("winner"), -1.0)},
            {"known": self._known, "winner": forward.winners},
        )
        self._weigh = device.elementwise(
            {"pull": exp(-scalar("narrowness") * element("d"))},
            {"pull": self._pulls_of, "d": self._distances},
        )
        self._pull = [
            device.gather(self._pulls_of, self._known, self._pulls),
            device.gemm(self._pulls, self.input, weights.gradient, transpose_a=True),
            device.reduce("sum", element("p"), {"p": self._pulls}, mass.gradient, axis=0),
        ]
        gradients = (weights.gradient, mass.gradient)
        self._add = [
            device.elementwise({"sum": element("sum") + element("g")}, {"sum": total, "g": one})
            for total, one in zip(self._sums, gradients, strict=True)
        ]
        total, pulled = element("total"), element("pulled")
        self._move = device.elementwise(
            {"w": where(pulled > 0, total / pulled, element("w"))},
            {"w": weights.value, "total": self._sums[0], "pulled": self._sums[1]},
        )
        self._note = device.copy(self._sums[1], mass.value)

    @property
    def _narrowness(self) -> float:
        radius = self.radius / (1 + self.radius_decay * self.time)
        return 0.5 / (radius * radius)

    def run(self) -> None:
        """Learn from a minibatch."""
        self._find()
        self._take()

    def _find(self) -> None:
        """Compute as gradients what the samples ask for."""
        samples, narrowness = self.minibatch_size, self._narrowness
        if self.rule == "online":
            self._begin()
            self._sweep(
                samples=samples,
                neurons=self.forward.neurons,
                features=math.prod(self.input.shape[1:]),
                rate=self.rate / (1 + self.rate_decay * self.time),
                narrowness=narrowness,
            )
            self._difference()
            return
        self._know(samples=samples)
        self._weigh(narrowness=narrowness)
        for launch in self._pull:
            launch()

    def _take(self) -> None:
        """Do what the gradients ask for."""
        if self.rule == "online":
            self._apply()
            self.time += 1
        else:
            for launch in self._add:
                launch()
        if self.train_ended:
            self._end_epoch()

    def _end_epoch(self) -> None:
        if self.rule == "batch":
            self._move()
            self._note()
            for total in self._sums:
                total.write(0)
            self.time += 1
        assert self.forward.weights is not None
        weights = np.array(self.forward.weights.value.read())
        self.change = float(np.abs(weights - self._before).mean(dtype=np.float64))
        self._before = weights

    # -- with slaves --------------------------------------------------------------------------

    def run_as_slave(self) -> None:
        """Compute what the samples ask for: the master moves the neurons."""
        self._find()

    def run_as_master(self) -> None:
        """Move the neurons as slaves have found."""
        self._take()

    def make_job(self, part: Part) -> Payload:
        """Return the time."""
        return {"time": self.time}

    def take_job(self, payload: Payload) -> None:
        """Take the time."""
        self.time = cast("int", payload["time"])

    # -- checkpoints --------------------------------------------------------------------------

    def state(self) -> Mapping[str, object]:
        """Return the time, the last change, and what this epoch has added up."""
        sums = [] if self._mass is None else [np.array(one.read()) for one in self._sums]
        change = None if math.isinf(self.change) else self.change
        return {"time": self.time, "change": change, "before": self._before, "sums": sums}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from there."""
        saved = cast("dict[str, Any]", state)
        self.time = saved["time"]
        self.change = math.inf if saved["change"] is None else saved["change"]
        self._before = np.array(saved["before"])
        if self._mass is not None:
            for total, values in zip(self._sums, saved["sums"], strict=True):
                total.write(values)


# -- the short form --------------------------------------------------------------------------------


@dataclass(frozen=True)
class KohonenUnits:
    """The units of a map's workflow, to link more to them."""

    loader: Loader
    map: Kohonen
    evaluator: EvaluatorKohonen
    decision: DecisionKohonen
    trainer: KohonenTrainer


def kohonen_workflow(
    wf: Workflow,
    *,
    loader: Loader,
    shape: Sequence[int] = (8, 8),
    rule: Literal["batch", "online"] = "batch",
    rate: float = 0.1,
    rate_decay: float = 0.05,
    radius: float = 1.0,
    radius_decay: float = 0.05,
    classes: int = 0,
    max_epochs: int | None = None,
    fail_iterations: int = 100,
    min_change: float = 0.0,
    weights_filling: Filling | None = None,
    plane_of: NDArray[Any] | None = None,
) -> KohonenUnits:
    """Fill ``wf``, empty but for ``loader``, with the graph that trains a map.

    Args:
        wf: the workflow.
        loader: a loader in it.
        shape, weights_filling, plane_of: see :class:`Kohonen`.
        rule, rate, rate_decay, radius, radius_decay: see :class:`KohonenTrainer`.
        classes: of the loader's labels; 0 looks at no labels.
        max_epochs, fail_iterations, min_change: see :class:`DecisionKohonen`.
    """
    repeater = Repeater(wf)
    kohonen = Kohonen(wf, shape, weights_filling=weights_filling, plane_of=plane_of)
    evaluator = EvaluatorKohonen(wf, classes=classes)
    decision = DecisionKohonen(
        wf, max_epochs=max_epochs, fail_iterations=fail_iterations, min_change=min_change
    )
    trainer = KohonenTrainer(
        wf, kohonen, rule=rule, rate=rate, rate_decay=rate_decay, radius=radius,
        radius_decay=radius_decay,
    )  # fmt: skip
    wf.start >> repeater >> loader >> kohonen >> evaluator >> decision >> trainer >> repeater
    decision >> wf.end
    kohonen.link_data(loader, input="minibatch_data")
    evaluator.link_data(kohonen, "output", "winners", "neurons")
    evaluator.link_data(loader, "minibatch_size", target="minibatch_data")
    if classes:
        evaluator.link_data(loader, labels="minibatch_labels")
    decision.link_data(evaluator, "samples", "loss", "coincidences", hits_now="hits")
    decision.link_data(
        loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number"
    ).link_data(trainer, "change")
    trainer.link_data(loader, "minibatch_size", "train_ended", input="minibatch_data")
    wf.end.gate_block = ~decision.complete
    trainer.gate_block = decision.complete
    trainer.gate_skip = decision.gd_skip
    return KohonenUnits(loader, kohonen, evaluator, decision, trainer)
