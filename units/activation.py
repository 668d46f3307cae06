"""Activation functions and their derivatives, as formulas that every device fuses.

The derivative is written from y = f(x) where it can be, for then x need not be kept; otherwise from
x. Names are the field's; what Veles called "relu" is ``softplus``, and its "str" is ``relu``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from veloflow.devices.expressions import (
    Const,
    Expression,
    absolute,
    cos,
    element,
    exp,
    floor,
    index,
    log,
    log1p,
    maximum,
    sign,
    sin,
    sqrt,
    tanh,
    where,
)
from veloflow.errors import InputError, nearest

__all__ = [
    "ACTIVATIONS",
    "GELU",
    "GELU_TANH",
    "LEAKY_RELU",
    "LINEAR",
    "LOG",
    "RELU",
    "SIGMOID",
    "SILU",
    "SINCOS",
    "SOFTPLUS",
    "TANH",
    "TANHLOG",
    "Activation",
    "activation_of",
    "leaky_relu",
]


@dataclass(frozen=True)
class Activation:
    """A function y = f(x) of one element, with f' written in terms of y or of x.

    Attributes:
        name: the field's name.
        forward: the formula of f, from x; None for the identity.
        derivative: the formula of f', from y; None for 1, or where it needs x.
        gain: the constant C of Veles's fillings, sqrt(C / (inputs + outputs)).
        derivative_of_input: the formula of f', from x; None where y is enough.
    """

    name: str
    forward: Callable[[Expression], Expression] | None
    derivative: Callable[[Expression], Expression] | None
    gain: float = 10.0
    derivative_of_input: Callable[[Expression], Expression] | None = None

    @property
    def formula(self) -> Expression | None:
        """The formula of ``element("x")`` for a fused write-out, None for the identity."""
        return None if self.forward is None else self.forward(element("x"))

    @property
    def is_linear(self) -> bool:
        """Whether y is x."""
        return self.forward is None

    @property
    def needs_input(self) -> bool:
        """Whether f' is written from x, which must be kept."""
        return self.derivative_of_input is not None

    @property
    def gradient(self) -> Expression:
        """The formula of dL/dx: ``element("err")`` times f' of ``element("y")`` or of "x"."""
        err = element("err")
        if self.derivative_of_input is not None:
            return err * self.derivative_of_input(element("x"))
        return err if self.derivative is None else err * self.derivative(element("y"))


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


def leaky_relu(slope: float = 0.01) -> Activation:
    """Return y = x for x > 0, else slope * x (Maas et al., 2013).

    Raises:
        InputError: the slope is not above 0, so that y would not tell which side x was on.
    """
    if not slope > 0:
        raise InputError(f"the slope of leaky_relu is {slope}; give a number above 0, or use relu")
    return Activation(
        f"leaky_relu({slope})",
        lambda x: where(x > 0, x, slope * x),
        lambda y: where(y > 0, 1.0, slope),
    )


LEAKY_RELU = leaky_relu()

#: log(erfc(z) / t) + z^2 with t = 1 / (1 + z / 2), as a polynomial in u = _SCALE t - _SHIFT: the
#: Chebyshev interpolation of degree 20 for z in [0, 28], computed for this file with 50 digits;
#: so erfc has a relative error below 4e-14
_ERFC = (
    -0.6267548660108485, 0.6330982682945181, 0.0328648593572428, -0.03994232445356273,
    -0.005189062811239786, 0.006592904473822058, 0.000437799154857148, -0.00143161099705895,
    0.00013327122651832373, 0.0003083217870720104, -9.959600729119515e-05, -5.1350355085929465e-05,
    3.808252761351889e-05, 2.288041035562302e-06, -1.0086974703045362e-05, 2.212604697239785e-06,
    1.7469190712473425e-06, -8.26761357494915e-07, -1.4016876800382025e-07, 1.1409369344312009e-07,
    -3.940211587576415e-09,
)  # fmt: skip
_SCALE, _SHIFT = 15 / 7, 8 / 7


def _normal_cdf(x: Expression) -> Expression:
    """Return the share of the normal distribution below x: erfc(-x / sqrt(2)) / 2."""
    z = absolute(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.5 * z)
    u = _SCALE * t - _SHIFT
    polynomial = reduce(lambda sum_, c: sum_ * u + c, _ERFC[-2::-1], Const(_ERFC[-1]) + 0.0 * u)
    tail = 0.5 * t * exp(polynomial - z * z)
    return where(x > 0, 1 - tail, tail)


def _gelu_tanh_inner(x: Expression) -> Expression:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _gelu_tanh_slope(x: Expression) -> Expression:
    t = tanh(_gelu_tanh_inner(x))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


#: y = x P(X < x) for a normal X, with the exact erf (Hendrycks, Gimpel, 2016)
GELU = Activation(
    "gelu",
    lambda x: x * _normal_cdf(x),
    None,
    derivative_of_input=lambda x: (
        _normal_cdf(x) + x * exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    ),
)

#: the same with the approximation y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
GELU_TANH = Activation(
    "gelu_tanh",
    lambda x: 0.5 * x * (1 + tanh(_gelu_tanh_inner(x))),
    None,
    derivative_of_input=_gelu_tanh_slope,
)

#: y = x / (1 + e^-x), also called swish (Elfwing et al., 2017)
SILU = Activation(
    "silu",
    lambda x: x * _sigmoid(x),
    None,
    derivative_of_input=lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
)

#: y = log(x + sqrt(x^2 + 1)), the inverse of sinh; f' = 1 / cosh y
LOG = Activation(
    "log",
    # from |x|, for x + sqrt(x^2 + 1) loses all digits where x is negative and large
    lambda x: sign(x) * log(absolute(x) + sqrt(x * x + 1)),
    lambda y: 2 * exp(-absolute(y)) / (1 + exp(-2 * absolute(y))),
)

_BEND, _A, _B = 3.0, 0.242528761112, 305.459953195
_BEND_Y = 1.7159 * math.tanh(0.6666 * _BEND)

#: LeCun's tanh up to |x| = 3, then a log(b |x|) with the sign of x: it never saturates (Veles)
TANHLOG = Activation(
    "tanhlog",
    lambda x: where(
        absolute(x) <= _BEND,
        1.7159 * tanh(0.6666 * x),
        sign(x) * _A * log(_B * maximum(absolute(x), _BEND)),
    ),
    # beyond the bend f' = a / |x| with |x| = e^(|y| / a) / b
    lambda y: where(
        absolute(y) <= _BEND_Y,
        1.14381894 - 0.388484177 * y * y,
        _A * _B * exp(maximum(absolute(y), _BEND_Y) * (-1 / _A)),
    ),
    gain=9.0,
)


def _is_odd() -> Expression:
    """Return 1 in odd columns of (first, all the rest), else 0."""
    return index(1) - 2 * floor(index(1) * 0.5)


#: y = sin x for every other value of a sample, from the second on, and cos x for the rest (Veles)
SINCOS = Activation(
    "sincos",
    lambda x: where(_is_odd(), sin(x), cos(x)),
    None,
    derivative_of_input=lambda x: where(_is_odd(), cos(x), -sin(x)),
)

#: by name, for layers that are told which
ACTIVATIONS: dict[str, Activation] = {
    one.name: one
    for one in (
        *(LINEAR, TANH, SIGMOID, SOFTPLUS, RELU, GELU, GELU_TANH, SILU, LOG, TANHLOG, SINCOS),
    )
} | {"leaky_relu": LEAKY_RELU}


def activation_of(given: str | Activation, what: str) -> Activation:
    """Return an activation, given itself or its name; ``leaky_relu(0.2)`` has its slope in it.

    Raises:
        InputError: there is none of this name; the message begins with ``what``.
    """
    if isinstance(given, Activation):
        return given
    with_slope = re.fullmatch(r"leaky_relu\((.+)\)", given)
    if with_slope is not None:
        try:
            return leaky_relu(float(with_slope[1]))
        except ValueError:
            raise InputError(f"{what}: {given!r} has no number for its slope") from None
    if given not in ACTIVATIONS:
        raise InputError(
            f"{what} has no activation {given!r}{nearest(given, ACTIVATIONS)}; there are: "
            f"{', '.join(sorted(ACTIVATIONS))}"
        )
    return ACTIVATIONS[given]
