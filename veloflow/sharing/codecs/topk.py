"""The largest numbers only, with their places; the others wait in the residual.

A. Aji, K. Heafield: Sparse Communication for Distributed Gradient Descent. EMNLP 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.errors import WireError
from veloflow.sharing.codecs.base import BLOCK, Codec, Factors, Parts, Range, only, part

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TopK"]

#: of so many numbers the threshold is guessed
_SAMPLE = 8192


@final
@dataclass(frozen=True)
class TopK(Codec):
    """The share of the numbers that is largest by absolute value, over the whole vector.

    Args:
        share: of the numbers that travel, in (0, 1].
        feedback: whether what was left out is added to the next vector.
    """

    name: ClassVar[str] = "topk"

    share: float = 0.01
    feedback: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share:g}; give one above 0, 1 at most")

    @property
    def has_feedback(self) -> bool:
        """Whether it keeps a residual."""
        return self.feedback

    def _count(self, size: int) -> int:
        return min(size, max(1, ceil(self.share * size)))

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return ``places``, uint32 in order, and ``values``."""
        if residual is None:
            whole: NDArray[np.floating] = vector
        else:
            whole = residual
            for begin in range(0, vector.size, BLOCK):
                end = begin + BLOCK
                np.add(vector[begin:end], whole[begin:end], out=whole[begin:end])
        places = np.sort(_largest(whole, self._count(vector.size)))
        values = whole[places]
        if residual is not None:
            residual[places] = 0
        return {"places": places.astype(np.uint32), "values": values}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Put the values to their places among zeros."""
        only(parts, "places", "values")
        shape = (self._count(out.size),)
        places = part(parts, "places", np.uint32, shape)
        values = part(parts, "values", out.dtype, shape)
        if shape[0] and (places[-1] >= out.size or not (places[1:] > places[:-1]).all()):
            raise WireError("places of a coded vector are out of order or beyond its end")
        out.fill(0)
        out[places] = values


def _largest(vector: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the places of the numbers that are largest by absolute value.

    A threshold that lets somewhat more pass is guessed from a sample; one pass over the vector
    finds those, and only they are ordered. Where the guess was too high it is lowered.
    """
    if vector.size <= 4 * _SAMPLE or 4 * count > vector.size:
        return np.argpartition(np.abs(vector), vector.size - count)[vector.size - count :]
    sample = np.sort(np.abs(vector[:: vector.size // _SAMPLE]))
    share = count / vector.size
    wanted = share + 4 * (share / len(sample)) ** 0.5
    while True:
        threshold = sample[max(0, int(len(sample) * (1 - wanted)))] if wanted < 1 else 0
        places = _above(vector, threshold)
        if len(places) >= count:
            sizes = np.abs(vector[places])
            return places[np.argpartition(sizes, len(sizes) - count)[len(sizes) - count :]]
        wanted *= 2
        if threshold == 0:  # nearly all are zeros: any of those will do
            return np.argpartition(np.abs(vector), vector.size - count)[vector.size - count :]


def _above(vector: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    found = []
    sizes = np.empty(BLOCK, vector.dtype)
    is_above = np.empty(BLOCK, np.bool_)
    for begin in range(0, vector.size, BLOCK):
        own = vector[begin : begin + BLOCK]
        np.abs(own, out=sizes[: len(own)])
        np.greater(sizes[: len(own)], threshold, out=is_above[: len(own)])
        found.append(np.flatnonzero(is_above[: len(own)]) + begin)
    return np.concatenate(found)
