"""Activations that stand alone, between other layers, and their gradients.

Shapes: x and y are (batch, ...), of one shape. The formulas stand in units/activation.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast, final

from veloflow.devices.expressions import absolute, element, scalar
from veloflow.errors import InputError
from veloflow.units.activation import Activation, activation_of
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer

if TYPE_CHECKING:
    from veloflow.core import Part, Payload, Workflow
    from veloflow.devices import Array, Launch

__all__ = ["Activate", "GDActivate", "GDMul", "Mul", "activation", "mul"]


@final
class Activate(Forward):
    """y = f(x), element by element.

    Args:
        activation: f, one of :data:`~veloflow.units.activation.ACTIVATIONS` or its name.
    """

    def __init__(
        self, workflow: Workflow, activation: str | Activation, *, name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        self.activation = activation_of(activation, f"unit {self.path!r}")
        self._launch: Launch

    def initialize(self) -> None:
        """Declare the output."""
        self.output = self.declare(*self.input.shape)

    def prepare(self) -> None:
        """Bind the formula."""
        formula = self.activation.formula
        arrays = {"x": self.input, "y": self.output}
        self._launch = self.device.elementwise({"y": formula or element("x")}, arrays)

    def run(self) -> None:
        """Compute ``output``."""
        self._launch()


@final
class GDActivate(Backward):
    """The gradient of :class:`Activate`: dL/dx = dL/dy f'(x)."""

    forward: Activate
    forward_kind: ClassVar[type[Forward]] = Activate

    def prepare(self) -> None:
        """Bind the formula, when anybody reads ``err_input``."""
        self._launch: Launch | None = None
        if self.needs_err_input:
            forward = self.forward
            arrays = {"err": self.err_output, "x": forward.input, "y": forward.output}
            self._launch = self.device.elementwise(
                {"target": forward.activation.gradient}, {**arrays, "target": self.err_input}
            )

    def run(self) -> None:
        """Compute ``err_input``."""
        if self._launch is not None:
            self._launch()


@final
class Mul(Forward):
    """y = factor * x. Without a factor it takes one from the first minibatch that it sees.

    That one is 0.75 / max |x|, as in Veles: with it, values lie where a tanh is not yet flat. With
    slaves each uses its own for the parts of the first minibatch, and the least of them is the
    factor from then on; so in sync mode it does not depend on the number of slaves.

    Args:
        factor: None to take it from the data.

    Attributes:
        factor: the one in use; None before it is known.
    """

    def __init__(
        self, workflow: Workflow, factor: float | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(workflow, name=name)
        self.factor = factor
        self._largest: Array
        self._measure: Launch
        self._launch: Launch

    def initialize(self) -> None:
        """Declare the output."""
        self.output = self.declare(*self.input.shape)
        self._largest = self.declare(1)

    def prepare(self) -> None:
        """Bind product and maximum."""
        self._launch = self.bind_product(self.input, self.output)
        self._measure = self.device.reduce(
            "max", absolute(element("x")), {"x": self.input}, self._largest, axis=None
        )

    def bind_product(self, source: Array, target: Array) -> Launch:
        """Bind target = factor * source, the factor being given at the launch."""
        formula = scalar("factor") * element("source")
        return self.device.elementwise({"target": formula}, {"source": source, "target": target})

    def known_factor(self) -> float:
        """Return the factor.

        Raises:
            InputError: it is not known yet.
        """
        if self.factor is None:
            raise InputError(f"unit {self.path!r} has no factor yet: it has not run")
        return self.factor

    def run(self) -> None:
        """Compute ``output``."""
        if self.factor is None:
            self._measure()
            largest = float(self._largest.read()[0])
            self.factor = 0.75 / largest if largest > 0 else 1.0
        self._launch(factor=self.factor)

    def state(self) -> Mapping[str, object]:
        """Return the factor."""
        return {} if self.factor is None else {"factor": self.factor}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the factor back."""
        self.factor = cast("float", state["factor"])

    # -- with slaves --------------------------------------------------------------------------

    def make_job(self, part: Part) -> Payload:
        """Return the factor, once it is known."""
        return self.state()

    def take_job(self, payload: Payload) -> None:
        """Take the master's factor; without one the slave finds its own for this part."""
        self.factor = cast("float | None", payload.get("factor"))

    def make_update(self) -> Payload:
        """Return the factor that was used; 0 before the first."""
        return {"factor": self.factor or 0.0}

    def apply_update(self, updates: Sequence[Payload]) -> None:
        """Take the least factor, unless one is known."""
        if self.factor is None:
            self.factor = min(cast("float", one["factor"]) for one in updates)


@final
class GDMul(Backward):
    """The gradient of :class:`Mul`: dL/dx = factor * dL/dy."""

    forward: Mul
    forward_kind: ClassVar[type[Forward]] = Mul

    def prepare(self) -> None:
        """Bind the product, when anybody reads ``err_input``."""
        self._launch: Launch | None = None
        if self.needs_err_input:
            self._launch = self.forward.bind_product(self.err_output, self.err_input)

    def run(self) -> None:
        """Compute ``err_input``."""
        if self._launch is not None:
            self._launch(factor=self.forward.known_factor())


# -- the short form --------------------------------------------------------------------------------


def activation(kind: str | Activation, *, name: str | None = None) -> Layer:
    """Return a layer that is an activation alone, given or by name, such as "gelu"."""
    text = f"activation({getattr(kind, 'name', kind)!r})"
    kind = activation_of(kind, f"layer {text}")
    return Layer(text, partial(Activate, activation=kind, name=name), GDActivate)


def mul(factor: float | None = None, *, name: str | None = None) -> Layer:
    """Return a layer that multiplies by a factor, by default one taken from the first minibatch."""
    return Layer(f"mul({factor})", partial(Mul, factor=factor, name=name), GDMul)
