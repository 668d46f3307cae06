"""The vector as it is: the codec that codes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.sharing.codecs.base import Codec, Factors, Parts, Range, only, part

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Plain"]


@final
@dataclass(frozen=True)
class Plain(Codec):
    """All numbers, all bits."""

    name: ClassVar[str] = "plain"

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Factors | None = None,
    ) -> Parts:
        """Return the vector itself, a view."""
        return {"plain": vector}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Copy the vector."""
        only(parts, "plain")
        np.copyto(out, part(parts, "plain", out.dtype, out.shape))
