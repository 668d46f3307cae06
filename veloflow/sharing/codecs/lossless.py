"""Lossless compression: bytes of one weight together, then zlib, Zstandard or LZ4."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.errors import NotFoundError, WireError
from veloflow.sharing.codecs.base import Codec, Factors, Parts, Range, only

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LZ4", "ZLib", "ZStandard"]


class Lossless(Codec):
    """Compresses the vector's bytes, the lowest of all numbers first. An outline.

    The exponents of gradients are much alike and their lowest bits are noise; together each sort
    compresses as well as it can. Expect a fifth off, not more: noise does not compress.
    """

    @abstractmethod
    def _compress(self, data: bytes) -> bytes: ...

    @abstractmethod
    def _expand(self, data: bytes, size: int) -> bytes:
        """Return the data, ``size`` bytes at most; raise WireError or ValueError if it is not."""

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return ``packed``, bytes."""
        planes = vector.view(np.uint8).reshape(-1, vector.itemsize).T
        return {"packed": np.frombuffer(self._compress(planes.tobytes()), np.uint8)}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Expand the bytes, no more than the vector has."""
        only(parts, "packed")
        packed = parts.get("packed")
        if packed is None or packed.dtype != np.uint8 or packed.ndim != 1:
            raise WireError("a compressed vector that is not bytes")
        data = self._expand(packed.tobytes(), out.nbytes)
        if len(data) != out.nbytes:
            raise WireError(f"a compressed vector of {len(data)} bytes, not {out.nbytes}")
        planes = np.frombuffer(data, np.uint8).reshape(out.itemsize, out.size)
        np.copyto(out.view(np.uint8).reshape(out.size, out.itemsize), planes.T)
        if not np.isfinite(out).all():
            raise WireError("NaN or infinity in a compressed vector")


@final
@dataclass(frozen=True)
class ZLib(Lossless):
    """zlib, which comes with Python.

    Args:
        level: 1 is quick, 9 is small.
    """

    name: ClassVar[str] = "zlib"

    level: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 9:
            raise ValueError(f"level is {self.level}; give one from 0 to 9")

    def _compress(self, data: bytes) -> bytes:
        return zlib.compress(data, self.level)

    def _expand(self, data: bytes, size: int) -> bytes:
        engine = zlib.decompressobj()
        try:
            found = engine.decompress(data, size + 1)
        except zlib.error as error:
            raise WireError(f"a compressed vector that is damaged: {error}") from None
        if not engine.eof:
            raise WireError("a compressed vector that is too long, or cut short")
        return found


@final
@dataclass(frozen=True)
class ZStandard(Lossless):
    """Zstandard, of the extra ``compress``.

    Args:
        level: 1 is quick, 19 is small.
    """

    name: ClassVar[str] = "zstd"

    level: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 19:
            raise ValueError(f"level is {self.level}; give one from 1 to 19")

    def _compress(self, data: bytes) -> bytes:
        try:
            import zstandard
        except ModuleNotFoundError:
            raise _missing(self.name) from None
        compressed: bytes = zstandard.ZstdCompressor(level=self.level).compress(data)
        return compressed

    def _expand(self, data: bytes, size: int) -> bytes:
        try:
            import zstandard
        except ModuleNotFoundError:
            raise _missing(self.name) from None
        try:
            if zstandard.frame_content_size(data) != size:
                raise WireError("a compressed vector of another size")
            expanded: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise WireError(f"a compressed vector that is damaged: {error}") from None
        return expanded


@final
@dataclass(frozen=True)
class LZ4(Lossless):
    """LZ4, of the extra ``compress``: the quickest, and it saves least."""

    name: ClassVar[str] = "lz4"

    def _compress(self, data: bytes) -> bytes:
        try:
            import lz4.block
        except ModuleNotFoundError:
            raise _missing(self.name) from None
        return bytes(lz4.block.compress(data, store_size=False))

    def _expand(self, data: bytes, size: int) -> bytes:
        try:
            import lz4.block
        except ModuleNotFoundError:
            raise _missing(self.name) from None
        try:
            return bytes(lz4.block.decompress(data, uncompressed_size=size))
        except lz4.block.LZ4BlockError as error:
            raise WireError(f"a compressed vector that is damaged: {error}") from None


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"--codec {name} is an extra: pip install 'veloflow[compress]'")
