"""Layers of the short form: recipes for a forward unit and its gradient unit.

Each family of units ends with its recipes, such as ``tanh(100)`` in units/all2all.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypedDict, TypeVar

from veloflow.errors import GraphError, nearest

if TYPE_CHECKING:
    from veloflow.core import Unit, Workflow
    from veloflow.units.filling import Filling
    from veloflow.units.forward import Forward
    from veloflow.units.gradient import Backward, GradientUnit
    from veloflow.units.solvers import Solver

__all__ = [
    "Branches",
    "DenseOptions",
    "Layer",
    "Rates",
    "refuse_unknown",
    "trained_layer",
    "unit_named",
]


U = TypeVar("U", bound="Unit")


class Rates(TypedDict, total=False):
    """The numbers of a gradient unit, as :class:`~veloflow.units.GradientUnit` takes them."""

    learning_rate: float
    weights_decay: float
    gradient_moment: float
    l1_vs_l2: float
    factor_ortho: float
    learning_rate_bias: float
    weights_decay_bias: float
    gradient_moment_bias: float
    l1_vs_l2_bias: float
    solver: Solver | str
    solver_bias: Solver | str
    clip_value: float
    clip_norm: float
    max_norm: float
    accumulate: int


class DenseOptions(Rates, total=False):
    """What a fully connected layer may be told: its own rates, and how it begins."""

    weights_filling: Filling
    bias_filling: Filling
    include_bias: bool
    shares: str
    name: str


@dataclass(frozen=True)
class Layer:
    """A layer of the short form: a recipe for a forward unit and its gradient unit.

    Attributes:
        text: what to call it in messages, such as ``tanh(100)``.
        forward: makes the forward unit in a workflow.
        gradient: the class of its gradient unit.
        rates: the layer's own rates, which go before those of the whole workflow.
    """

    text: str
    forward: Callable[[Workflow], Forward]
    gradient: type[Backward]
    rates: Rates = field(default_factory=Rates)


@dataclass(frozen=True)
class Branches:
    """Branches of layers that begin with one input and meet again; it stands where a layer does.

    Attributes:
        text: what to call them in messages.
        branches: the layers of each branch.
        join: the recipe of the unit in which they meet.
    """

    text: str
    branches: tuple[tuple[Layer | Branches, ...], ...]
    join: Layer


def trained_layer(
    text: str,
    forward: Callable[..., Forward],
    gradient: type[GradientUnit],
    options: Mapping[str, object],
    known: Collection[str],
) -> Layer:
    """Return a layer with parameters; its options are the forward unit's own, and rates.

    ``shares`` is the name of an earlier layer whose parameters it uses.
    """
    refuse_unknown(f"layer {text}", options, known)
    own = {name: value for name, value in options.items() if name not in Rates.__optional_keys__}
    rates = {name: value for name, value in options.items() if name not in own}
    shares = own.pop("shares", None)
    if shares is not None:
        forward = partial(_sharing, forward, str(shares), f"layer {text}")
    return Layer(text, partial(forward, **own), gradient, Rates(**rates))  # type: ignore[typeddict-item]


def _sharing(
    forward: Callable[..., Forward], shares: str, what: str, wf: Workflow, **own: object
) -> Forward:
    from veloflow.units.forward import Forward

    other = unit_named(wf, shares, Forward, what)
    return forward(wf, **own).share_parameters(other)


def unit_named(wf: Workflow, name: str, kind: type[U], what: str) -> U:
    """Return the unit of ``wf`` with this name, for a layer that refers to an earlier one.

    Raises:
        GraphError: there is none so far, or it is of another kind.
    """
    units = {unit.name: unit for unit in wf}
    unit = units.get(name)
    if unit is None:
        known = [one for one, unit in units.items() if isinstance(unit, kind)]
        raise GraphError(
            f"{what}: no earlier layer is named {name!r}{nearest(name, known)}; name the layer "
            f"that is meant: name={name!r}"
        )
    if not isinstance(unit, kind):
        raise GraphError(f"{what}: {name!r} is {type(unit).__name__}, and no {kind.__name__}")
    return unit


def refuse_unknown(
    what: str, given: Mapping[str, object], known: Collection[str], *, also: Sequence[str] = ()
) -> None:
    """Refuse options that are not ``known``, with the nearest name (``also`` has more names).

    Raises:
        GraphError: an option does not exist.
    """
    for name in given:
        if name not in known:
            raise GraphError(f"{what} has no option {name!r}{nearest(name, [*known, *also])}")
