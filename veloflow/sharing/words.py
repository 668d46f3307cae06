"""Words with options, ``ssp:3`` or ``topk:share=0.01,feedback=off``: to objects and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from veloflow.errors import DefinitionError, OptionError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)

__all__ = ["known_words", "read_word", "write_word"]

_TRUTHS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def known_words(own: Iterable[type[Any]], group: str, what: str) -> dict[str, Any]:
    """Return classes by name: those of veloflow's own, and those that installed packages add.

    Args:
        own: veloflow's.
        group: of the entry points, whose names are those of the classes.
        what: what the names are, such as ``codec``.

    Raises:
        DefinitionError: what an installed package adds cannot be loaded.
    """
    found: dict[str, Any] = {one.name: one for one in own}
    for entry in entry_points(group=group):
        try:
            loaded = entry.load()
        except Exception as error:
            raise DefinitionError(f"{what} {entry.name!r} of {entry.value}: {error}") from error
        found.setdefault(entry.name, loaded)
    return found


def read_word(text: str, known: Mapping[str, type[T]], option: str, what: str) -> T:
    """Read ``name``, ``name:value,…`` or ``name:option=value,…``.

    The options are the fields of the dataclass of that name; values without a name fill them in
    order.

    Args:
        text: what the user wrote.
        known: the dataclasses by name.
        option: where it was written, such as ``--codec``.
        what: what the names are, such as ``codec``.

    Raises:
        OptionError: there is no such name or option, or a value does not fit; the message says
            what there is.
    """
    name, _, rest = text.partition(":")
    if name not in known:
        listed = ", ".join(sorted(known))
        hint = nearest(name, known)
        raise OptionError(f"{option}: no {what} {name!r}{hint}; there are: {listed}")
    kind = known[name]
    here = f"{option} {name}"
    own = {field.name: field for field in fields(kind) if field.init}
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for place, word in enumerate(filter(None, rest.split(","))):
        key, equals, value = word.partition("=")
        if not equals and key not in own:
            if place >= len(own):
                raise OptionError(f"{here}: {word!r} is one value too many; it has: {_listed(own)}")
            key, value = list(own)[place], word
        if key not in own:
            raise OptionError(f"{here} has no option {key!r}{nearest(key, own)}; it has: "
                              f"{_listed(own)}")  # fmt: skip
        if key in values:
            raise OptionError(f"{here}: {key} is given twice")
        values[key] = _value(value, types[key], f"{here}: {key}")
    missing = [one for one, field in own.items() if one not in values and not _has_default(field)]
    if missing:
        raise OptionError(f"{here}: give {missing[0]}, as in {name}:{missing[0]}=…")
    try:
        return kind(**values)
    except ValueError as error:
        raise OptionError(f"{here}: {error}") from None


def write_word(name: str, thing: DataclassInstance) -> str:
    """Return the text that :func:`read_word` makes ``thing`` of; defaults are left out."""
    words = []
    for field in fields(thing):
        value = getattr(thing, field.name)
        if field.init and not (_has_default(field) and value == field.default):
            words.append(f"{field.name}={_text(value)}")
    return f"{name}:{','.join(words)}" if words else name


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING


def _listed(own: Mapping[str, object]) -> str:
    return ", ".join(own) or "none"


def _value(text: str, kind: object, here: str) -> object:
    if kind is bool:
        if text.lower() not in _TRUTHS:
            raise OptionError(f"{here} is {text!r}; give on or off")
        return _TRUTHS[text.lower()]
    if kind is int:
        if not (text.isascii() and text.isdecimal()):
            raise OptionError(f"{here} is {text!r}; give a whole number")
        return int(text)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise OptionError(f"{here} is {text!r}; give a number") from None
    return text
