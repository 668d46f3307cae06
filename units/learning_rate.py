"""Learning rates that change from minibatch to minibatch: policies, and the unit that applies them.

A policy is a pure function of a gradient unit's own rate, the base, and of i, the number of TRAIN
minibatches before the present one. The names and formulas are those of Veles (and of Caffe).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

from veloflow.core import Farm, Input, Unit
from veloflow.errors import GraphError, InputError
from veloflow.units.loader import TRAIN

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.units.gradient import GradientUnit
    from veloflow.units.solvers import Hyperparameters

__all__ = [
    "ArbitraryStep",
    "Cosine",
    "Exp",
    "Fixed",
    "Inv",
    "LearningRateAdjust",
    "Policy",
    "StepExp",
    "WarmUp",
]


class Policy(ABC):
    """How a learning rate changes. An outline."""

    @abstractmethod
    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``, counted from 0 over all epochs."""


@final
@dataclass(frozen=True)
class Fixed(Policy):
    """rate = base."""

    def rate(self, base: float, i: int) -> float:
        """Return the base."""
        return base


@final
@dataclass(frozen=True)
class Exp(Policy):
    """rate = base * gamma ^ (a * i)."""

    gamma: float
    a: float = 1.0

    def __post_init__(self) -> None:
        _demand(self, gamma=self.gamma, a=self.a)

    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``."""
        return base * float(self.gamma ** (self.a * i))


@final
@dataclass(frozen=True)
class StepExp(Policy):
    """rate = base * gamma ^ floor(i / step)."""

    gamma: float
    step: int

    def __post_init__(self) -> None:
        _demand(self, gamma=self.gamma)
        if self.step < 1:
            raise InputError(f"{self}: step is a number of minibatches, at least 1")

    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``."""
        return base * float(self.gamma ** (i // self.step))


@final
@dataclass(frozen=True)
class Inv(Policy):
    """rate = base * (1 + gamma * i) ^ -power."""

    gamma: float
    power: float

    def __post_init__(self) -> None:
        _demand(self, gamma=self.gamma, power=self.power)

    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``."""
        return base * float((1 + self.gamma * i) ** -self.power)


@final
@dataclass(frozen=True)
class ArbitraryStep(Policy):
    """rate = base * coefficient, with another coefficient after each length of minibatches.

    ``ArbitraryStep((1, 60000), (0.1, 5000), (0.01, 100))`` trains 60,000 minibatches with the
    base and 5,000 with a tenth of it. In Veles the rate is 0 after the last length, so that a run
    that goes on learns nothing and says nothing; here the last coefficient stays unless ``after``
    says otherwise (``after=0`` does as Veles).

    Args:
        steps: (coefficient, length) pairs; lengths are numbers of minibatches.
        after: the coefficient after the last length; None keeps the last one.
    """

    steps: tuple[tuple[float, int], ...]
    after: float | None = None
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __init__(self, *steps: tuple[float, int], after: float | None = None) -> None:
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "after", after)
        object.__setattr__(self, "_ends", tuple(accumulate(length for _, length in steps)))
        if not steps or any(length < 1 for _, length in steps):
            raise InputError("an arbitrary step needs (coefficient, length) pairs, lengths above 0")
        coefficients = {f"coefficient {n}": pair[0] for n, pair in enumerate(steps)}
        _demand(self, **coefficients, after=after or 0.0)

    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``."""
        for (coefficient, _), end in zip(self.steps, self._ends, strict=True):
            if i < end:
                return base * coefficient
        return base * (self.steps[-1][0] if self.after is None else self.after)


@final
@dataclass(frozen=True)
class Cosine(Policy):
    """rate = base * (floor + (1 - floor) * (1 + cos(pi * i / length)) / 2), and floor afterwards.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017). With
    ``restarts`` i begins again with 0 after each length.

    Args:
        length: a number of minibatches.
        floor: the share of the base that is left in the end.
        restarts: whether the rate goes up again.
    """

    length: int
    floor: float = 0.0
    restarts: bool = False

    def __post_init__(self) -> None:
        _demand(self, floor=self.floor)
        _demand_length(self, self.length)

    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``."""
        place = i % self.length if self.restarts else min(i, self.length)
        swing = (1 + math.cos(math.pi * place / self.length)) / 2
        return base * (self.floor + (1 - self.floor) * swing)


@final
@dataclass(frozen=True)
class WarmUp(Policy):
    """rate = base * (start + (1 - start) * i / length) up to i = length; then another policy.

    The other policy counts from there on. Goyal et al., "Accurate, large minibatch SGD" (2017).

    Args:
        length: a number of minibatches.
        then: what follows.
        start: the share of the base to begin with.
    """

    length: int
    then: Policy = field(default_factory=Fixed)
    start: float = 0.0

    def __post_init__(self) -> None:
        _demand(self, start=self.start)
        _demand_length(self, self.length)

    def rate(self, base: float, i: int) -> float:
        """Return the rate for TRAIN minibatch ``i``."""
        if i >= self.length:
            return self.then.rate(base, i - self.length)
        return base * (self.start + (1 - self.start) * i / self.length)


def _demand_length(policy: Policy, length: int) -> None:
    if length < 1:
        raise InputError(f"{policy}: length is a number of minibatches, at least 1")


def _demand(policy: Policy, **numbers: float) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{policy}: {name} is {number}; give a finite number, not below 0")


@dataclass(frozen=True)
class _Adjusted:
    """A rate that is adjusted: where it is kept, what it was at first, and how it changes."""

    numbers: Hyperparameters
    base: float
    policy: Policy


@final
class LearningRateAdjust(Unit):
    """Sets the rates of gradient units before each TRAIN minibatch by a policy.

    It counts TRAIN minibatches, so it runs once in each round of the loop, after the last
    gradient unit: what it sets then holds for the next minibatch. The first minibatch is i = 0.

    Args:
        policy: how the rates of weights change.
        bias_policy: how those of biases change; the same unless given.
    """

    group: ClassVar[str] = "trainer"

    minibatch_class = Input[int]()

    def __init__(
        self,
        workflow: Workflow,
        policy: Policy,
        *,
        bias_policy: Policy | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.policy = policy
        self.bias_policy = policy if bias_policy is None else bias_policy
        self.minibatches = 0
        self._adjusted: list[_Adjusted] = []

    def add(
        self,
        *units: GradientUnit,
        policy: Policy | None = None,
        bias_policy: Policy | None = None,
    ) -> None:
        """Adjust the rates of ``units``, by policies of their own if given.

        The rates that they have now are the bases.
        """
        own = policy or self.policy
        own_bias = bias_policy or policy or self.bias_policy
        for unit in units:
            for numbers, one in ((unit.weights_numbers, own), (unit.bias_numbers, own_bias)):
                self._adjusted.append(_Adjusted(numbers, numbers.rate, one))

    def initialize(self) -> None:
        """Set the rates for the first minibatch."""
        if not self._adjusted:
            raise GraphError(
                f"unit {self.path!r} adjusts nothing; tell it what: .add(gradient_unit)"
            )
        self._set_rates()

    def run(self) -> None:
        """Count a TRAIN minibatch and set the rates for the next one."""
        if self.minibatch_class == TRAIN:
            self.minibatches += 1
            self._set_rates()

    # -- with slaves that take steps of their own ---------------------------------------------

    def run_as_master(self) -> None:
        """Count a minibatch, unless slaves have moved the parameters."""
        if not self.service(Farm).is_local:
            self.run()

    def go_to(self, steps: int, minibatches: int) -> None:
        """Set the count and the rates."""
        self.minibatches = minibatches
        self._set_rates()

    def _set_rates(self) -> None:
        for one in self._adjusted:
            one.numbers.rate = one.policy.rate(one.base, self.minibatches)

    def state(self) -> Mapping[str, object]:
        """Return how many TRAIN minibatches were counted; the rates follow from it."""
        return {"minibatches": self.minibatches}

    def restore(self, state: Mapping[str, object]) -> None:
        """Set the count and the rates."""
        self.minibatches = int(cast("dict[str, Any]", state)["minibatches"])
        self._set_rates()
