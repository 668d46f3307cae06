"""A network as a YAML or TOML file: ``veloflow run net.yaml max_epochs=5``.

    loader: {digits: {minibatch_size: 60}}
    layers:
      - tanh: $hidden
      - dropout: 0.5
      - softmax: {classes: 10, learning_rate: 0.01}
    solver: {adam: {beta1: 0.8}}
    max_epochs: 5
    options: {hidden: 100}

The keys are the arguments of ``standard_workflow`` and the names of its rates; docs/short-form.md
has them all. Everything is checked before anything is built, and errors name the line.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from veloflow.errors import DefinitionError, VeloflowError, nearest
from veloflow.units.augmentation import Augmentation
from veloflow.units.layer import Branches
from veloflow.units.marked import Marked, Place, Plain, read_marked
from veloflow.units.naming import Signature, named, signature_of
from veloflow.units.standard import standard_workflow
from veloflow.units.topology import topology

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.units.layer import Layer

__all__ = ["build_of"]

#: which kind of thing an argument takes, by what its annotation holds
_THINGS = {
    "Solver": "solver",
    "Policy": "policy",
    "Filling": "filling",
    "Normalizer": "normalizer",
}
_LISTS = {"metrics": "metric", "watchers": "watcher", "observers": "observer"}
#: the types of settings that may be changed on the command line, by their annotations
_TYPES: Mapping[str, Any] = {
    "int": int,
    "float": float,
    "int | None": int | None,
    "float | None": float | None,
    "str | None": str | None,
}
_SIMPLE: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def build_of(path: Path) -> Callable[..., None]:
    """Return the ``build`` function that a file describes; its options are those of the file.

    An option is what the section ``options`` names, for ``$name`` to stand for elsewhere, and each
    setting that is a number, a text or a truth value.

    Raises:
        DefinitionError: the file cannot be read, or names what does not exist.
    """
    document = read_marked(path)
    about = document.values.pop("about", f"The network of {path.name}.")
    declared = document.values.pop("options", {})
    if not isinstance(declared, dict):
        raise document.error(("options",), "options must be a mapping of names to defaults")
    settings = {
        name: value
        for name, value in document.values.items()
        if isinstance(value, str | int | float | bool) and not _refers(value) and name != "layers"
    }
    for name, value in declared.items():
        if name in document.values:
            raise document.error(("options", name), f"there is a setting {name!r} too")
        if not isinstance(value, str | int | float | bool) or not name.isidentifier():
            raise document.error(
                ("options", name), f"option {name!r} needs a name and a default that is one value"
            )
    options: dict[str, Plain] = {**settings, **declared}
    _Reader(document, options).check()

    def build(wf: Workflow, **given: Plain) -> None:
        _Reader(document, {**options, **given}).build(wf)

    _describe(build, str(about), options)
    return build


def _describe(build: Callable[..., None], about: str, options: Mapping[str, Plain]) -> None:
    """Let ``build`` look as one that takes these options, to whoever asks."""
    known = signature_of(standard_workflow, skip=1).kinds
    kinds = {name: _TYPES.get(known.get(name, ""), type(value)) for name, value in options.items()}
    parameters = [inspect.Parameter("wf", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, value in options.items():
        one = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        parameters.append(one.replace(annotation=kinds[name]))
    build.__doc__, build.__module__ = about, ""
    build.__annotations__ = {**kinds, "return": None}
    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


def _fits(kind: str, value: Plain) -> bool:
    """Whether a value fits an annotation; whoever takes what is not known here checks it."""
    if kind in _SIMPLE:
        return isinstance(value, _SIMPLE[kind]) and (kind == "bool" or not isinstance(value, bool))
    many = re.fullmatch(r"(tuple|Sequence)\[(.*)\]", kind)
    if many is None:
        return True
    if not isinstance(value, list):
        return False
    inner = many[2].split(", ")
    if many[1] == "tuple" and inner[-1] != "...":
        return len(value) == len(inner) and all(map(_fits, inner, value))
    return all(_fits(inner[0], one) for one in value)


def _refers(value: object) -> bool:
    return isinstance(value, str) and value.startswith("$")


class _Reader:
    """A document with the values of its options: what to build from it."""

    def __init__(self, document: Marked, options: Mapping[str, Plain]) -> None:
        self._document = document
        self._options = options
        self._used: set[str] = set()
        self._values = {name: options.get(name, value) for name, value in document.values.items()}

    def check(self) -> None:
        """Check everything that can be checked without a workflow."""
        self._arguments(None)

    def build(self, wf: Workflow) -> None:
        """Build the workflow."""
        arguments = self._arguments(wf)
        try:
            standard_workflow(wf, **arguments)
        except DefinitionError:
            raise
        except VeloflowError as error:
            raise self._document.error((), str(error)) from error

    # -- the whole ----------------------------------------------------------------------------

    def _arguments(self, wf: Workflow | None) -> dict[str, Any]:
        signature = signature_of(standard_workflow, skip=1)
        values = self._values
        for name in ("loader", "layers"):
            if name not in values:
                raise self._error((), f"there is no {name!r}; it needs loader and layers")
        arguments: dict[str, Any] = {}
        for name, value in values.items():
            if name == "loader":
                arguments[name] = self._thing("loader", value, (name,), wf)
            elif name == "layers":
                arguments[name] = self._layers(value, (name,))
            else:
                self._check_name(name, signature, "a network", (name,))
                arguments[name] = self._argument(name, signature.kinds[name], value, (name,), wf)
        unused = set(self._options) - set(values) - self._used
        for name in sorted(unused):
            raise self._error(("options", name), f"option {name!r} is used nowhere: write ${name}")
        return arguments

    def _layers(self, value: Plain, place: Place) -> list[Any]:
        value = self._resolved(value, place)
        if isinstance(value, str):
            return self._call(topology, [value], {}, place)  # type: ignore[no-any-return]
        if not isinstance(value, list):
            raise self._error(place, "layers must be a list, or a topology such as '64C5-MP2-10N'")
        found: list[Any] = []
        for number, one in enumerate(value):
            there = (*place, number)
            made = self._thing("layer", one, there, None)
            layers = made if isinstance(made, list) else [made]
            found += [self._placed(layer, there) for layer in layers]
        return found

    def _placed(self, layer: Layer | Branches, place: Place) -> Layer | Branches:
        """Let what is wrong when a layer's unit is made be said of the layer's line."""
        if isinstance(layer, Branches):  # its own layers have places already
            return layer
        return replace(layer, forward=lambda wf: self._call(layer.forward, [wf], {}, place))

    # -- things -------------------------------------------------------------------------------

    def _thing(self, kind: str, value: Plain, place: Place, wf: Workflow | None) -> Any:
        """Make a thing from ``name`` or ``{name: what it is told}``."""
        value = self._resolved(value, place)
        name, told = self._split(kind, value, place)
        known = named(kind)
        make = known.get(name) or known.get(name.lower())
        where = (*place, name) if isinstance(value, dict) else place
        if make is None:
            near = nearest(name, known)
            listing = "" if near else f"; there are {', '.join(sorted(known))}"
            raise self._error(where, f"there is no {kind} {name!r}{near}{listing}")
        needs_workflow = kind in ("loader", "watcher", "observer")
        signature = signature_of(make, skip=int(needs_workflow))
        args, kwargs = self._told(f"{kind} {name}", signature, told, where)
        if needs_workflow:
            if wf is None:
                return None
            args = [wf, *args]
        return self._call(make, args, kwargs, where)

    def _split(self, kind: str, value: Plain, place: Place) -> tuple[str, Plain]:
        if isinstance(value, str):
            return value, None
        if isinstance(value, dict) and len(value) == 1:
            return next(iter(value.items()))
        raise self._error(
            place, f"a {kind} is a name, or one name with what it is told: 'name: {{…}}'"
        )

    def _told(
        self, what: str, signature: Signature, told: Plain, place: Place
    ) -> tuple[list[Any], dict[str, Any]]:
        """Turn what a thing is told into arguments."""
        told = self._resolved(told, place)
        if isinstance(told, dict):
            kwargs = {}
            rest: list[Any] = []
            for name, value in told.items():
                if name == signature.rest:
                    rest = self._rest(name, value, (*place, name))
                    continue
                self._check_name(name, signature, what, (*place, name))
                kwargs[name] = self._argument(
                    name, signature.kinds[name], value, (*place, name), None
                )
            self._check_needed(what, signature, kwargs, place)
            return rest, kwargs
        if told is None:
            self._check_needed(what, signature, {}, place)
            return [], {}
        if signature.rest and isinstance(told, list):
            return self._rest(signature.rest, told, place), {}
        if not signature.order:
            raise self._error(place, f"{what} takes no value by itself; write name: value pairs")
        first = signature.order[0]
        value = self._argument(first, signature.kinds[first], told, place, None)
        self._check_needed(what, signature, {first: value}, place)
        return [], {first: value}

    def _rest(self, name: str, value: Plain, place: Place) -> list[Any]:
        """Values for ``*layers``, ``*branches`` or ``*steps``."""
        value = self._resolved(value, place)
        if not isinstance(value, list):
            raise self._error(place, f"{name} must be a list")
        if name == "layers":
            return self._layers(value, place)
        if name == "branches":
            return [self._layers(one, (*place, n)) for n, one in enumerate(value)]
        return [tuple(one) if isinstance(one, list) else one for one in value]

    def _argument(
        self, name: str, kind: str, value: Plain, place: Place, wf: Workflow | None
    ) -> Any:
        value = self._resolved(value, place)
        types = re.findall(r"\w+", kind)
        thing = next((_THINGS[one] for one in types if one in _THINGS), None)
        if thing is not None and value is not None:
            return self._thing(thing, value, place, wf)
        if "Augmentation" in types and value is not None:
            args, told = self._told(name, signature_of(Augmentation), value, place)
            return self._call(Augmentation, args, told, place)
        if name in _LISTS:
            if not isinstance(value, list):
                raise self._error(place, f"{name} must be a list")
            return [self._thing(_LISTS[name], one, (*place, n), wf) for n, one in enumerate(value)]
        if "Layer" in kind:
            return self._layers(value, place)
        if isinstance(value, list):
            value = [self._resolved(one, place) for one in value]
        self._check_kind(name, kind, value, place)
        return tuple(value) if isinstance(value, list) else value

    # -- checks -------------------------------------------------------------------------------

    def _check_name(self, name: str, signature: Signature, what: str, place: Place) -> None:
        if name not in signature.kinds:
            near = nearest(name, signature.kinds)
            listing = "" if near else f"; it has {', '.join(signature.kinds)}"
            raise self._error(place, f"{what} has no option {name!r}{near}{listing}")

    def _check_needed(
        self, what: str, signature: Signature, given: Mapping[str, Any], place: Place
    ) -> None:
        missing = [name for name in signature.needed if name not in given]
        if missing:
            raise self._error(place, f"{what} needs {', '.join(missing)}")

    def _check_kind(self, name: str, kind: str, value: Plain, place: Place) -> None:
        choices = re.findall(r"Literal\[(.*?)\]", kind)
        if choices and isinstance(value, str):
            allowed = re.findall(r"['\"](.*?)['\"]", choices[0])
            if value not in allowed:
                raise self._error(
                    place,
                    f"{name} is {value!r}{nearest(value, allowed)}; give {' or '.join(allowed)}",
                )
            return
        kinds = kind.split(" | ")
        if not any(_fits(one, value) for one in kinds):
            raise self._error(place, f"{name} wants {' or '.join(kinds)}, not {value!r}")

    def _resolved(self, value: Plain, place: Place) -> Plain:
        if not _refers(value):
            return value
        name = cast("str", value)[1:]
        if name not in self._options:
            raise self._error(place, f"there is no option {name!r}{nearest(name, self._options)}")
        self._used.add(name)
        return self._options[name]

    def _call(
        self, make: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], place: Place
    ) -> Any:
        try:
            return make(*args, **kwargs)
        except DefinitionError:
            raise
        except (VeloflowError, TypeError, ValueError) as error:
            raise self._error(place, str(error)) from error

    def _error(self, place: Place, what: str) -> DefinitionError:
        return self._document.error(place, what)
