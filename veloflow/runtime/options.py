"""A definition's options: the keyword arguments of its ``build``, checked by their annotations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec

from veloflow.errors import DefinitionError, OptionError, nearest
from veloflow.places import RemotePath, is_url, place_of

if TYPE_CHECKING:
    from veloflow.runtime.definition import Definition

__all__ = ["Option", "convert_options", "options_of", "parse_assignments"]


@dataclass(frozen=True)
class Option:
    """An option of a definition.

    Attributes:
        name: the keyword.
        kind: its annotation.
        default: its default; ``inspect.Parameter.empty`` when it must be given.
        help: what the docstring of ``build`` says of it.
    """

    name: str
    kind: Any
    default: object
    help: str

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty

    @property
    def type_name(self) -> str:
        """The annotation as a reader would write it."""
        if isinstance(self.kind, type) and not get_args(self.kind):
            return self.kind.__name__
        return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(self.kind))


def options_of(definition: Definition) -> list[Option]:
    """Return the options of a definition.

    Raises:
        DefinitionError: ``build`` takes something that is no annotated keyword argument.
    """
    where = f"{definition.path or definition.name}: build()"
    parameters = list(inspect.signature(definition.build).parameters.values())
    if not parameters:
        raise DefinitionError(f"{where} must take the workflow as its first argument")
    try:
        hints = get_type_hints(definition.build)
    except NameError as error:
        raise DefinitionError(f"{where}: an annotation cannot be read: {error}") from error
    helps = _help_of(inspect.getdoc(definition.build) or "")
    options = []
    for parameter in parameters[1:]:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name not in hints:
            raise DefinitionError(
                f"{where}: option {parameter.name!r} must be an annotated keyword-only argument, "
                f"such as *, {parameter.name.strip('*')}: int = 1"
            )
        name = parameter.name
        options.append(Option(name, hints[name], parameter.default, helps.get(name, "")))
    return options


def _help_of(docstring: str) -> dict[str, str]:
    """Read the ``Args:`` section of a docstring: name -> text."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    helps: dict[str, str] = {}
    name = ""
    for line in section.group(1).splitlines():
        entry = re.match(r"    (\w+):\s*(.*)", line)
        if entry:
            name, helps[entry.group(1)] = entry.group(1), entry.group(2)
        elif name and line.strip():
            helps[name] += " " + line.strip()
    return helps


def parse_assignments(words: Iterable[str]) -> dict[str, str]:
    """Split ``name=value`` words.

    Raises:
        OptionError: a word has no ``=``, or a name comes twice.
    """
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise OptionError(f"{word!r} is not an option of the form name=value")
        if name in values:
            raise OptionError(f"option {name!r} is given twice")
        values[name] = value
    return values


def convert_options(options: Iterable[Option], given: Mapping[str, object]) -> dict[str, object]:
    """Check ``given`` values (texts, or Python values) and return all options with defaults.

    Raises:
        OptionError: an option is unknown, badly typed or missing.
    """
    known = {option.name: option for option in options}
    for name in given:
        if name not in known:
            listing = ", ".join(known) or "none"
            raise OptionError(
                f"unknown option {name!r}{nearest(name, known)}; there are: {listing}"
            )
    values: dict[str, object] = {}
    for option in known.values():
        if option.name in given:
            values[option.name] = _convert(option, given[option.name])
        elif option.is_required:
            raise OptionError(f"option {option.name!r} ({option.type_name}) must be given")
        else:
            values[option.name] = option.default
    return values


def _convert(option: Option, value: object) -> object:
    raw = value
    if isinstance(raw, str):
        if raw.lower() in ("none", "null") and NoneType in get_args(option.kind):
            return None
        if raw[:1] in ("[", "{"):
            try:
                raw = msgspec.json.decode(raw)
            except msgspec.DecodeError as error:
                raise OptionError(
                    f"option {option.name!r}: {value!r} is not JSON: {error}"
                ) from None
    is_place = Path in (option.kind, *get_args(option.kind))
    if is_place and (is_url(raw) or isinstance(raw, RemotePath)):
        return place_of(raw)
    try:
        return msgspec.convert(raw, option.kind, strict=False, dec_hook=_decode)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise OptionError(
            f"option {option.name!r} wants {option.type_name}, not {value!r} ({error})"
        ) from None


def _decode(kind: type[Any], value: object) -> object:
    if isinstance(value, kind):
        return value
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"{value!r} is no {kind.__name__}")
