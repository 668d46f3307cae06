"""What all codecs share: an update's vector to parts that travel, and back, checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from veloflow.errors import WireError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK", "Block", "Codec", "Factors", "Parts", "Range", "blocks_of", "only", "part"]

#: what travels of a vector: arrays by name
Parts = dict[str, "NDArray[Any]"]
#: what a layer's gradient is a product of: name of its range -> (u, v), the gradient being u^T v
Factors = Mapping[str, "tuple[NDArray[Any], NDArray[Any]]"]

#: a group of numbers that shares its scale has so many at least, unless its range is smaller …
_SHORTEST = 512
#: … and so many at most
_LONGEST = 8192
#: numbers that are worked on together: they stay in the cache, and NumPy's calls cost little
BLOCK = 65536


@dataclass(frozen=True)
class Range:
    """A named range of the flat vector: a layer's weights, or its bias."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + self.size

    @property
    def group(self) -> int:
        """How many numbers share a scale: a row of a matrix, the weights of one neuron.

        Rows below 512 numbers are taken together, for scales cost bytes too.
        """
        row = prod(self.shape[1:]) if len(self.shape) > 1 else self.size
        row *= max(1, ceil(_SHORTEST / max(row, 1)))
        return max(1, min(row, _LONGEST, self.size))

    @property
    def groups(self) -> int:
        """How many scales it has."""
        return ceil(self.size / self.group)


@dataclass(frozen=True)
class Block:
    """Some whole groups of a range: rows of one length, small enough for the cache.

    Attributes:
        place: of its numbers in the flat vector.
        rows, length: how they are grouped.
        within: its place in the range.
        groups: the place of its groups' scales among all scales.
    """

    place: slice
    rows: int
    length: int
    within: slice
    groups: slice


def blocks_of(range_: Range, first_group: int) -> Iterator[Block]:
    """Cut a range into blocks; the last group may be shorter, and is a block of its own."""
    length = range_.group
    rows = max(1, BLOCK // length)
    whole = range_.size // length
    for row in range(0, whole, rows):
        count = min(rows, whole - row)
        begin, end = row * length, (row + count) * length
        yield _block(range_, begin, end, count, first_group + row)
    if whole * length < range_.size:
        yield _block(range_, whole * length, range_.size, 1, first_group + whole)


def _block(range_: Range, begin: int, end: int, rows: int, group: int) -> Block:
    place = slice(range_.start + begin, range_.start + end)
    return Block(place, rows, (end - begin) // rows, slice(begin, end), slice(group, group + rows))


class Codec(ABC):
    """How an update's vector travels. An outline; a codec is a frozen dataclass of its options.

    A codec with error feedback adds what it left out of earlier vectors to the next one and keeps
    anew what it leaves out: the *residual*, which is the caller's and is changed in place. So
    nothing is lost for good, only later (Seide et al., 2014).
    """

    #: what a user writes after ``--codec``
    name: ClassVar[str]

    @property
    def has_feedback(self) -> bool:
        """Whether it keeps a residual."""
        return False

    @property
    def needs_factors(self) -> bool:
        """Whether it can use what gradients are products of."""
        return False

    @abstractmethod
    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return what travels of a vector.

        Args:
            vector: (n,) finite; it is not changed.
            ranges: what its parts are, in order; numbers between them do not travel.
            residual: (n,) of the vector's dtype, changed in place; None without error feedback.
            factors: of those ranges whose gradient is a known product.
        """

    @abstractmethod
    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Write the vector that the parts stand for into ``out`` (n,); between ranges go zeros.

        Raises:
            WireError: the parts are not what a vector of these ranges becomes.
        """


def part(
    parts: Mapping[str, NDArray[Any]], name: str, dtype: Any, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return a part that must be there, of this dtype and shape, with finite numbers.

    Raises:
        WireError: it is not.
    """
    found = parts.get(name)
    if found is None:
        raise WireError(f"a coded vector without its {name}")
    if found.dtype != np.dtype(dtype) or found.shape != shape:
        raise WireError(
            f"{name} of a coded vector is {found.dtype} {found.shape}, not {np.dtype(dtype)} "
            f"{shape}"
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise WireError(f"NaN or infinity in {name} of a coded vector")
    return found


def only(parts: Mapping[str, NDArray[Any]], *names: str) -> None:
    """Refuse parts of other names.

    Raises:
        WireError: there are others.
    """
    strange = sorted(set(parts) - set(names))
    if strange:
        raise WireError(f"a coded vector with {strange[0]!r:.80}")
