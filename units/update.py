"""Updates of parameters: one launch moves all that have a solver of one form and lie together.

The flat array of parameters is seen as rows of 128 elements, and each row belongs to one parameter.
Numbers that are the same for all parameters of a launch, such as a common learning rate, are
scalars of the launch; those that differ are columns, one number a row. So a whole network moves in
one launch, whatever its layers have of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from veloflow.devices.expressions import (
    Expression,
    element,
    elements_of,
    scalar,
    scalars_of,
    sqrt,
    where,
)
from veloflow.devices.parameters import ALIGNMENT
from veloflow.units.solvers import Hyperparameters, Solver, Terms, update_formulas

if TYPE_CHECKING:
    from veloflow.devices import Array, Launch
    from veloflow.devices.parameters import Parameter, Parameters

__all__ = ["Moved", "Steps", "Update", "declare_slots"]

#: keeps the quotient finite when gradients are clipped by their norm, as in torch
_TINY = 1e-6
#: the slot where gradients of several minibatches are added up
_GATHERED = "gathered"


class Steps(Protocol):
    """Who counts the steps of a parameter."""

    steps: int


@dataclass(frozen=True)
class Moved:
    """A parameter, what moves it, by which numbers, and who counts its steps."""

    parameter: Parameter
    solver: Solver
    numbers: Hyperparameters
    counter: Steps

    @property
    def end(self) -> int:
        """Where in the flat array the next parameter may begin."""
        return self.parameter.start + self.rows * ALIGNMENT

    @property
    def rows(self) -> int:
        """How many rows of the flat array are the parameter's."""
        return math.ceil(self.parameter.value.size / ALIGNMENT)


def declare_slots(moved: Iterable[Moved], *, accumulate: int = 1) -> None:
    """Declare what an update keeps beside the parameters; they have no memory yet."""
    for one in moved:
        for name in (*one.solver.slots, *((_GATHERED,) if accumulate > 1 else ())):
            one.parameter.slot(name)


class Update:
    """One step of all parameters that move together, by the gradients that are there.

    In order: gradients of several minibatches are gathered, if there is to be a step for several;
    orthogonality is added; the norm for clipping is taken; the parameters move; neurons whose
    weights have grown beyond their largest norm are shrunk.

    Args:
        parameters: all parameters of the workflow, which have memory.
        moved: those that move, each once.
        accumulate: how many minibatches there are to a step. The step is by the mean of their
            gradients.
    """

    def __init__(
        self, parameters: Parameters, moved: Sequence[Moved], *, accumulate: int = 1
    ) -> None:
        moved = sorted(moved, key=lambda one: one.parameter.start)
        self.gathered = 0  #: minibatches since the last step
        self._accumulate = accumulate
        stretches = [_Stretch(parameters, part) for part in _neighbours(moved)]
        if accumulate > 1:
            self._first, self._more, self._last = _gathering(stretches, accumulate)
        self._ortho = [_Orthogonality(one) for one in moved if one.numbers.ortho]
        self._norm = _Norm(stretches)
        forms = dict.fromkeys(one.solver.form for one in moved)
        self._solved = [
            _SolverUpdate(parameters, [one for one in moved if one.solver.form == form], self._norm)
            for form in forms
        ]
        self._shrink = [_Shrink(one) for one in moved if one.numbers.max_norm]
        self._counters = list({id(one.counter): one.counter for one in moved}.values())

    def __call__(self) -> None:
        """Take in the gradients of one minibatch, and take a step if it is time for one."""
        if self._accumulate > 1 and not self._gather():
            return
        for counter in self._counters:
            counter.steps += 1
        for launch in self._ortho:
            launch()
        wants_norm = False
        for solved in self._solved:
            solved.look()
            wants_norm = wants_norm or solved.uses_norm
        if wants_norm:
            self._norm()
        for solved in self._solved:
            solved()
        for shrink in self._shrink:
            shrink()

    def _gather(self) -> bool:
        """Add the gradients to those of earlier minibatches; return whether these are enough."""
        self.gathered += 1
        is_enough = self.gathered == self._accumulate
        launches = self._last if is_enough else self._more if self.gathered > 1 else self._first
        for launch in launches:
            launch()
        if is_enough:
            self.gathered = 0
        return is_enough


def _neighbours(moved: Sequence[Moved]) -> list[list[Moved]]:
    """Split parameters in the order of the flat array into those that lie side by side."""
    parts: list[list[Moved]] = []
    for one in moved:
        if parts and parts[-1][-1].end == one.parameter.start:
            parts[-1].append(one)
        else:
            parts.append([one])
    return parts


class _Stretch:
    """Parameters that lie side by side in the flat arrays, seen as one array."""

    def __init__(self, parameters: Parameters, moved: Sequence[Moved]) -> None:
        self.moved = moved
        self.device = parameters.device
        self.dtype = parameters.dtype
        self._start = moved[0].parameter.start
        self._rows = sum(one.rows for one in moved)
        self._flat = {"w": parameters.values, "g": parameters.gradients, **parameters.slots}

    def views(self, names: Iterable[str], *, in_rows: bool = False) -> dict[str, Array]:
        """Return views of ``w``, ``g`` and slots: flat, or as rows that columns belong to."""
        shape = (self._rows, ALIGNMENT) if in_rows else (self._rows * ALIGNMENT,)
        return {
            name: self.device.view(self._flat[name], self._start, shape)
            for name in names
            if name in self._flat
        }

    def column(self, values: Sequence[float], dtype: np.dtype[np.generic]) -> Array:
        """Return an array with one number a row: that of the row's parameter."""
        rows = [one.rows for one in self.moved]
        return self.device.asarray(np.repeat(np.asarray(values, dtype), rows))


class _SolverUpdate:
    """The step of all parameters whose solvers have one form."""

    def __init__(self, parameters: Parameters, moved: Sequence[Moved], norm: _Norm) -> None:
        self.uses_norm = False
        self._moved = moved
        self._solver = moved[0].solver
        self._stretches = [_Stretch(parameters, part) for part in _neighbours(moved)]
        self._norm = norm
        self._seen: list[tuple[object, ...]] = []
        #: for each parameter, its kind: those of one kind have the same numbers
        self._kinds = [0] * len(moved)
        self._active: frozenset[str] = frozenset()  #: coefficients that have any effect
        self._varying: frozenset[str] = frozenset()  #: those that differ among the kinds
        self._columns: list[_Column] = []
        self._launches: list[Launch] = []
        self._scalars: dict[str, float] = {}

    def __call__(self) -> None:
        """Take the step; :meth:`look` first."""
        for launch in self._launches:
            launch(**self._scalars)

    def look(self) -> None:
        """Look at the numbers, which anybody may have changed, and get ready for the step."""
        seen = [self._key(one) for one in self._moved]
        if seen == self._seen:
            return
        self._seen = seen
        # kinds, effects and differences once found stay, so what was bound is bound for good soon
        known: dict[object, int] = {}
        kinds = [known.setdefault(pair, len(known)) for pair in zip(self._kinds, seen, strict=True)]
        values = [self._coefficients(self._moved[kinds.index(kind)]) for kind in known.values()]
        active = self._active.union(
            name for one in values for name, value in one.items() if Terms.has_effect(name, value)
        )
        varying = self._varying.union(
            name for one in values for name, value in one.items() if value != values[0][name]
        )
        is_new = (kinds, active, varying) != (self._kinds, self._active, self._varying)
        if is_new or not self._launches:
            self._kinds, self._active, self._varying = kinds, active, varying
            self._bind(values)
        for column in self._columns:
            column.set([one[column.name] for one in values])
        self._scalars = {name: values[0][name] for name in self._scalars}

    def _key(self, one: Moved) -> tuple[object, ...]:
        steps = one.counter.steps if one.solver.is_stepwise else 0
        return (one.solver, steps, *vars(one.numbers).values())

    @staticmethod
    def _coefficients(one: Moved) -> dict[str, float]:
        return {**one.solver.coefficients(one.numbers), **one.solver.at_step(one.counter.steps)}

    def _bind(self, values: Sequence[dict[str, float]]) -> None:
        def expression(name: str) -> Expression:
            return element(name) if name in self._varying else scalar(name)

        formulas = update_formulas(Terms(expression, self._active), self._solver)
        read = elements_of(*formulas.values())
        self.uses_norm = "inverse_norm" in read
        names = [name for name in read if name in self._varying]
        self._scalars = dict.fromkeys(scalars_of(*formulas.values()), 0.0)
        self._launches, self._columns = [], []
        place = {id(one): kind for one, kind in zip(self._moved, self._kinds, strict=True)}
        for stretch in self._stretches:
            arrays = stretch.views({*read, *formulas}, in_rows=bool(names))
            kinds = [place[id(one)] for one in stretch.moved]
            for name in names:
                column = _Column(stretch, name, kinds, [one[name] for one in values])
                self._columns.append(column)
                arrays[name] = column.array
            if self.uses_norm:
                arrays["inverse_norm"] = self._norm.inverse
            self._launches.append(stretch.device.elementwise(formulas, arrays))


class _Column:
    """A coefficient that differs among parameters: one number for each row of a stretch."""

    def __init__(
        self, stretch: _Stretch, name: str, kinds: Sequence[int], values: Sequence[float]
    ) -> None:
        self.name = name
        self.array = stretch.column([values[kind] for kind in kinds], stretch.dtype)
        self._written = list(values)
        is_it = element("kind").equals(scalar("which"))
        self._fill = stretch.device.elementwise(
            {"c": where(is_it, scalar("value"), element("c"))},
            {"c": self.array, "kind": stretch.column(kinds, np.dtype(np.int32))},
        )

    def set(self, values: Sequence[float]) -> None:
        """Set the numbers of the kinds; nothing waits, as it would if the host wrote them."""
        for kind, value in enumerate(values):
            if value != self._written[kind]:
                self._fill(which=kind, value=value)
                self._written[kind] = value


class _Norm:
    """1 / (the norm of all gradients that move together + 1e-6), for clipping."""

    def __init__(self, stretches: Sequence[_Stretch]) -> None:
        self._stretches = stretches
        self._launches: list[Launch] = []
        self._inverse: Array | None = None

    @property
    def inverse(self) -> Array:
        """The number, (1,); asking for it binds what computes it."""
        if self._inverse is None:
            device, dtype = self._stretches[0].device, self._stretches[0].dtype
            self._inverse = device.zeros((1,), dtype)
            g, total = element("g"), None
            sums: dict[str, Array] = {}
            for number, stretch in enumerate(self._stretches):
                sums[f"s{number}"] = out = device.zeros((1,), dtype)
                launch = device.reduce("sum", g * g, stretch.views("g"), out, axis=None)
                self._launches.append(launch)
                part = element(f"s{number}")
                total = part if total is None else total + part
            assert total is not None
            formula = {"inverse": 1 / (sqrt(total) + _TINY)}
            self._launches.append(device.elementwise(formula, {**sums, "inverse": self._inverse}))
        return self._inverse

    def __call__(self) -> None:
        """Compute it."""
        for launch in self._launches:
            launch()


class _Orthogonality:
    """g += ortho / rows * (column sums of w - w), which makes the rows of w orthogonal."""

    def __init__(self, one: Moved) -> None:
        value, gradient = one.parameter.value, one.parameter.gradient
        device, rows = value.device, value.shape[0]
        self._numbers = one.numbers
        sums = device.zeros((1, *value.shape[1:]), value.dtype)
        self._sum = device.reduce("sum", element("w"), {"w": value}, sums, axis=0)
        pull = scalar("ortho") * ((element("sums") - element("w")) * (1 / rows))
        arrays = {"w": value, "g": gradient, "sums": sums}
        self._add = device.elementwise({"g": element("g") + pull}, arrays)

    def __call__(self) -> None:
        """Add it to the gradient."""
        self._sum()
        self._add(ortho=self._numbers.ortho)


class _Shrink:
    """w *= max_norm / |w| for each row w whose norm is larger (Srivastava et al., 2014)."""

    def __init__(self, one: Moved) -> None:
        value = one.parameter.value
        device, w = value.device, element("w")
        self._numbers = one.numbers
        sums = device.zeros((value.shape[0],), value.dtype)
        self._sum = device.reduce("sum", w * w, {"w": value}, sums, axis=1)
        norm = sqrt(element("sums"))
        factor = where(norm > scalar("largest"), scalar("largest") / norm, 1.0)
        self._scale = device.elementwise({"w": w * factor}, {"w": value, "sums": sums})

    def __call__(self) -> None:
        """Shrink what is too large."""
        self._sum()
        self._scale(largest=self._numbers.max_norm)


def _gathering(
    stretches: Sequence[_Stretch], accumulate: int
) -> tuple[list[Launch], list[Launch], list[Launch]]:
    """Return what the first, a middle and the last minibatch of a step do with their gradients."""
    g, gathered = element("g"), element(_GATHERED)
    formulas = (
        {_GATHERED: g},
        {_GATHERED: gathered + g},
        {"g": (gathered + g) * (1 / accumulate)},
    )
    first, more, last = (
        [one.device.elementwise(formula, one.views(("g", _GATHERED))) for one in stretches]
        for formula in formulas
    )
    return first, more, last
