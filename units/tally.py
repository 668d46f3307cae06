"""What an evaluator says of one minibatch, counted when somebody wants to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tally", "Tallying", "Told"]

T = TypeVar("T")


@dataclass(eq=False)
class Tally:
    """The sums over one minibatch.

    Attributes:
        samples: how many were evaluated; known from the first.
        loss, n_err, measured, confusion_matrix: see the evaluator; right once it is ``counted``.
        count: fills these in, where that is still to be done.
    """

    samples: int = 0
    loss: float = 0.0
    n_err: int = 0
    measured: dict[str, Any] = field(default_factory=dict)
    confusion_matrix: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    count: Callable[[Tally], None] | None = None

    def counted(self) -> Self:
        """Return this tally with all its sums; that may wait for the device."""
        if self.count is not None:
            self.count(self)
            self.count = None
        return self


class Tallying(Protocol):
    """Has a tally of the present minibatch."""

    tally: Tally


class Told(Generic[T]):
    """An attribute of a unit that is its tally's, which is counted when it is read."""

    def __set_name__(self, owner: type[Tallying], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, unit: None, owner: type[Tallying]) -> Self: ...

    @overload
    def __get__(self, unit: Tallying, owner: type[Tallying]) -> T: ...

    def __get__(self, unit: Tallying | None, owner: type[Tallying]) -> Self | T:
        if unit is None:
            return self
        value: T = getattr(unit.tally.counted(), self.name)
        return value

    def __set__(self, unit: Tallying, value: T) -> None:
        setattr(unit.tally.counted(), self.name, value)
