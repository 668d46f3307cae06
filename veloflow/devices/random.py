"""Counter-based random numbers: the same on every device and whoever computes them.

Philox 4x64-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011),
bit for bit the generator of ``numpy.random.Philox``. A number is a function of a key and a place:
nothing is drawn in turn, so no order of drawing can change it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["generator", "key_of", "uniform"]

_WORD = (1 << 64) - 1


def key_of(seed: int, *names: str | int) -> tuple[int, int]:
    """Return the Philox key of a run's seed and a path of names, such as unit and purpose."""
    text = "\0".join([str(int(seed)), *(str(name) for name in names)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator on the key of ``seed`` and ``names``, for host-side drawing."""
    low, high = key_of(seed, *names)
    return np.random.Generator(np.random.Philox(key=low | high << 64))


def words(key: tuple[int, int], stream: int, first: int, count: int) -> NDArray[np.uint64]:
    """Return ``count`` blocks of four words, at the counters (first, stream, 0, 0) and on.

    Returns: uint64 of shape (count, 4).
    """
    # NumPy steps its counter before it computes a block, so it starts one before ours
    counter = ((first & _WORD) | (stream & _WORD) << 64) - 1
    bits = np.random.Philox(key=key[0] | key[1] << 64, counter=counter % (1 << 256))
    return bits.random_raw(4 * count).reshape(count, 4)


def uniform(
    key: tuple[int, int], rows: int, columns: int, *, stream: int, row: int, dtype: DTypeLike
) -> NDArray[np.floating]:
    """Return uniform numbers in [0, 1) of shape (rows, columns).

    The element at (r, c) comes from word c % 4 of the block at counter
    ((row + r) * ceil(columns / 4) + c // 4, stream, 0, 0): the top 24 bits for float32, the top
    53 for float64, divided by their count.
    """
    blocks = -(-columns // 4)
    raw = words(key, stream, row * blocks, rows * blocks).reshape(rows, blocks * 4)[:, :columns]
    if np.dtype(dtype) == np.float32:
        return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
