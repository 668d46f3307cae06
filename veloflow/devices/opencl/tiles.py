"""The ways to multiply matrices: which there are for a device, and which one a size takes.

All kernels sum over the inner dimension from first to last, so they give the same bits; only the
host's BLAS does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

__all__ = [
    "Blas",
    "Choice",
    "Direct",
    "Facts",
    "Local",
    "Method",
    "Packed",
    "choose",
    "default_choices",
    "direct_candidates",
    "fits",
    "local_candidates",
    "packed_candidates",
    "size_of",
]


@dataclass(frozen=True)
class Facts:
    """What decides which tiles a device can take.

    ``local_memory`` and ``vector_bytes`` in bytes; ``group_limit`` in work-items.
    """

    is_cpu: bool
    vector_bytes: int
    compute_units: int
    local_memory: int
    group_limit: int


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="method"):
    pass


class Direct(_Record, frozen=True, tag="direct"):
    """Operands where they lie; only columns that are not contiguous are packed, by each work-item.

    Attributes:
        tall, wide: rows of a tile, and its vectors of columns.
        vector: the bytes of a vector.
    """

    tall: int
    wide: int
    vector: int

    def __str__(self) -> str:
        return f"direct {self.tall}x{self.wide}x{self.vector // 4}"


class Packed(_Record, frozen=True, tag="packed"):
    """Both operands are packed first.

    Attributes:
        tall, wide, vector: as above.
        depth: how much of the inner dimension is packed at a time.
        block: tiles, one below the other, that are gone through before the next columns.
    """

    tall: int
    wide: int
    vector: int
    depth: int
    block: int

    def __str__(self) -> str:
        return (
            f"packed {self.tall}x{self.wide}x{self.vector // 4} depth {self.depth} "
            f"block {self.block}"
        )


class Local(_Record, frozen=True, tag="local"):
    """Tiles of a work-group in local memory, for GPUs.

    Attributes:
        rows, columns, depth: the tile.
        down, across: the sums of one work-item.
        grain: 1, or 4 where a work-item's rows and columns come in runs of four.
    """

    rows: int
    columns: int
    depth: int
    down: int
    across: int
    grain: int

    @property
    def items(self) -> int:
        """The work-items of a group."""
        return (self.rows // self.down) * (self.columns // self.across)

    def memory(self, itemsize: int) -> int:
        """Return the bytes of local memory."""
        return self.depth * (self.rows + self.columns + 2 * self.grain) * itemsize

    def __str__(self) -> str:
        return (
            f"local {self.rows}x{self.columns}x{self.depth} sums {self.down}x{self.across} "
            f"grain {self.grain}"
        )


class Blas(_Record, frozen=True, tag="blas"):
    """The host's BLAS on memory that a CPU device shares with it."""

    def __str__(self) -> str:
        return "BLAS of the host"


Method: TypeAlias = Direct | Packed | Local | Blas


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A method, and the size from which on it is taken; see :func:`size_of`."""

    from_size: int
    method: Method


def size_of(facts: Facts, rows: int, columns: int, inner: int, stack: int) -> int:
    """Return the edge of the square product that a product is like.

    On a CPU what counts is the work of one matrix; on a GPU the number of sums, which is what its
    many cores can be given.
    """
    if facts.is_cpu:
        return round(math.cbrt(rows * columns * inner))
    return math.isqrt(rows * columns * stack)


def choose(choices: Sequence[Choice], size: int, *, blas: bool, scattered: int = 0) -> list[Method]:
    """Return the methods for a size, the one to take first, the others should it fail.

    Args:
        choices: in rising order of ``from_size``.
        size: see :func:`size_of`.
        blas: whether the host's BLAS can be taken at all.
        scattered: the bytes of the first operand where its rows are not contiguous. The direct
            kernel is slow where they leave the cache (0.60 of OpenBLAS, packed 0.83, at
            128 x 3136 x 100).
    """
    able = [one for one in choices if blas or not isinstance(one.method, Blas)]
    taken = [one.method for one in able if one.from_size <= size]
    rest = [one.method for one in able if one.from_size > size]
    methods = taken[::-1] + rest
    if scattered > _CACHED and isinstance(methods[0], Direct):
        methods.sort(key=lambda method: not isinstance(method, Packed))
    return methods


def fits(method: Method, facts: Facts, itemsize: int = 4) -> bool:
    """Return whether a device can take a method at all."""
    match method:
        case Local():
            is_whole = method.rows % method.down == method.columns % method.across == 0
            is_grained = method.down % method.grain == method.across % method.grain == 0
            return (
                is_whole
                and is_grained
                and method.memory(itemsize) <= facts.local_memory
                and method.items <= facts.group_limit
            )
        case Direct() | Packed():
            return facts.is_cpu and 4 <= method.vector <= max(4, facts.vector_bytes)
        case Blas():
            return facts.is_cpu


def default_choices(facts: Facts) -> tuple[Choice, ...]:
    """Return what is taken where nobody has tuned.

    On a CPU: with two vectors of columns six rows fill 12 of the 16 registers of AVX2, eight rows
    half of the 32 of AVX-512. The host's BLAS is not quicker, waits for all launches before it, and
    its threads then spin on the cores that the next launch wants; tuning may still choose it. On a
    GPU a larger tile is taken where there is one for every core.
    """
    if facts.is_cpu:
        vector = max(4, facts.vector_bytes)
        tall = 6 if vector <= 32 else 8
        return (
            Choice(0, Direct(tall, 2, vector)),
            Choice(_PACKED_FROM, Packed(tall, 2, vector, 512, 16)),
        )
    tiles = (Local(32, 32, 16, 2, 2, 1), Local(64, 64, 16, 4, 4, 4), Local(128, 128, 16, 8, 8, 4))
    able = [tile for tile in tiles if fits(tile, facts)] or [Local(16, 16, 8, 2, 2, 1)]
    root = math.sqrt(facts.compute_units)
    return tuple(
        Choice(0 if number == 0 else round(tile.rows * root), tile)
        for number, tile in enumerate(able)
    )


#: the edge from which on packing pays, on a CPU where the first operand lies well
_PACKED_FROM = 288
#: bytes that a core's own cache surely holds
_CACHED = 1 << 19


#: rows and vectors of tiles whose sums leave registers for the operands: of the 16 that a core
#: surely has, and of the 32 of AVX-512
_SHAPES = {
    16: ((6, 2), (4, 3), (5, 2), (12, 1), (4, 2)),
    32: ((8, 2), (12, 2), (8, 3), (14, 2), (6, 4), (10, 2)),
}


def _shapes(facts: Facts) -> Iterator[tuple[int, int, int]]:
    """Yield rows, vectors and their bytes."""
    full = max(4, facts.vector_bytes)
    for tall, wide in _SHAPES[32 if full > 32 else 16]:
        yield tall, wide, full
    if full > 32:  # the compiler of some PoCL makes worse code for the widest
        for tall, wide in _SHAPES[16]:
            yield tall, wide, 32


def direct_candidates(facts: Facts) -> list[Method]:
    """Return the tiles of the direct kernel to try, the default first."""
    default = default_choices(facts)[0].method
    return _unique([default, *(Direct(*shape) for shape in _shapes(facts))])


def packed_candidates(facts: Facts) -> list[Method]:
    """Return the tiles of the packed kernel to try, the default first."""
    default = default_choices(facts)[1].method
    assert isinstance(default, Packed)
    found: list[Method] = [default]
    found += [Packed(*shape, 512, 16) for shape in _shapes(facts)]
    for depth in (256, 1024):
        found.append(Packed(default.tall, default.wide, default.vector, depth, 16))
    for block in (8, 48):
        found.append(Packed(default.tall, default.wide, default.vector, 512, block))
    return _unique(found)


def local_candidates(facts: Facts, *, small: bool) -> list[Method]:
    """Return the tiles of a GPU to try, the likeliest first: for few sums, or for many."""
    few = [
        Local(32, 32, 16, 2, 2, 1), Local(16, 16, 16, 1, 1, 1), Local(32, 64, 16, 2, 4, 1),
        Local(32, 32, 32, 2, 2, 1), Local(32, 32, 16, 4, 4, 4), Local(64, 64, 16, 4, 4, 4),
    ]  # fmt: skip
    many = [
        Local(128, 128, 16, 8, 8, 4), Local(64, 64, 16, 4, 4, 4), Local(128, 128, 8, 8, 8, 4),
        Local(128, 64, 16, 8, 4, 4), Local(64, 64, 16, 8, 8, 4), Local(128, 128, 16, 8, 8, 1),
    ]  # fmt: skip
    return [tile for tile in (few if small else many) if fits(tile, facts)]


def _unique(methods: Sequence[Method]) -> list[Method]:
    return list(dict.fromkeys(methods))
