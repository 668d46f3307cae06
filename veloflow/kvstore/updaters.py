"""Updaters: how what was pushed changes a key's value. Given where the store starts, never sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Parameters
from veloflow.errors import InputError, OptionError, nearest
from veloflow.sharing.words import read_word
from veloflow.units.solvers import SOLVERS, Hyperparameters, Solver
from veloflow.units.update import Moved, Update, declare_slots

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KeyUpdate", "Updater", "parse_updater"]

#: takes the key, what was pushed, and the value, which it changes in place
Updater = Callable[[str, "NDArray[Any]", "NDArray[Any]"], None]
#: makes what changes one key's value: (pushed) -> None
KeyUpdate = Callable[["NDArray[Any]"], None]

_PLAIN = ("assign", "add")


def parse_updater(text: str) -> Callable[[str, NDArray[Any]], KeyUpdate]:
    """Read ``assign``, ``add``, or a solver of units: ``adam:rate=0.001,beta1=0.9``.

    The options are the rate first, those of :class:`~veloflow.units.solvers.Hyperparameters`, and
    the solver's own.

    Returns:
        What makes of a key and its value (shape of the key, changed in place) a function that
        takes what was pushed, of the same shape.

    Raises:
        OptionError: there is no such updater or option.
    """
    name, _, rest = text.partition(":")
    if name == "assign":
        return _plain(np.copyto, rest)
    if name == "add":
        return _plain(lambda value, pushed: np.add(value, pushed, out=value), rest)
    if name not in SOLVERS:
        known = (*_PLAIN, *SOLVERS)
        listed = ", ".join(sorted(known))
        raise OptionError(
            f"--updater: no updater {name!r}{nearest(name, known)}; there are: {listed}"
        )
    solver, numbers = _read_solver(name, rest)
    return lambda key, value: _SolverUpdate(key, value, solver, numbers)


def _plain(
    change: Callable[[NDArray[Any], NDArray[Any]], object], rest: str
) -> Callable[[str, NDArray[Any]], KeyUpdate]:
    if rest:
        raise OptionError(
            f"--updater: {rest!r} belongs to a solver; assign and add have no options"
        )

    def make(key: str, value: NDArray[Any]) -> KeyUpdate:
        def update(pushed: NDArray[Any]) -> None:
            change(value, pushed)

        return update

    return make


def _read_solver(name: str, rest: str) -> tuple[Solver, Hyperparameters]:
    """Return a solver and the numbers of its updates."""
    shared = {one.name for one in fields(Hyperparameters)} - {"ortho", "max_norm", "scale"}
    own = {one.name for one in fields(SOLVERS[name])} - shared  # type: ignore[arg-type]
    mine: list[str] = []
    general: list[str] = []
    for place, word in enumerate(filter(None, rest.split(","))):
        key, equals, _ = word.partition("=")
        if not equals and place == 0:
            general.append(f"rate={word}")
        elif key in shared:
            general.append(word)
        elif key in own:
            mine.append(word)
        else:
            known = sorted(shared | own)
            raise OptionError(
                f"--updater {name} has no option {key!r}{nearest(key, known)}; it has: "
                f"{', '.join(known)}"
            )
    kinds: dict[str, Any] = {name: SOLVERS[name]}
    solver: Solver = read_word(f"{name}:{','.join(mine)}", kinds, "--updater", "solver")
    general.extend([] if any(one.startswith("rate=") for one in general) else
                   [f"rate={solver.learning_rate}"])  # fmt: skip
    numbers = read_word(
        f"{name}:{','.join(general)}", {name: Hyperparameters}, "--updater", "solver"
    )
    solver.check(numbers)
    return solver, numbers


class _SolverUpdate:
    """One key moved by a solver of units, with NumPy; what it keeps is this key's own."""

    def __init__(
        self, key: str, value: NDArray[Any], solver: Solver, numbers: Hyperparameters
    ) -> None:
        if value.dtype.kind != "f":
            raise InputError(f"key {key!r} is of {value.dtype}; a solver moves floating numbers")
        self._value = value
        self.steps = 0  #: that the solver has taken; Adam corrects its bias by them
        self._parameters = Parameters(NumpyDevice(), value.dtype)
        self._own = self._parameters.declare(key, value.shape or (1,))
        moved = [Moved(self._own, solver, numbers, self)]
        declare_slots(moved)
        self._parameters.allocate()
        self._update = Update(self._parameters, moved)

    def __call__(self, pushed: NDArray[Any]) -> None:
        """Take a step along the gradient that was pushed."""
        shape = self._own.shape
        self._own.value.write(self._value.reshape(shape))
        self._own.gradient.write(pushed.reshape(shape))
        self._update()
        np.copyto(self._value, np.asarray(self._own.value.read()).reshape(self._value.shape))
