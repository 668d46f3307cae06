"""Declared data inputs: named ends of data links, with the shape and dtype they accept.

A unit declares what it reads::

    class Evaluator(Unit):
        output = Input[Array]("batch classes")
        labels = Input[Array]("batch", dtype="int32")

and reading ``self.output`` follows the link to another unit's attribute. In a shape, a name stands
for one size, which must be the same in all inputs of the unit; ``*name`` for any number of sizes;
``...`` for anything; a number for itself. What joins any number of things declares
:class:`Inputs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar, cast, overload

from veloflow.errors import LinkError, ShapeError, nearest

if TYPE_CHECKING:
    from veloflow.core.unit import Unit

__all__ = ["DataLink", "Dims", "Input", "Inputs", "check_inputs", "match_shape"]

T = TypeVar("T")

#: sizes bound to the names of a unit's shapes
Dims = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class DataLink:
    """The far end of an input: an attribute of another unit."""

    source: Unit
    attribute: str

    def follow(self) -> object:
        """Return the attribute's value now.

        Raises:
            LinkError: the source has no such attribute.
        """
        try:
            return cast("object", getattr(self.source, self.attribute))
        except AttributeError:
            if hasattr(type(self.source), self.attribute):
                raise  # the property exists: its own error is the story
            known = [name for name in dir(self.source) if not name.startswith("_")]
            raise LinkError(
                f"unit {self.source.path!r} ({type(self.source).__name__}) has no attribute "
                f"{self.attribute!r} to link to{nearest(self.attribute, known)}"
            ) from None


class _Shaped(Protocol):
    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> object: ...


class Input(Generic[T]):
    """A declared data input of a unit, a descriptor.

    Args:
        shape: the accepted shape, as the module says; '' accepts anything, also what is no array.
        dtype: the accepted dtype's name, or '' for any.
        optional: whether it may stay unlinked; ``unit.has_input(name)`` tells.
    """

    def __init__(self, shape: str = "", *, dtype: str = "", optional: bool = False) -> None:
        if sum(map(_is_many, shape.split())) > 1:
            raise ValueError(f"more than one of the words in {shape!r} stands for many sizes")
        self.shape = shape
        self.dtype = dtype
        self.optional = optional
        self.name = ""

    def __set_name__(self, owner: type[Unit], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, unit: None, owner: type[Unit]) -> Self: ...

    @overload
    def __get__(self, unit: Unit, owner: type[Unit]) -> T: ...

    def __get__(self, unit: Unit | None, owner: type[Unit]) -> Self | T:
        if unit is None:
            return self
        link = unit.data_links.get(self.name)
        if link is None:
            raise LinkError(
                f"unit {unit.path!r} ({owner.__name__}): input {self.name!r} is not linked; "
                f'link it with .link_data(source, {self.name}="attribute of source")'
            )
        return cast("T", link.follow())

    def __set__(self, unit: Unit, value: T) -> None:
        raise LinkError(
            f"unit {unit.path!r}: input {self.name!r} is linked, not assigned; "
            f"use .link_data(source, {self.name}=...)"
        )

    def accepts(self, name: str) -> bool:
        """Return whether ``link_data`` may link ``name`` to this input."""
        return name == self.name

    def links(self, unit: Unit) -> dict[str, DataLink]:
        """Return the links of this input by the names they were linked by; none if unlinked."""
        link = unit.data_links.get(self.name)
        return {} if link is None else {self.name: link}


class Inputs(Input[tuple[T, ...]]):
    """A row of declared data inputs of one kind: as many as are linked, one at least.

    They are linked by the name and a number from 0 on, and read together as a tuple::

        branch = Inputs[Array]("batch *sample")

        total.link_data(one, branch0="output").link_data(other, branch1="output")
        total.branch  # the outputs of both
    """

    @overload
    def __get__(self, unit: None, owner: type[Unit]) -> Self: ...

    @overload
    def __get__(self, unit: Unit, owner: type[Unit]) -> tuple[T, ...]: ...

    def __get__(self, unit: Unit | None, owner: type[Unit]) -> Self | tuple[T, ...]:
        if unit is None:
            return self
        links = self.links(unit)
        if not links and not self.optional:
            raise LinkError(
                f"unit {unit.path!r} ({owner.__name__}): no input {self.name!r} is linked; "
                f'link the first with .link_data(source, {self.name}0="attribute of source")'
            )
        return tuple(cast("T", link.follow()) for link in links.values())

    def accepts(self, name: str) -> bool:
        """Return whether ``name`` is the input's name and a number."""
        number = name.removeprefix(self.name)
        return name.startswith(self.name) and number.isdecimal() and number == str(int(number))

    def links(self, unit: Unit) -> dict[str, DataLink]:
        """Return the links in the order of their numbers.

        Raises:
            LinkError: a number is left out.
        """
        given = {name: link for name, link in unit.data_links.items() if self.accepts(name)}
        links: dict[str, DataLink] = {}
        for number in range(len(given)):
            name = f"{self.name}{number}"
            if name not in given:
                raise LinkError(
                    f"unit {unit.path!r}: input {name!r} is not linked, and there are "
                    f"{len(given)}: {', '.join(sorted(given))}; number them from 0 on"
                )
            links[name] = given[name]
        return links


def check_inputs(unit: Unit) -> None:
    """Compare the linked values of all inputs with what the unit declared; fill ``unit.dims``.

    Raises:
        LinkError: an input is not linked or its source lacks the attribute.
        ShapeError: a shape or dtype does not fit.
    """
    origin: dict[str, str] = dict.fromkeys(unit.dims, f"{unit.path!r} itself")
    for declared in unit.inputs().values():
        links = declared.links(unit)
        if not links and not declared.optional:
            declared.__get__(unit, type(unit))  # raises the LinkError with the cure
        for name, link in links.items():
            value = link.follow()
            if declared.shape or declared.dtype:
                where = f"{link.source.path!r}.{link.attribute}"
                _check_value(unit, declared, name, value, origin, where)


def _check_value(
    unit: Unit,
    declared: Input[object],
    name: str,
    value: object,
    origin: dict[str, str],
    where: str,
) -> None:
    shaped = cast("_Shaped", value)
    if not hasattr(shaped, "shape"):
        raise ShapeError(
            f"unit {unit.path!r}: input {name!r} wants an array of shape "
            f"({declared.shape}), but {where} is {type(value).__name__} {value!r}"
        )
    if declared.dtype and str(shaped.dtype) != declared.dtype:
        raise ShapeError(
            f"unit {unit.path!r}: input {name!r} wants dtype {declared.dtype}, "
            f"but {where} is {shaped.dtype}"
        )
    wrong = match_shape(declared.shape, tuple(shaped.shape), unit.dims, origin, where)
    if wrong:
        raise ShapeError(
            f"unit {unit.path!r}: input {name!r} wants shape ({declared.shape}), "
            f"but {where} has shape {tuple(shaped.shape)}: {wrong}"
        )


def _is_many(word: str) -> bool:
    return word == "..." or word.startswith("*")


def match_shape(
    spec: str, shape: tuple[int, ...], dims: Dims, origin: dict[str, str], where: str
) -> str:
    """Match ``shape`` against ``spec``, binding names in ``dims``; return what is wrong, or ''."""
    words = spec.split()
    if not words or words == ["..."]:
        return ""
    many = [n for n, word in enumerate(words) if _is_many(word)]
    head = many[0] if many else len(words)
    tail = len(words) - head - 1 if many else 0
    if len(shape) < head + tail or (not many and len(shape) != head):
        return f"it has {len(shape)} dimensions"
    parts: list[tuple[str, int | tuple[int, ...]]] = list(
        zip(words[:head], shape[:head], strict=True)
    )
    if many:
        rest = len(shape) - tail
        if words[head] != "...":
            parts.append((words[head][1:], shape[head:rest]))
        parts.extend(zip(words[head + 1 :], shape[rest:], strict=True))
    for word, size in parts:
        if word.isdigit():
            if int(word) != size:
                return f"{size} where {word} must be"
        elif word not in dims:
            dims[word] = size
            origin[word] = where
        elif dims[word] != size:
            return f"{word!r} is {size} here and {dims[word]} in {origin[word]}"
    return ""
