"""What all gradient units share: errors going back, and the update of parameters by a solver.

What a solver makes of a gradient, and with which numbers, stands in :mod:`veloflow.units.solvers`;
how many parameters move in one launch, in :mod:`veloflow.units.update`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar, cast

from veloflow.core import Farm, Input, Payload, Workflow
from veloflow.devices import Array
from veloflow.devices.expressions import element
from veloflow.devices.parameters import Mover, Parameters
from veloflow.errors import GraphError, InputError, ShapeError
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.solvers import Hyperparameters, Solver, solver_of
from veloflow.units.update import Moved, Update, declare_slots

if TYPE_CHECKING:
    from veloflow.core import Unit
    from veloflow.devices import Device, Launch
    from veloflow.devices.parameters import Parameter
    from veloflow.units.forward import Forward

__all__ = ["Backward", "GradientUnit", "LayerGradient"]


class Backward(DeviceUnit):
    """The gradient of a forward unit by its input. An outline.

    It takes dL/d(output) as ``err_output`` and gives dL/d(input).

    Args:
        forward: the unit whose gradient this is.

    Attributes:
        err_input: dL/d(input), of the shape of the forward unit's input; it exists only when a
            unit of the whole workflow is linked to it.
    """

    group: ClassVar[str] = "trainer"
    #: the kind of unit that this is the gradient of
    forward_kind: ClassVar[type[Forward]]

    err_output = Input[Array]("batch *sample")

    def __init__(self, workflow: Workflow, forward: Forward, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        if not isinstance(forward, self.forward_kind):
            raise GraphError(
                f"unit {self.path!r}: {type(self).__name__} is the gradient of "
                f"{self.forward_kind.__name__}, and {forward.path!r} is {type(forward).__name__}"
            )
        self.forward = forward
        self.err_input: Array

    @property
    def needs_err_input(self) -> bool:
        """Whether any unit reads ``err_input``."""
        return self.is_read("err_input")

    def is_read(self, attribute: str) -> bool:
        """Return whether any unit of the whole workflow is linked to this attribute."""
        return any(
            link.source is self and link.attribute == attribute
            for unit in _all_units_around(self)
            for link in unit.data_links.values()
        )

    def initialize(self) -> None:
        """Check the shape of the error; declare ``err_input``."""
        if self.err_output.shape != self.forward.output.shape:
            raise ShapeError(
                f"unit {self.path!r}: err_output has shape {self.err_output.shape}, but the "
                f"output of {self.forward.path!r} has {self.forward.output.shape}"
            )
        if self.needs_err_input:
            self.err_input = self.declare(*self.forward.input.shape, life="readers")


def _all_units_around(unit: Unit) -> Iterator[Unit]:
    """Yield all units of the outermost workflow around ``unit``."""
    root = unit.workflow
    while not root.is_root:
        root = root.workflow
    return root.all_units()


class GradientUnit(Backward, Mover):
    """The gradient of a forward unit with parameters, and their update. An outline.

    It gives ``err_input`` and the gradients; then the parameters move. Gradient units that follow
    each other in the control graph, and of which no gate can stop one alone, move their parameters
    together in one launch, when the last of them has run. So all units of the backward pass see the
    parameters of the forward pass.

    Args:
        forward: the unit whose gradient this is.
        learning_rate: the rate of the weights, and of the bias unless it has its own; by default
            the solver's usual one.
        weights_decay: the weight of the regularization (Veles's default is not zero).
        gradient_moment: the momentum, also of the bias unless it has its own.
        l1_vs_l2: the share of L1 in the regularization.
        factor_ortho: the weight of the orthogonality of rows.
        learning_rate_bias, weights_decay_bias, gradient_moment_bias, l1_vs_l2_bias: the same for
            the bias.
        solver: what moves the weights, and the bias unless it has its own: a solver, or the name
            of one, such as ``Adam(beta1=0.8)`` or ``"adam"``; by default ``Momentum()``.
        solver_bias: what moves the bias.
        clip_value: the largest magnitude of an element of a gradient; 0 does not clip.
        clip_norm: the largest norm of all gradients that move together; 0 does not clip.
        max_norm: the largest norm of one neuron's weights after a step; 0 sets no limit.
        accumulate: how many minibatches there are to a step, which is by the mean of their
            gradients. They are counted over the ends of epochs.

    Attributes:
        weights_numbers, bias_numbers: the hyperparameters in use; they may be changed at any time.
        steps: how many steps the parameters have taken.
    """

    #: whether ``run`` and ``run_as_master`` call :meth:`update` once, at their end
    moves_at_once: ClassVar[bool] = True

    def __init__(
        self,
        workflow: Workflow,
        forward: Forward,
        *,
        learning_rate: float | None = None,
        weights_decay: float = 5e-5,
        gradient_moment: float = 0.0,
        l1_vs_l2: float = 0.0,
        factor_ortho: float = 0.0,
        learning_rate_bias: float | None = None,
        weights_decay_bias: float = 0.0,
        gradient_moment_bias: float | None = None,
        l1_vs_l2_bias: float = 0.0,
        solver: Solver | str = "momentum",
        solver_bias: Solver | str | None = None,
        clip_value: float = 0.0,
        clip_norm: float = 0.0,
        max_norm: float = 0.0,
        accumulate: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, forward, name=name)
        self.weights_solver = solver_of(solver)
        self.bias_solver = self.weights_solver if solver_bias is None else solver_of(solver_bias)
        if accumulate < 1:
            raise InputError(f"unit {self.path!r}: accumulate is {accumulate}; give at least 1")
        self.accumulate = accumulate
        rate, rate_bias = learning_rate, learning_rate_bias
        if rate_bias is None and (rate is not None or solver_bias is None):
            rate_bias = rate
        self.weights_numbers = Hyperparameters(
            self.weights_solver.learning_rate if rate is None else rate,
            gradient_moment,
            weights_decay,
            l1_vs_l2,
            factor_ortho,
            clip_value,
            clip_norm,
            max_norm,
        )
        self.bias_numbers = Hyperparameters(
            self.bias_solver.learning_rate if rate_bias is None else rate_bias,
            gradient_moment if gradient_moment_bias is None else gradient_moment_bias,
            weights_decay_bias,
            l1_vs_l2_bias,
            clip_value=clip_value,
            clip_norm=clip_norm,
        )
        self.steps = 0
        self._next: GradientUnit | None = None  #: who moves this unit's parameters with its own
        self._is_waiting = False  #: the gradients are there, and the parameters have not moved yet
        self._update: Update | None = None
        self._before: list[GradientUnit] = []
        self._completions: list[Launch] = []

    def is_bias(self, parameter: Parameter) -> bool:
        """Whether a parameter moves by the numbers and the solver of the bias."""
        return parameter is self.forward.bias

    def moved(self) -> list[Moved]:
        """Return the parameters that this unit's gradients move, and how."""
        return [
            Moved(one, self.bias_solver, self.bias_numbers, self)
            if self.is_bias(one)
            else Moved(one, self.weights_solver, self.weights_numbers, self)
            for one in self.forward.parameters()
        ]

    def initialize(self) -> None:
        """Declare ``err_input`` and what the solvers keep.

        Raises:
            InputError: a solver can do nothing with its numbers.
        """
        super().initialize()
        for one in self.moved():
            try:
                one.solver.check(one.numbers)
            except InputError as error:
                raise InputError(f"unit {self.path!r}: {error}") from None
        declare_slots(self.moved(), accumulate=self.accumulate)

    def _prepare_updates(self) -> None:
        """Bind the update, unless a unit that follows moves this one's parameters as well."""
        self._parameters = self.service(Parameters)
        self._completions = [*complete_gradients(self.device, self.forward.parameters())]
        self._next = _moves_with(self)
        if self._next is not None:
            return
        self._before = _all_before(self)
        self._update = self._bind_update(self._parameters)

    def _bind_update(self, parameters: Parameters) -> Update:
        found = {id(m.parameter): m for unit in (*self._before, self) for m in unit.moved()}
        moved = [replace(m, parameter=parameters[m.parameter.name]) for m in found.values()]
        return Update(parameters, moved, accumulate=self.accumulate)

    def move_on(self, parameters: Parameters) -> None:
        """Bind the update anew; what was gathered for a step is kept in the parameters' slots."""
        if self._update is not None:
            gathered = self._update.gathered
            self._update = self._bind_update(parameters)
            self._update.gathered = gathered

    @abstractmethod
    def backpropagate(self) -> None:
        """Compute the gradients of the parameters, and ``err_input`` if it is read."""

    def run(self) -> None:
        """Compute the gradients and move the parameters."""
        self.run_as_slave()
        self.update()

    def run_as_slave(self) -> None:
        """Compute the gradients; the master moves the parameters, or a slave its own."""
        self.backpropagate()
        if self.settings.local:
            self.update()
            return
        for launch in self._completions:
            launch()
        self._parameters.completed(self.forward.parameters())

    def run_as_master(self) -> None:
        """Move the parameters by the gradients that came from slaves, unless those move theirs."""
        farm = self.service(Farm)
        if not farm.is_local and not farm.has_moved:
            self.update()

    def go_to(self, steps: int, minibatches: int) -> None:
        """Count from there: Adam and others of its kind look at the number of the step."""
        self.steps = steps

    def factors(self) -> Mapping[str, tuple[Array, Array]]:
        """Return u (batch, rows) and v (batch, columns) of gradients that are u^T v, by name."""
        return {}

    @property
    def is_steady(self) -> bool:
        """Whether it only moves parameters."""
        return type(self).run_as_master is GradientUnit.run_as_master

    def make_step(self) -> Payload:
        """Return the hyperparameters, which may have been changed, and what checkpoints keep."""
        weights, bias = ([*vars(one).values()] for one in (self.weights_numbers, self.bias_numbers))
        return {**self.state(), "weights": weights, "bias": bias}

    def take_step(self, payload: Payload) -> None:
        """Take them."""
        step = cast("dict[str, Any]", dict(payload))
        for numbers, name in ((self.weights_numbers, "weights"), (self.bias_numbers, "bias")):
            for field, value in zip(fields(numbers), step.pop(name), strict=True):
                setattr(numbers, field.name, value)
        self.restore(step)

    def update(self) -> None:
        """Move the parameters, together with those of the units before that wait for it.

        Raises:
            GraphError: a gate or a link was changed so that a unit was left waiting.
        """
        if self._next is not None:
            if self._is_waiting:
                raise self._left_waiting(self, self._next)
            self._is_waiting = True
            return
        for unit in self._before:
            if not unit._is_waiting:
                raise self._left_waiting(unit, self)
            unit._is_waiting = False
        if self._update is not None:
            self._update()

    @staticmethod
    def _left_waiting(unit: GradientUnit, last: GradientUnit) -> GraphError:
        return GraphError(
            f"units {unit.path!r} and {last.path!r} were to move their parameters together, and "
            "one of them ran alone; give them gates of their own before the run, not during it"
        )

    # -- checkpoints --------------------------------------------------------------------------

    def state(self) -> Mapping[str, object]:
        """Return the number of steps, of minibatches since the last, and what scales the rates."""
        gathered = 0 if self._update is None else self._update.gathered
        scales = [self.weights_numbers.scale, self.bias_numbers.scale]
        return {"steps": self.steps, "gathered": gathered, "scales": scales}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take them back."""
        saved = cast("dict[str, Any]", state)
        self.steps = saved["steps"]
        if self._update is not None:
            self._update.gathered = saved["gathered"]
        self.weights_numbers.scale, self.bias_numbers.scale = saved["scales"]


def _moves_with(unit: GradientUnit) -> GradientUnit | None:
    """Return the gradient unit that runs whenever ``unit`` has run, before anything else looks.

    Between them there may be units of the backward pass that only pass errors on.
    """
    graph, here = unit.workflow.graph, cast("Unit", unit)
    while True:
        followers = list(graph.successors(here))
        if len(followers) != 1 or graph.in_degree(followers[0]) != 1:
            return None
        here = followers[0]
        is_on_the_way_back = isinstance(here, DeviceUnit) and here.group == Backward.group
        if not is_on_the_way_back or not here.runs_after(unit):
            return None
        if isinstance(here, GradientUnit):
            is_alike = here.accumulate == unit.accumulate and here.moves_at_once
            return here if is_alike and unit.moves_at_once else None


def _all_before(last: GradientUnit) -> list[GradientUnit]:
    """Return the gradient units whose parameters move with those of ``last``, the first first."""
    others = [one for one in last.workflow if isinstance(one, GradientUnit) and one is not last]
    followers = {one: _moves_with(one) for one in others}
    chain: list[GradientUnit] = []
    here: GradientUnit | None = last
    while here is not None:
        here = next((one for one, after in followers.items() if after is here), None)
        if here is not None:
            chain.insert(0, here)
    return chain


def complete_gradients(device: Device, parameters: Sequence[Parameter]) -> Iterator[Launch]:
    """Bind what adds the gradients of those that parameters are lent to, in order, and masks."""
    for parameter in parameters:
        arrays = {"g": parameter.gradient}
        arrays.update({f"g{number}": one for number, one in enumerate(parameter.lent)})
        formula = reduce(add, map(element, arrays))
        if parameter.mask is not None:
            arrays["mask"] = parameter.mask
            formula = formula * element("mask")
        if len(arrays) > 1:
            yield device.elementwise({"g": formula}, arrays)


class LayerGradient(GradientUnit):
    """The gradient of a layer with an activation y = f(s). An outline.

    It makes d = err_output * f'(s), the gradient by the sums s; f' is written from y where it can
    be, and otherwise from s, which the forward unit has kept as ``sums``.
    """

    def initialize(self) -> None:
        """Declare ``err_input``, what the solvers keep and, unless f' is 1, d."""
        super().initialize()
        self._delta: Array | None = None
        if self._needs_delta():
            self._delta = self.declare(*self.forward.output.shape, life="run")

    def _needs_delta(self) -> bool:
        """Whether d differs from ``err_output`` and must be in memory."""
        return not self.forward.activation.is_linear

    def _bind_delta(self) -> tuple[Array, list[Launch]]:
        """Return d, and what computes it."""
        if self._delta is None:
            return self.err_output, []
        arrays = {"err": self.err_output, "y": self.forward.output, "d": self._delta}
        if self.forward.sums is not None:
            arrays["x"] = self.forward.sums
        formula = self.forward.activation.gradient
        return self._delta, [self.device.elementwise({"d": formula}, arrays)]
