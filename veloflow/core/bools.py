"""Mutable truth values that compose: what the gates of units are made of.

``~a``, ``a & b``, ``a | b`` and ``a ^ b`` give values that follow their operands for ever::

    wf.end.gate_block = ~decision.complete

A composed value is brought up to date when an operand changes, not when it is read, so reading a
gate costs one attribute.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable

__all__ = ["Bool"]


def _not(value: bool, _: bool = False) -> bool:
    return not value


class Bool:
    """A truth value that can be set and watched by values composed of it."""

    __slots__ = ("__weakref__", "_followers", "value")

    def __init__(self, value: bool = False) -> None:
        #: the current truth; read it, but change it with :meth:`set` only
        self.value = bool(value)
        self._followers: list[weakref.ref[_Composed]] = []

    def set(self, value: bool) -> None:
        """Change the value and all that is composed of it."""
        value = bool(value)
        if value != self.value:
            self.value = value
            self._tell()

    def _tell(self) -> None:
        for reference in tuple(self._followers):  # one may be collected meanwhile
            follower = reference()
            if follower is not None:
                follower.update()

    def __bool__(self) -> bool:
        return self.value

    def __invert__(self) -> Bool:
        return _Composed("~", _not, self)

    def __and__(self, other: Bool) -> Bool:
        return _Composed("&", operator.and_, self, other)

    def __or__(self, other: Bool) -> Bool:
        return _Composed("|", operator.or_, self, other)

    def __xor__(self, other: Bool) -> Bool:
        return _Composed("^", operator.xor, self, other)

    def __repr__(self) -> str:
        return f"Bool({self.value})"

    @property
    def operands(self) -> tuple[Bool, ...]:
        """The values that this one is composed of; none when it is set by hand."""
        return ()

    @property
    def sign(self) -> str:
        """The operator that composes it: ``~``, ``&``, ``|`` or ``^``; '' when set by hand."""
        return ""


class _Composed(Bool):
    """A value that follows its operands."""

    __slots__ = ("_compute", "_operands", "_sign")

    def __init__(
        self,
        sign: str,
        compute: Callable[[bool, bool], bool],
        left: Bool,
        right: Bool | None = None,
    ) -> None:
        super().__init__(compute(left.value, right is not None and right.value))
        self._sign = sign
        self._compute = compute
        self._operands = (left,) if right is None else (left, right)
        for operand in self._operands:
            operand._followers.append(weakref.ref(self, operand._followers.remove))

    def update(self) -> None:
        """Follow the operands."""
        value = self._compute(self._operands[0].value, self._operands[-1].value)
        if value != self.value:
            self.value = value
            self._tell()

    def set(self, value: bool) -> None:
        raise TypeError("a composed Bool follows its operands: set one of them instead")

    @property
    def operands(self) -> tuple[Bool, ...]:
        return self._operands

    @property
    def sign(self) -> str:
        return self._sign
