"""Eight bits a number: whole multiples of a step that each group has for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.sharing.codecs.base import Codec, Factors, Parts, Range, blocks_of, only, part

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Int8"]


@final
@dataclass(frozen=True)
class Int8(Codec):
    """q = round(x / s) with s = max|x| / 127 over a row of a weight matrix.

    Args:
        feedback: whether what was left out is added to the next vector.
    """

    name: ClassVar[str] = "int8"

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
        """Return ``steps``, int8, and ``scales``, the size of a step for each group."""
        steps = np.empty(sum(one.size for one in ranges), np.int8)
        scales = np.empty(sum(one.groups for one in ranges), vector.dtype)
        first = group = 0
        for one in ranges:
            for block in blocks_of(one, group):
                shape = block.rows, block.length
                numbers = vector[block.place].reshape(shape)
                if residual is not None:
                    kept = residual[block.place].reshape(shape)
                    numbers = np.add(numbers, kept, out=kept)
                scale = np.maximum.reduce(np.abs(numbers), axis=1) / 127
                scales[block.groups] = scale
                inverse = 1 / np.where(scale >= np.finfo(scale.dtype).tiny, scale, 1)
                whole = numbers * inverse[:, None]
                np.rint(whole, out=whole)
                place = slice(first + block.within.start, first + block.within.stop)
                np.copyto(steps[place].reshape(shape), whole, casting="unsafe")
                if residual is not None:
                    np.multiply(whole, scale[:, None], out=whole)
                    np.subtract(numbers, whole, out=kept)
            first, group = first + one.size, group + one.groups
        return {"steps": steps, "scales": scales}

    def decode(
        self, parts: Mapping[str, NDArray[Any]], ranges: Sequence[Range], out: NDArray[np.floating]
    ) -> None:
        """Multiply the steps by their sizes."""
        only(parts, "steps", "scales")
        steps = part(parts, "steps", np.int8, (sum(one.size for one in ranges),))
        scales = part(parts, "scales", out.dtype, (sum(one.groups for one in ranges),))
        out.fill(0)
        first = group = 0
        for one in ranges:
            for block in blocks_of(one, group):
                target = out[block.place].reshape(block.rows, block.length)
                place = slice(first + block.within.start, first + block.within.stop)
                own = steps[place].reshape(target.shape)
                np.multiply(own, scales[block.groups][:, None], out=target)
            first, group = first + one.size, group + one.groups
