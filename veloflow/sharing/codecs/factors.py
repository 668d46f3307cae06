"""Sufficient factors: the gradient of a dense layer as the two thin matrices it is a product of.

H. Zhang et al.: Poseidon: An Efficient Communication Architecture for Distributed Deep Learning on
GPU Clusters. USENIX ATC 2017. P. Xie et al.: Distributed Machine Learning via Sufficient Factor
Broadcasting. arXiv 1511.08486.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.errors import WireError
from veloflow.sharing.codecs.base import Codec, Parts, Range, only, part
from veloflow.sharing.codecs.base import Factors as Products

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Factors", "is_smaller"]


def is_smaller(batch: int, rows: int, columns: int) -> bool:
    """Whether factors of ``batch`` samples are fewer numbers than the matrix that they give."""
    return batch * (rows + columns) < rows * columns


@final
@dataclass(frozen=True)
class Factors(Codec):
    """For each layer whose gradient is u^T v, u and v where they are smaller; the rest as it is.

    The matrix is multiplied anew at the other end: it differs from the slave's own by the order
    in which the products are added, so by some units in the last place.
    """

    name: ClassVar[str] = "factors"

    @property
    def needs_factors(self) -> bool:
        """Always."""
        return True

    def encode(
        self,
        vector: NDArray[np.floating],
        ranges: Sequence[Range],
        residual: NDArray[np.floating] | None = None,
        factors: Products | None = None,
    ) -> Parts:
        """Return ``u0``, ``v0`` and so on by the number of the range, and ``rest``."""
        parts: Parts = {}
        rest = []
        for number, one in enumerate(ranges):
            found = (factors or {}).get(one.name)
            if found is not None and len(one.shape) == 2:
                u, v = found
                if is_smaller(len(u), *one.shape):
                    parts[f"u{number}"] = np.ascontiguousarray(u, vector.dtype)
                    parts[f"v{number}"] = np.ascontiguousarray(v, vector.dtype)
                    continue
            rest.append(vector[one.start : one.stop])
        parts["rest"] = np.concatenate(rest) if rest else np.empty(0, vector.dtype)
        return parts

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Multiply the factors."""
        factored = {n for n in range(len(ranges)) if f"u{n}" in parts}
        only(parts, "rest", *(f"{side}{number}" for number in factored for side in "uv"))
        size = sum(one.size for n, one in enumerate(ranges) if n not in factored)
        rest = part(parts, "rest", out.dtype, (size,))
        out.fill(0)
        first = 0
        for number, one in enumerate(ranges):
            target = out[one.start : one.stop]
            if number not in factored:
                np.copyto(target, rest[first : first + one.size])
                first += one.size
                continue
            u, v = self._factors(parts, number, one, out.dtype)
            np.matmul(u.T, v, out=target.reshape(one.shape))

    @staticmethod
    def _factors(
        parts: Mapping[str, NDArray[Any]], number: int, range_: Range, dtype: Any
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        batch = len(parts[f"u{number}"]) if parts[f"u{number}"].ndim == 2 else 0
        if len(range_.shape) != 2 or not batch or not is_smaller(batch, *range_.shape):
            raise WireError(f"factors of {range_.name!r}, which are no use there")
        rows, columns = range_.shape
        return (
            part(parts, f"u{number}", dtype, (batch, rows)),
            part(parts, f"v{number}", dtype, (batch, columns)),
        )
