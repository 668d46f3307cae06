"""Activation functions and their derivatives, as formulas that every device fuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from veloflow.devices.expressions import (
    Expression,
    absolute,
    element,
    exp,
    log1p,
    maximum,
    tanh,
    where,
)

__all__ = ["LINEAR", "RELU", "SIGMOID", "SOFTPLUS", "TANH", "Activation"]


@dataclass(frozen=True)
class Activation:
    """A function y = f(x) of one element, with f'(x) written in terms of y.

    Attributes:
        name: the field's name.
        forward: the formula of f, from x; None for the identity.
        derivative: the formula of f', from y; None for 1.
        gain: the constant C of Veles's fillings, sqrt(C / (inputs + outputs)).
    """

    name: str
    forward: Callable[[Expression], Expression] | None
    derivative: Callable[[Expression], Expression] | None
    gain: float = 10.0

    @property
    def formula(self) -> Expression | None:
        """The formula of ``element("x")`` for a fused write-out, None for the identity."""
        return None if self.forward is None else self.forward(element("x"))


def _sigmoid(x: Expression) -> Expression:
    # both branches only ever take exp of what is not positive, so nothing overflows
    small = exp(-absolute(x))
    return where(x >= 0, 1 / (1 + small), small / (1 + small))


LINEAR = Activation("linear", None, None)

#: LeCun's scaled tanh (Efficient BackProp, 1998): y = 1.7159 tanh(0.6666 x)
TANH = Activation(
    "tanh",
    lambda x: 1.7159 * tanh(0.6666 * x),
    # f' = 1.7159 * 0.6666 - (0.6666 / 1.7159) y^2, with Veles's rounding of the constants
    lambda y: 1.14381894 - 0.388484177 * y * y,
    gain=9.0,
)

#: y = log(1 + e^x); what Veles called "relu"
SOFTPLUS = Activation(
    "softplus",
    lambda x: maximum(x, 0.0) + log1p(exp(-absolute(x))),
    lambda y: 1 - exp(-y),
)

#: y = max(0, x); what Veles called "strict relu"
RELU = Activation("relu", lambda x: maximum(x, 0.0), lambda y: y > 0)

SIGMOID = Activation("sigmoid", _sigmoid, lambda y: y * (1 - y), gain=1.0)
