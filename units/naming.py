"""Names of things in definition files: layers, loaders, solvers, policies, fillings, metrics.

A thing is written by its name, ``adam``, or with what it is told: ``{adam: {beta1: 0.8}}``, and
``{tanh: 100}`` for its first argument. Names are found, not listed: a layer is a function of
:mod:`veloflow.units`, or of another package's entry point there, that returns a Layer; the others
are classes, by their own names in lower case.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, get_origin

from veloflow.units.filling import Filling
from veloflow.units.learning_rate import Policy
from veloflow.units.loader import Loader
from veloflow.units.metrics import Metric
from veloflow.units.normalization import NORMALIZERS, Normalizer
from veloflow.units.observing import Observer
from veloflow.units.rollback import EpochWatcher
from veloflow.units.solvers import Solver

__all__ = ["KINDS", "Signature", "named", "signature_of"]

#: what a kind of thing is called in messages, and the outline that its classes derive from
KINDS: Mapping[str, type[Any]] = {
    "loader": Loader,
    "solver": Solver,
    "policy": Policy,
    "filling": Filling,
    "normalizer": Normalizer,
    "metric": Metric,
    "watcher": EpochWatcher,
    "observer": Observer,
}
_LAYERS = ("Layer", "Branches", "list[Layer]")


@cache
def named(kind: str) -> Mapping[str, Callable[..., Any]]:
    """Return the things of a kind by name: "layer", or one of :data:`KINDS`."""
    if kind == "normalizer":
        return NORMALIZERS
    units = importlib.import_module("veloflow.units")
    public: dict[str, Any] = {name: getattr(units, name) for name in units.__all__}
    for entry in entry_points(group="veloflow.units"):
        public.setdefault(entry.name, entry.load())
    if kind == "layer":
        return {name: one for name, one in public.items() if _is_recipe(one)}
    outline = KINDS[kind]
    return {
        short_name(name, kind): one
        for name, one in public.items()
        if isinstance(one, type) and issubclass(one, outline) and not inspect.isabstract(one)
    }


def short_name(name: str, kind: str) -> str:
    """Return a class's name in files: ``digits`` for DigitsLoader, ``step_exp`` for StepExp."""
    name = name.removesuffix(kind.capitalize())
    if kind == "solver" or name.isupper():
        return name.lower()
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _is_recipe(one: object) -> bool:
    if not inspect.isfunction(one):
        return False
    returned = one.__annotations__.get("return")
    text = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    return text in _LAYERS


@dataclass(frozen=True)
class Signature:
    """What a function or class takes.

    Attributes:
        order: the names that may be given by place, in order.
        kinds: the annotation of each name, as text.
        rest: the name of what takes any number of values, or "".
        needed: the names that have no default.
    """

    order: tuple[str, ...]
    kinds: Mapping[str, str]
    rest: str
    needed: tuple[str, ...]


@cache
def signature_of(thing: Callable[..., Any], *, skip: int = 0) -> Signature:
    """Return what ``thing`` takes, without its first ``skip`` arguments."""
    parameters = list(inspect.signature(thing).parameters.values())[skip:]
    order = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    kinds: dict[str, str] = {}
    rest, needed = "", []
    for one in parameters:
        text = one.annotation if isinstance(one.annotation, str) else _text(one.annotation)
        if one.kind is one.VAR_POSITIONAL:
            rest = one.name
        elif one.kind is one.VAR_KEYWORD:
            for name, kind in _unpacked(thing, text).items():
                required = re.fullmatch(r"Required\[(.*)\]", kind)
                kinds[name] = required[1] if required else kind
                needed += [name] if required else []
        else:
            kinds[one.name] = text
            if one.default is one.empty:
                needed.append(one.name)
    return Signature(tuple(order), kinds, rest, tuple(needed))


def _text(annotation: Any) -> str:
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    return str(annotation)


def _unpacked(thing: Callable[..., Any], text: str) -> dict[str, str]:
    """Return the keys of ``**options: Unpack[SomeOptions]`` with their annotations."""
    match = re.search(r"Unpack\[(\w+)\]", text)
    if match is None:
        return {}
    function = thing.__init__ if isinstance(thing, type) else thing  # type: ignore[misc]
    module = inspect.getmodule(function)
    options = getattr(module, match[1], None)
    return {
        name: getattr(kind, "__forward_arg__", None) or _text(kind)
        for name, kind in getattr(options, "__annotations__", {}).items()
    }
