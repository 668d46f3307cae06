"""Declared data inputs: named ends of data links, with the shape and dtype they accept.

A unit declares what it reads::

    class Evaluator(Unit):
        output = Input[Array]("batch classes")
        labels = Input[Array]("batch", dtype="int32")

and reading ``self.output`` follows the link to another unit's attribute. In a shape, a name stands
for one size, which must be the same in all inputs of the unit; ``*name`` for any number of sizes;
``...`` for anything; a number for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar, cast, overload

from veloflow.errors import LinkError, ShapeError, nearest

if TYPE_CHECKING:
    from veloflow.core.unit import Unit

__all__ = ["DataLink", "Dims", "Input", "check_inputs", "match_shape"]

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


def check_inputs(unit: Unit) -> None:
    """Compare the linked values of all inputs with what the unit declared; fill ``unit.dims``.

    Raises:
        LinkError: an input is not linked or its source lacks the attribute.
        ShapeError: a shape or dtype does not fit.
    """
    origin: dict[str, str] = dict.fromkeys(unit.dims, f"{unit.path!r} itself")
    for declared in unit.inputs().values():
        link = unit.data_links.get(declared.name)
        if link is None and declared.optional:
            continue
        value = declared.__get__(unit, type(unit))
        if not declared.shape and not declared.dtype:
            continue
        where = f"{link.source.path!r}.{link.attribute}" if link else declared.name
        shaped = cast("_Shaped", value)
        if not hasattr(shaped, "shape"):
            raise ShapeError(
                f"unit {unit.path!r}: input {declared.name!r} wants an array of shape "
                f"({declared.shape}), but {where} is {type(value).__name__} {value!r}"
            )
        if declared.dtype and str(shaped.dtype) != declared.dtype:
            raise ShapeError(
                f"unit {unit.path!r}: input {declared.name!r} wants dtype {declared.dtype}, "
                f"but {where} is {shaped.dtype}"
            )
        wrong = match_shape(declared.shape, tuple(shaped.shape), unit.dims, origin, where)
        if wrong:
            raise ShapeError(
                f"unit {unit.path!r}: input {declared.name!r} wants shape ({declared.shape}), "
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
