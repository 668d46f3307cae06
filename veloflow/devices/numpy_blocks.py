"""Products a b^T of a few rows as blocks that OpenBLAS multiplies without packing them first.

OpenBLAS has kernels for small matrices, up to 10^6 multiplications, that read operands as they
lie; above it copies both into panels, which for few rows takes as long as to multiply. One thread
of an AMD EPYC, float32, blocks and whole: 32 x 784 x 128 60 and 110 us, 100 x 784 x 100 152 and
190 (at its best rate 149). There are such kernels for processors with AVX-512 only.

Small products run on one thread, so this is for devices that are told that they have one: those of
slaves, and of whoever computes what slaves would. The number of the moment is not looked at: it may
differ between those, and bits must not.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RowBlocks", "block_of"]

#: the multiplications of a small product, and what OpenBLAS calls the processors that have kernels
_SMALL = 1_000_000
_ARCHITECTURES = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
#: the shortest sums that are worth it
_SHORTEST = 300
#: rows and columns of a block up to lengths of its sums, and how many rows there may be
_BLOCKS = ((976, 32, 32, 256), (1953, 16, 32, 128), (3906, 16, 16, 128))
_MOST_COLUMNS = 1024


@cache
def _has_small_kernels() -> bool:
    """Whether NumPy's own BLAS is an OpenBLAS with kernels for small products."""
    return any(
        "numpy" in one.filepath
        and one.internal_api == "openblas"
        and one.architecture in _ARCHITECTURES
        for one in ThreadpoolController().lib_controllers
    )


def block_of(rows: int, columns: int, inner: int) -> tuple[int, int] | None:
    """Return rows and columns of a block for a product of these sizes; None to multiply it whole.

    It depends on the sizes alone, and on the kind of processor, so that the bits do too.
    """
    if rows * columns * inner <= _SMALL or inner < _SHORTEST or columns > _MOST_COLUMNS:
        return None
    for longest, height, width, most in _BLOCKS:
        if inner <= longest:
            return (height, width) if rows <= most else None
    return None


class RowBlocks:
    """A product ``left @ right`` whose second operand lies transposed, by blocks.

    Args:
        left: (rows, inner), each row in one piece.
        right: (inner, columns), each column in one piece.
        out: (rows, columns).
        block: see :func:`block_of`.
    """

    def __init__(
        self,
        left: NDArray[Any],
        right: NDArray[Any],
        out: NDArray[Any],
        block: tuple[int, int],
    ) -> None:
        height, width = block
        self._blocks = [
            (left[row : row + height], right[:, column : column + width],
             out[row : row + height, column : column + width])
            for row in range(0, out.shape[0], height)
            for column in range(0, out.shape[1], width)
        ]  # fmt: skip

    @classmethod
    def fitting(
        cls, left: NDArray[Any], right: NDArray[Any], out: NDArray[Any]
    ) -> RowBlocks | None:
        """Return the product by blocks; None where that is of no use."""
        lies_so = left.flags.c_contiguous and right.flags.f_contiguous and out.dtype.char in "fd"
        if not lies_so or out.ndim != 2:
            return None
        block = block_of(out.shape[0], out.shape[1], left.shape[1])
        if block is None or not _has_small_kernels():
            return None
        return cls(left, right, out, block)

    def __call__(self) -> None:
        """Multiply."""
        for left, right, out in self._blocks:
            np.matmul(left, right, out)
