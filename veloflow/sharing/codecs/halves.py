"""Sixteen bits a number: IEEE half precision, or float32 cut short (bfloat16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.sharing.codecs.base import BLOCK, Codec, Factors, Parts, Range, only, part

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BFloat16", "Float16"]

_LARGEST = np.finfo(np.float16).max


@final
@dataclass(frozen=True)
class Float16(Codec):
    """IEEE half precision: 11 bits of precision; what is above 65504 is cut to that."""

    name: ClassVar[str] = "float16"

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return ``halves``, float16."""
        return {"halves": np.clip(vector, -_LARGEST, _LARGEST).astype(np.float16)}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Widen the numbers."""
        only(parts, "halves")
        np.copyto(out, part(parts, "halves", np.float16, out.shape))


@final
@dataclass(frozen=True)
class BFloat16(Codec):
    """The upper half of float32, rounded to the nearest: the range of float32, 8 bits precise."""

    name: ClassVar[str] = "bfloat16"

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return ``uppers``, uint16."""
        numbers = np.ascontiguousarray(vector, np.float32).view(np.uint32)
        uppers = np.empty(vector.size, np.uint16)
        for begin in range(0, vector.size, BLOCK):
            bits = numbers[begin : begin + BLOCK]
            # to the nearest, halves to even; the largest are cut, lest they become infinite
            rounded = bits >> 16
            np.bitwise_and(rounded, 1, out=rounded)
            np.add(rounded, bits, out=rounded)
            np.add(rounded, np.uint32(0x7FFF), out=rounded)
            is_over = (rounded & 0x7F800000) == 0x7F800000
            if is_over.any():
                np.copyto(rounded, bits, where=is_over)
            np.right_shift(rounded, 16, out=rounded)
            np.copyto(uppers[begin : begin + BLOCK], rounded, casting="unsafe")
        return {"uppers": uppers}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Put zeros behind."""
        only(parts, "uppers")
        uppers = part(parts, "uppers", np.uint16, out.shape)
        np.copyto(out, (uppers.astype(np.uint32) << 16).view(np.float32))
        if not np.isfinite(out).all():
            part({"uppers": out}, "uppers", out.dtype, out.shape)
