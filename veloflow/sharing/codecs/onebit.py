"""One bit a number: its sign, and two values a group that the signs stand for.

F. Seide, H. Fu, J. Droppo, G. Li, D. Yu: 1-Bit Stochastic Gradient Descent and its Application to
Data-Parallel Distributed Training of Speech DNNs. Interspeech 2014.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.sharing.codecs.base import (
    BLOCK,
    Block,
    Codec,
    Factors,
    Parts,
    Range,
    blocks_of,
    only,
    part,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OneBit"]


@final
@dataclass(frozen=True)
class OneBit(Codec):
    """Signs, and for each group the mean of what is not negative and the mean of what is.

    A group is a row of a weight matrix, all weights of one neuron (a column in the paper, whose
    matrices lie the other way). Without error feedback training gets worse: the paper's point.

    Args:
        feedback: whether what was left out is added to the next vector.
    """

    name: ClassVar[str] = "onebit"

    feedback: bool = True

    @property
    def has_feedback(self) -> bool:
        """Whether it keeps a residual."""
        return self.feedback

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return ``signs``, packed from a whole byte on for each range, and ``scales``."""
        signs = np.empty(sum(_bytes(one) for one in ranges), np.uint8)
        scales = np.empty((sum(one.groups for one in ranges), 2), vector.dtype)
        scratch = _Scratch(vector.dtype)
        byte = group = 0
        for one in ranges:
            bits = np.empty(one.size, np.bool_)
            for block in blocks_of(one, group):
                own = scales[block.groups]
                _encode(block, vector, residual, bits[block.within], own, scratch)
            signs[byte : byte + _bytes(one)] = np.packbits(bits)
            byte, group = byte + _bytes(one), group + one.groups
        return {"signs": signs, "scales": scales}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Put the means in the place of the signs."""
        only(parts, "signs", "scales")
        signs = part(parts, "signs", np.uint8, (sum(_bytes(one) for one in ranges),))
        groups = sum(one.groups for one in ranges)
        scales = part(parts, "scales", out.dtype, (groups, 2))
        out.fill(0)
        byte = group = 0
        for one in ranges:
            bits = np.unpackbits(signs[byte : byte + _bytes(one)], count=one.size)
            for block in blocks_of(one, group):
                above, below = scales[block.groups, :1], scales[block.groups, 1:]
                target = out[block.place].reshape(block.rows, block.length)
                own = bits[block.within].reshape(target.shape)
                np.multiply(own, above - below, out=target)
                np.add(target, below, out=target)
            byte, group = byte + _bytes(one), group + one.groups


def _bytes(range_: Range) -> int:
    return -(-range_.size // 8)


class _Scratch:
    """Memory for the largest block, so that none is asked for in the loop."""

    def __init__(self, dtype: np.dtype[np.floating]) -> None:
        self.numbers = np.empty(BLOCK, dtype)
        self.sizes = np.empty(BLOCK, dtype)
        self.signed = np.int32 if dtype.itemsize == 4 else np.int64
        self.sign = self.signed(np.iinfo(self.signed).min)


def _encode(
    block: Block,
    vector: NDArray[np.floating],
    residual: NDArray[np.floating] | None,
    bits: NDArray[np.bool_],
    scales: NDArray[np.floating],
    scratch: _Scratch,
) -> None:
    """Fill in the bits and scales of a block; keep what they leave out.

    All work is done on whole blocks that stay in the cache: NumPy's calls are then as quick as a
    loop of one's own. The sign bit itself decides, so that -0.0 is the same on both sides.
    """
    shape = block.rows, block.length
    count = block.rows * block.length
    numbers, sizes = scratch.numbers[:count], scratch.sizes[:count]
    if residual is None:
        np.copyto(numbers, vector[block.place])
    else:
        np.add(vector[block.place], residual[block.place], out=numbers)
    np.greater_equal(numbers.view(scratch.signed), 0, out=bits)
    np.abs(numbers, out=sizes)
    total = np.einsum("ij->i", numbers.reshape(shape))
    absolute = np.einsum("ij->i", sizes.reshape(shape))
    positive = _count(bits.reshape(shape))
    above, below = scales[:, 0], scales[:, 1]
    above[:] = (absolute + total) / (2 * np.maximum(positive, 1))
    below[:] = (total - absolute) / (2 * np.maximum(block.length - positive, 1))
    if residual is None:
        return
    # what the signs stand for is middle + half or middle - half: half gets the number's sign bit
    half, middle = (above - below) / 2, (above + below) / 2
    integers = sizes.view(scratch.signed)
    np.bitwise_and(numbers.view(scratch.signed), scratch.sign, out=integers)
    rows = integers.reshape(shape)
    np.bitwise_or(rows, half.view(scratch.signed)[:, None], out=rows)
    np.subtract(numbers, sizes, out=numbers)
    np.subtract(numbers.reshape(shape), middle[:, None], out=residual[block.place].reshape(shape))


def _count(bits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many bits of each row are set."""
    if bits.shape[1] % 8:
        plain: NDArray[np.int64] = np.count_nonzero(bits, axis=1)
        return plain
    packed = np.packbits(bits).reshape(len(bits), -1)
    counts: NDArray[np.int64] = np.add.reduce(np.bitwise_count(packed), axis=1, dtype=np.int64)
    return counts
