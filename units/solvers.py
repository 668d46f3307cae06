"""Solvers: how a parameter moves along its gradient; momentum, Adam and the others.

A solver is a set of formulas over one element w of a parameter, its gradient g (a mean over the
minibatch) and what the solver keeps beside it, its slots. :mod:`veloflow.units.update` runs them
over whole stretches of the flat array of parameters. Before a solver sees g, it becomes

    g *= min(1, clip_norm / |all gradients that move together|)     clipping by norm
    g  = min(max(g, -clip_value), clip_value)                      clipping by value
    g += decay * ((1 - l1) * w + 0.5 * l1 * sign(w))               L2 and L1, as in Veles

AdamW takes the last line from w itself, times its rate, and not from g.

Where torch.optim has a solver of the same name, both go the same way for the same numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, final

from veloflow.devices.expressions import (
    Expression,
    element,
    maximum,
    minimum,
    sign,
    sqrt,
    where,
)
from veloflow.errors import InputError, nearest

__all__ = [
    "SOLVERS",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Hyperparameters",
    "Momentum",
    "Nesterov",
    "RMSprop",
    "Rprop",
    "Solver",
    "Terms",
    "solver_of",
    "update_formulas",
]

#: what users call these numbers
_SAID = {
    "rate": "learning_rate",
    "moment": "gradient_moment",
    "decay": "weights_decay",
    "l1": "l1_vs_l2",
    "ortho": "factor_ortho",
}


@dataclass
class Hyperparameters:
    """The numbers of one parameter's update. They may change between runs of the unit.

    Attributes:
        rate: the learning rate.
        moment: the share of the last step that is kept.
        decay: the weight of the regularization.
        l1: its share of L1, the rest being L2, in [0, 1].
        ortho: the weight of the orthogonality term; 0 switches it off for good.
        clip_value: the largest magnitude of an element of the gradient; 0 does not clip.
        clip_norm: the largest norm of all gradients that move together; 0 does not clip.
        max_norm: the largest norm of one neuron's weights after a step; 0 switches it off for good.
        scale: what the rate is multiplied by; rollback and plateaus set it.
    """

    rate: float = 0.01
    moment: float = 0.0
    decay: float = 0.0
    l1: float = 0.0
    ortho: float = 0.0
    clip_value: float = 0.0
    clip_norm: float = 0.0
    max_norm: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for one in fields(self):
            number, name = getattr(self, one.name), _SAID.get(one.name, one.name)
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"{name} is {number}; give a finite number, not below 0")
            if one.name in ("l1", "moment") and number > 1:
                raise InputError(f"{name} is {number}; give one in [0, 1]")

    def coefficients(self) -> dict[str, float]:
        """Return the numbers that formulas use, as they enter there."""
        return {
            "rate": self.rate * self.scale,
            "moment": self.moment,
            "l2": self.decay * (1 - self.l1),
            "l1": self.decay * self.l1 * 0.5,
            "clip_value": self.clip_value or math.inf,
            "clip_norm": self.clip_norm or math.inf,
        }


#: what a coefficient is where it has no effect; elsewhere 0
_IDLE = {"clip_value": math.inf, "clip_norm": math.inf}


class Terms:
    """The coefficients of an update as expressions, and which terms have any effect.

    Args:
        expression: gives the expression of a coefficient.
        active: the coefficients that have an effect on one parameter at least.
    """

    def __init__(self, expression: Callable[[str], Expression], active: frozenset[str]) -> None:
        self._expression = expression
        self._active = active

    def __getitem__(self, name: str) -> Expression:
        return self._expression(name)

    def __contains__(self, name: str) -> bool:
        return name in self._active

    @staticmethod
    def has_effect(name: str, value: float) -> bool:
        """Whether a coefficient of this value changes anything."""
        return value != _IDLE.get(name, 0.0)


class Solver(ABC):
    """How a parameter moves. An outline; the finished ones are frozen dataclasses.

    Its numbers are arguments of its own; rate, momentum and regularization are those of the
    gradient unit. Two solvers of one ``form`` differ in numbers only and share a kernel.

    Attributes:
        learning_rate: the rate, where the gradient unit is given none.
        uses_moment: whether ``gradient_moment`` has a meaning.
        is_decoupled: whether the regularization pulls at the parameter, not at its gradient.
        is_stepwise: whether :meth:`at_step` gives anything.
    """

    learning_rate: ClassVar[float] = 0.01
    uses_moment: ClassVar[bool] = False
    is_decoupled: ClassVar[bool] = False
    is_stepwise: ClassVar[bool] = False

    @property
    def form(self) -> tuple[object, ...]:
        """What the formulas depend on."""
        return (type(self),)

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """The names of the arrays that are kept beside the parameter; they begin with zeros."""

    @abstractmethod
    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new values of ``w`` and of slots, by name."""

    def coefficients(self, numbers: Hyperparameters) -> dict[str, float]:
        """Return the numbers of the formulas."""
        return {**numbers.coefficients(), **self.own_coefficients()}

    def own_coefficients(self) -> dict[str, float]:
        """Return the solver's own numbers."""
        return {}

    def at_step(self, step: int) -> dict[str, float]:
        """Return the numbers that depend on how many steps there were, this one included."""
        return {}

    def check(self, numbers: Hyperparameters) -> None:
        """Refuse numbers that have no meaning here.

        Raises:
            InputError: there is a momentum, and the solver has none.
        """
        if numbers.moment and not self.uses_moment:
            raise InputError(
                f"{type(self).__name__} has no gradient_moment, and it is {numbers.moment}; give 0"
            )


def _demand(solver: Solver, low: float, high: float, **numbers: float) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and low <= number < high):
            limits = f"in [{low:g}, {high:g})" if math.isfinite(high) else f"at least {low:g}"
            raise InputError(f"{type(solver).__name__}: {name} is {number}; give one {limits}")


@final
@dataclass(frozen=True)
class Momentum(Solver):
    """Gradient descent with Polyak's momentum: v = moment * v - rate * g, w += v.

    As in Veles the rate is inside the velocity: where it changes from step to step, what is kept of
    earlier steps was made with the earlier rate. (In torch.optim.SGD the velocity is free of the
    rate; for a constant rate both give the same weights.) Without momentum there is no velocity.

    Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).
    """

    uses_moment = True

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity."""
        return ("velocity",)

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter and, with momentum, velocity."""
        if "moment" not in terms:
            return {"w": element("w") - terms["rate"] * g}
        velocity = terms["moment"] * element("velocity") - terms["rate"] * g
        return {"w": element("w") + velocity, "velocity": velocity}


@final
@dataclass(frozen=True)
class Nesterov(Solver):
    """Nesterov's momentum: v = moment * v - rate * g, w += moment * v - rate * g.

    As in torch.optim.SGD (nesterov=True) for a constant rate; see :class:`Momentum`.

    Sutskever, Martens et al., "On the importance of initialization and momentum" (2013).
    """

    uses_moment = True

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity."""
        return ("velocity",)

    def check(self, numbers: Hyperparameters) -> None:
        """Refuse to do without momentum."""
        if not numbers.moment:
            raise InputError("Nesterov is nothing without gradient_moment; give it, such as 0.9")

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter and velocity."""
        step = terms["rate"] * g
        velocity = terms["moment"] * element("velocity") - step
        return {"w": element("w") + (terms["moment"] * velocity - step), "velocity": velocity}


@final
@dataclass(frozen=True)
class AdaGrad(Solver):
    """s += g^2, w -= rate / (1 + (t - 1) * rate_decay) * g / (sqrt(s) + eps).

    Duchi, Hazan and Singer, "Adaptive subgradient methods" (2011); as torch.optim.Adagrad.

    Args:
        rate_decay: how the rate falls with the number t of steps.
        initial: what s begins with.
        eps: keeps the quotient finite.
    """

    rate_decay: float = 0.0
    initial: float = 0.0
    eps: float = 1e-10

    is_stepwise = True

    def __post_init__(self) -> None:
        _demand(self, 0, math.inf, rate_decay=self.rate_decay, initial=self.initial, eps=self.eps)

    @property
    def slots(self) -> tuple[str, ...]:
        """The sum of squares, without what it begins with."""
        return ("squares",)

    def own_coefficients(self) -> dict[str, float]:
        """Return eps and what the sum begins with."""
        return {"initial": self.initial, "eps": self.eps}

    def at_step(self, step: int) -> dict[str, float]:
        """Return what is left of the rate."""
        return {"fade": 1 / (1 + (step - 1) * self.rate_decay)}

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter and sum."""
        squares = element("squares") + g * g
        size = sqrt(squares + terms["initial"]) + terms["eps"]
        return {"w": element("w") - terms["rate"] * terms["fade"] * (g / size), "squares": squares}


@final
@dataclass(frozen=True)
class AdaDelta(Solver):
    """s = rho * s + (1 - rho) * g^2, d = sqrt((u + eps) / (s + eps)) * g, w -= rate * d.

    And u = rho * u + (1 - rho) * d^2. Zeiler, "ADADELTA" (2012); as torch.optim.Adadelta.

    Args:
        rho: how much of the means of squares is kept.
        eps: what both means begin with, in effect.
    """

    rho: float = 0.9
    eps: float = 1e-6

    learning_rate = 1.0

    def __post_init__(self) -> None:
        _demand(self, 0, 1, rho=self.rho)
        _demand(self, 0, math.inf, eps=self.eps)

    @property
    def slots(self) -> tuple[str, ...]:
        """The means of the squares of gradients and of steps."""
        return ("squares", "steps")

    def own_coefficients(self) -> dict[str, float]:
        """Return rho, 1 - rho and eps."""
        return {"rho": self.rho, "rho_rest": 1 - self.rho, "eps": self.eps}

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter and means."""
        rho, rest, eps = terms["rho"], terms["rho_rest"], terms["eps"]
        squares = rho * element("squares") + rest * (g * g)
        step = sqrt(element("steps") + eps) / sqrt(squares + eps) * g
        return {
            "w": element("w") - terms["rate"] * step,
            "squares": squares,
            "steps": rho * element("steps") + rest * (step * step),
        }


@final
@dataclass(frozen=True)
class RMSprop(Solver):
    """s = rho * s + (1 - rho) * g^2, w -= rate * g / (sqrt(s) + eps).

    With ``gradient_moment`` the quotient goes into a velocity, v = moment * v + g / …, and
    w -= rate * v. Centred, m = rho * m + (1 - rho) * g, and s - m^2 stands for s in the root.

    Tieleman and Hinton, lecture 6.5 (2012); Graves (2013) for the centred one; as
    torch.optim.RMSprop.

    Args:
        rho: how much of the mean of squares is kept.
        eps: keeps the quotient finite.
        centered: whether the variance takes the place of the mean of squares.
    """

    rho: float = 0.99
    eps: float = 1e-8
    centered: bool = False

    uses_moment = True

    def __post_init__(self) -> None:
        _demand(self, 0, 1, rho=self.rho)
        _demand(self, 0, math.inf, eps=self.eps)

    @property
    def form(self) -> tuple[object, ...]:
        """The centred one has other formulas."""
        return RMSprop, self.centered

    @property
    def slots(self) -> tuple[str, ...]:
        """The mean of squares, the velocity and, centred, the mean of gradients."""
        return ("squares", "velocity", "mean") if self.centered else ("squares", "velocity")

    def own_coefficients(self) -> dict[str, float]:
        """Return rho, 1 - rho and eps."""
        return {"rho": self.rho, "rho_rest": 1 - self.rho, "eps": self.eps}

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter, means and, with momentum, velocity."""
        rho, rest, w = terms["rho"], terms["rho_rest"], element("w")
        squares = rho * element("squares") + rest * (g * g)
        found = {"squares": squares}
        if self.centered:
            found["mean"] = rho * element("mean") + rest * g
            squares = maximum(squares - found["mean"] * found["mean"], 0.0)
        step = g / (sqrt(squares) + terms["eps"])
        if "moment" in terms:
            step = found["velocity"] = terms["moment"] * element("velocity") + step
        return {"w": w - terms["rate"] * step, **found}


@final
@dataclass(frozen=True)
class Rprop(Solver):
    """Steps by the sign of g only: each element has its own step d, w -= sign(g) * d.

    d begins as the rate, grows by ``plus`` while the sign of g stays and shrinks by ``minus`` when
    it changes, within ``smallest`` and ``largest``; after a change the element rests for a step.
    Meant for gradients of whole data sets. The rate matters at the first step only.

    Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm" (1993); as torch.optim.Rprop.

    Args:
        minus: what a step shrinks by.
        plus: what it grows by.
        smallest: the smallest step.
        largest: the largest step.
    """

    minus: float = 0.5
    plus: float = 1.2
    smallest: float = 1e-6
    largest: float = 50.0

    is_stepwise = True

    def __post_init__(self) -> None:
        _demand(self, 0, 1, minus=self.minus)
        _demand(self, 1, math.inf, plus=self.plus)
        _demand(self, 0, math.inf, smallest=self.smallest)
        _demand(self, self.smallest, math.inf, largest=self.largest)

    @property
    def slots(self) -> tuple[str, ...]:
        """The gradient of the step before (0 after a change of sign), and the size of steps."""
        return ("before", "size")

    def own_coefficients(self) -> dict[str, float]:
        """Return the solver's numbers."""
        return {
            "minus": self.minus,
            "plus": self.plus,
            "smallest": self.smallest,
            "largest": self.largest,
        }

    def at_step(self, step: int) -> dict[str, float]:
        """Return whether this is the first step."""
        return {"first": float(step <= 1)}

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter, gradient and sizes."""
        trend = g * element("before")
        factor = where(trend > 0, terms["plus"], where(trend < 0, terms["minus"], 1.0))
        size = where(terms["first"] > 0, terms["rate"], element("size"))
        size = minimum(maximum(size * factor, terms["smallest"]), terms["largest"])
        kept = where(trend < 0, 0.0, g)
        return {"w": element("w") - sign(kept) * size, "before": kept, "size": size}


class _AdamLike(Solver):
    """m = b1 * m + (1 - b1) * g, s = b2 * s + (1 - b2) * g^2; w -= rate * m' / (sqrt(s') + eps).

    m' = m / (1 - b1^t) and s' = s / (1 - b2^t) make up for the zeros that both begin with. An
    outline.
    """

    beta1: float
    beta2: float
    eps: float

    learning_rate = 0.001
    is_stepwise = True

    def __post_init__(self) -> None:
        _demand(self, 0, 1, beta1=self.beta1, beta2=self.beta2)
        _demand(self, 0, math.inf, eps=self.eps)

    @property
    def slots(self) -> tuple[str, ...]:
        """The means of gradients and of their squares."""
        return ("mean", "squares")

    def own_coefficients(self) -> dict[str, float]:
        """Return the betas, what they leave, and eps."""
        return {
            "beta1": self.beta1,
            "beta1_rest": 1 - self.beta1,
            "beta2": self.beta2,
            "beta2_rest": 1 - self.beta2,
            "eps": self.eps,
        }

    def at_step(self, step: int) -> dict[str, float]:
        """Return what makes up for the zeros that the means begin with."""
        return {
            "mean_scale": 1 / (1 - self.beta1**step),
            "root_scale": 1 / math.sqrt(1 - self.beta2**step),
        }

    def formulas(self, terms: Terms, g: Expression) -> dict[str, Expression]:
        """Return the new parameter and means."""
        mean = terms["beta1"] * element("mean") + terms["beta1_rest"] * g
        squares = terms["beta2"] * element("squares") + terms["beta2_rest"] * (g * g)
        size = sqrt(squares) * terms["root_scale"] + terms["eps"]
        rate = terms["rate"] * terms["mean_scale"]
        return {"w": element("w") - rate * (mean / size), "mean": mean, "squares": squares}


@final
@dataclass(frozen=True)
class Adam(_AdamLike):
    """Adam: steps by the mean of gradients over the root of the mean of their squares.

    m = beta1 * m + (1 - beta1) * g, s = beta2 * s + (1 - beta2) * g^2, and
    w -= rate * (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + eps).

    Kingma and Ba, "Adam: a method for stochastic optimization" (2015); as torch.optim.Adam.

    Args:
        beta1: how much of the mean of gradients is kept.
        beta2: how much of the mean of squares is kept.
        eps: keeps the quotient finite.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@final
@dataclass(frozen=True)
class AdamW(_AdamLike):
    """Adam whose regularization does not pass through the means: w -= rate * decay * w besides.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019); as torch.optim.AdamW.

    Args:
        beta1: how much of the mean of gradients is kept.
        beta2: how much of the mean of squares is kept.
        eps: keeps the quotient finite.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    is_decoupled = True


#: the solvers by the names that definitions may use
SOLVERS: Mapping[str, type[Solver]] = {
    kind.__name__.lower(): kind
    for kind in (Momentum, Nesterov, AdaGrad, AdaDelta, RMSprop, Rprop, Adam, AdamW)
}


def solver_of(what: str | Solver) -> Solver:
    """Return the solver of that name, with its default numbers; a solver is returned as it is.

    Raises:
        InputError: there is no such solver.
    """
    if isinstance(what, Solver):
        return what
    kind = SOLVERS.get(str(what).lower())
    if kind is None:
        hint = nearest(str(what).lower(), SOLVERS)
        raise InputError(f"there is no solver {what!r}{hint}; there are {', '.join(SOLVERS)}")
    return kind()


def update_formulas(terms: Terms, solver: Solver) -> dict[str, Expression]:
    """Return the formulas of a whole update: the gradient made ready, then the solver's own."""
    w, g = element("w"), element("g")
    if "clip_norm" in terms:
        g = g * minimum(terms["clip_norm"] * element("inverse_norm"), 1.0)
    if "clip_value" in terms:
        g = minimum(maximum(g, -terms["clip_value"]), terms["clip_value"])
    pull: Expression | None = terms["l2"] * w if "l2" in terms else None
    if "l1" in terms:
        lasso = terms["l1"] * sign(w)
        pull = lasso if pull is None else pull + lasso
    if pull is None:
        return solver.formulas(terms, g)
    if not solver.is_decoupled:
        return solver.formulas(terms, g + pull)
    found = solver.formulas(terms, g)
    return {**found, "w": found["w"] - terms["rate"] * pull}
