"""What all gradient units share: errors going back, and the update of weights with their rates.

For each parameter w with gradient g (a mean over the minibatch), as in Veles:

    g += decay * ((1 - l1) * w + 0.5 * l1 * sign(w))          L1 and L2
    g += ortho / rows * (column sums of w - w)                 orthogonality of the rows
    v  = moment * v - rate * g                                 Polyak's momentum, rate inside
    w += v

The rate is inside the velocity: where it changes from step to step, what is kept of earlier steps
was made with the earlier rate. (In torch.optim.SGD the velocity is free of the rate; for a
constant rate both give the same weights.)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, ClassVar

from veloflow.core import Input, Workflow
from veloflow.devices import Array
from veloflow.devices.expressions import element, scalar, sign
from veloflow.errors import GraphError, InputError, ShapeError
from veloflow.units.device_unit import DeviceUnit

if TYPE_CHECKING:
    from veloflow.core import Unit
    from veloflow.devices import Device, Launch
    from veloflow.devices.parameters import Parameter
    from veloflow.units.forward import Forward

__all__ = ["Backward", "GradientUnit", "Hyperparameters", "LayerGradient", "Momentum"]


@dataclass
class Hyperparameters:
    """The numbers of one parameter's update. They may change between runs of the unit.

    Attributes:
        rate: the learning rate.
        moment: the share of the last step that is kept.
        decay: the weight of the regularization.
        l1: its share of L1, the rest being L2, in [0, 1].
        ortho: the weight of the orthogonality term; 0 switches it off for good.
    """

    rate: float = 0.01
    moment: float = 0.0
    decay: float = 0.0
    l1: float = 0.0
    ortho: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) and number >= 0 for number in astuple(self)):
            raise InputError(f"{self} must have finite numbers, none below 0")
        if self.l1 > 1 or self.moment > 1:
            raise InputError(f"{self} must have l1 and moment in [0, 1]")


class Momentum:
    """The update of one parameter by gradient descent with momentum (the formula at the top)."""

    def __init__(self, device: Device, parameter: Parameter, numbers: Hyperparameters) -> None:
        self._numbers = numbers
        w, g, v = element("w"), element("g"), element("v")
        rate, moment = scalar("rate"), scalar("moment")
        decay, l1 = scalar("decay"), scalar("l1")
        arrays = {
            "w": parameter.value,
            "g": parameter.gradient,
            "v": parameter.slot("velocity"),
        }
        pull = g + decay * ((1 - l1) * w + 0.5 * l1 * sign(w))
        self._sum: Launch | None = None
        if numbers.ortho:
            rows = parameter.shape[0]
            sums = device.zeros((1, *parameter.shape[1:]), parameter.value.dtype)
            self._sum = device.reduce("sum", w, {"w": parameter.value}, sums, axis=0)
            arrays["sums"] = sums
            pull = pull + scalar("ortho") * ((element("sums") - w) * (1 / rows))
        velocity = moment * v - rate * pull
        self._update = device.elementwise({"w": w + velocity, "v": velocity}, arrays)

    def __call__(self) -> None:
        """Take one step."""
        numbers = self._numbers
        scalars = {
            "rate": numbers.rate,
            "moment": numbers.moment,
            "decay": numbers.decay,
            "l1": numbers.l1,
        }
        if self._sum is not None:
            self._sum()
            scalars["ortho"] = numbers.ortho
        self._update(**scalars)


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
            self.err_input = self.declare(*self.forward.input.shape)


def _all_units_around(unit: Unit) -> Iterator[Unit]:
    """Yield all units of the outermost workflow around ``unit``."""
    root = unit.workflow
    while not root.is_root:
        root = root.workflow
    return root.all_units()


class GradientUnit(Backward):
    """The gradient of a forward unit with parameters, and their update. An outline.

    It gives ``err_input`` first and then moves the parameters; so units that run later in the
    backward pass see the gradient at the parameters of the forward pass.

    Args:
        forward: the unit whose gradient this is.
        learning_rate: the rate of the weights, and of the bias unless it has its own.
        weights_decay: the weight of the regularization (Veles's default is not zero).
        gradient_moment: the momentum, also of the bias unless it has its own.
        l1_vs_l2: the share of L1 in the regularization.
        factor_ortho: the weight of the orthogonality of rows.
        learning_rate_bias, weights_decay_bias, gradient_moment_bias, l1_vs_l2_bias: the same for
            the bias.

    Attributes:
        weights_numbers, bias_numbers: the hyperparameters in use; they may be changed at any time.
    """

    def __init__(
        self,
        workflow: Workflow,
        forward: Forward,
        *,
        learning_rate: float = 0.01,
        weights_decay: float = 5e-5,
        gradient_moment: float = 0.0,
        l1_vs_l2: float = 0.0,
        factor_ortho: float = 0.0,
        learning_rate_bias: float | None = None,
        weights_decay_bias: float = 0.0,
        gradient_moment_bias: float | None = None,
        l1_vs_l2_bias: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, forward, name=name)
        self.weights_numbers = Hyperparameters(
            learning_rate, gradient_moment, weights_decay, l1_vs_l2, factor_ortho
        )
        self.bias_numbers = Hyperparameters(
            learning_rate if learning_rate_bias is None else learning_rate_bias,
            gradient_moment if gradient_moment_bias is None else gradient_moment_bias,
            weights_decay_bias,
            l1_vs_l2_bias,
        )
        self._updates: list[Momentum] = []

    def _numbers_of(self, parameter: Parameter) -> Hyperparameters:
        return self.bias_numbers if parameter is self.forward.bias else self.weights_numbers

    def initialize(self) -> None:
        """Declare ``err_input`` and the velocities."""
        super().initialize()
        for parameter in self.forward.parameters():
            parameter.slot("velocity")

    def _prepare_updates(self) -> None:
        self._updates = [
            Momentum(self.device, parameter, self._numbers_of(parameter))
            for parameter in self.forward.parameters()
        ]

    @abstractmethod
    def backpropagate(self) -> None:
        """Compute the gradients of the parameters, and ``err_input`` if it is read."""

    def run(self) -> None:
        """Compute the gradients and move the parameters."""
        self.backpropagate()
        self.update()

    def run_as_slave(self) -> None:
        """Compute the gradients: the master moves the parameters."""
        self.backpropagate()

    def run_as_master(self) -> None:
        """Move the parameters by the gradients that came from slaves."""
        self.update()

    def update(self) -> None:
        """Move the parameters."""
        for update in self._updates:
            update()


class LayerGradient(GradientUnit):
    """The gradient of a layer with an activation y = f(s). An outline.

    It makes d = err_output * f'(s), the gradient by the sums s; f' is written from y where it can
    be, and otherwise from s, which the forward unit has kept as ``sums``.
    """

    def initialize(self) -> None:
        """Declare ``err_input``, the velocities and, unless f' is 1, d."""
        super().initialize()
        self._delta: Array | None = None
        if not self.forward.activation.is_linear:
            self._delta = self.declare(*self.forward.output.shape)

    def _bind_delta(self) -> tuple[Array, list[Launch]]:
        """Return d, and what computes it."""
        if self._delta is None:
            return self.err_output, []
        arrays = {"err": self.err_output, "y": self.forward.output, "d": self._delta}
        if self.forward.sums is not None:
            arrays["x"] = self.forward.sums
        formula = self.forward.activation.gradient
        return self._delta, [self.device.elementwise({"d": formula}, arrays)]
