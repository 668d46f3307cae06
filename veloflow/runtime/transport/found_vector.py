"""What a slave finds, a gradient or what a stretch has changed: how it travels to the master."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import WireError
from veloflow.runtime.transport.payloads import header_of, view
from veloflow.sharing.codecs import Codec, Factors, Plain, Range, parse_codec

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.core import Settings
    from veloflow.devices.parameters import Parameters
    from veloflow.protocol.messages import FrameHeader
    from veloflow.runtime.transport.connections import Frame

__all__ = ["FoundVector", "found_vector_of"]

#: the frame of a vector as it is; the parts of a coded one are ``coded/name``
_WHOLE, _CODED = "gradients", "coded/"


def found_vector_of(parameters: Parameters, settings: Settings) -> FoundVector:
    """Return how the vector of an update travels in a run: a gradient, or the change of all."""
    size = parameters.values.size
    slots = ("", *(f"@{name}" for name in parameters.slots)) if settings.local else ("",)
    ranges = [
        Range(f"{one.name}{slot}", number * size + one.start, one.shape)
        for number, slot in enumerate(slots)
        for one in parameters
    ]
    codec = parse_codec(settings.codec)
    total = len(slots) * size
    return FoundVector(total, parameters.dtype, codec, ranges, is_local=settings.local)


class FoundVector:
    """The vector of an update, on both sides.

    Args:
        size, dtype: of the vector.
        codec: how it travels.
        ranges: what it consists of, if there is a codec.
        is_local: whether it is what a stretch has changed: slaves take steps of their own.
    """

    def __init__(
        self,
        size: int,
        dtype: DTypeLike,
        codec: Codec | None = None,
        ranges: Sequence[Range] = (),
        *,
        is_local: bool = False,
    ) -> None:
        self.size, self.dtype = size, np.dtype(dtype)
        self.is_local = is_local
        self._codec = None if isinstance(codec, Plain) else codec
        self._ranges = ranges
        self._residual: NDArray[Any] | None = None
        if self._codec is not None and self._codec.has_feedback:
            self._residual = np.zeros(size, self.dtype)

    def renewed(self) -> FoundVector:
        """Return another one for the same vectors, with a residual of its own."""
        return FoundVector(self.size, self.dtype, self._codec, self._ranges, is_local=self.is_local)

    @property
    def is_shared(self) -> bool:
        """Whether it goes through shared memory where there is some: a gradient as it is."""
        return self.is_plain and not self.is_local

    @property
    def is_plain(self) -> bool:
        """Whether it travels as it is."""
        return self._codec is None

    @property
    def needs_factors(self) -> bool:
        """Whether the codec can use what gradients are products of."""
        return self._codec is not None and self._codec.needs_factors

    def write(
        self, vector: NDArray[Any], factors: Factors | None = None
    ) -> tuple[tuple[FrameHeader, ...], list[NDArray[Any]]]:
        """Return the frames of a vector. One with NaN or infinity travels as it is, to be seen."""
        if self._codec is None or not np.isfinite(vector.sum()):
            whole = vector.copy()
            return (header_of(_WHOLE, whole),), [whole]
        parts = self._codec.encode(vector, self._ranges, self._residual, factors)
        arrays = [np.ascontiguousarray(array) for array in parts.values()]
        headers = tuple(
            header_of(_CODED + name, array) for name, array in zip(parts, arrays, strict=True)
        )
        return headers, arrays

    def read(
        self,
        shared: NDArray[Any] | None,
        headers: Sequence[FrameHeader],
        frames: Sequence[Frame],
    ) -> NDArray[Any] | None:
        """Return the vector of an update, or None if it has none.

        Args:
            shared: where the slave has left it, if it shares memory.
            headers, frames: the arrays of the update.

        Raises:
            WireError: it is coded wrongly.
        """
        if shared is not None and self.is_shared:
            return shared
        parts: dict[str, NDArray[Any]] = {}
        for header, frame in zip(headers, frames, strict=True):
            if header.name == _WHOLE:
                return view(header, frame)
            if header.name.startswith(_CODED):
                parts[header.name.removeprefix(_CODED)] = view(header, frame)
        if self._codec is None or not parts:
            return None
        vector = np.empty(self.size, self.dtype)
        try:
            self._codec.decode(parts, self._ranges, vector)
        except (ValueError, TypeError, IndexError) as error:
            raise WireError(f"a coded vector that is damaged: {error}") from None
        return vector

    def nbytes(self, headers: Sequence[FrameHeader], vector: NDArray[Any]) -> int:
        """Return how many bytes the vector of an update took."""
        if self.is_plain:
            return vector.nbytes
        return sum(
            int(np.prod(header.shape, dtype=np.int64)) * np.dtype(header.dtype).itemsize
            for header in headers
            if header.name == _WHOLE or header.name.startswith(_CODED)
        )

    # -- checkpoints --------------------------------------------------------------------------

    @property
    def has_feedback(self) -> bool:
        """Whether there is a residual: what the codec has left out so far."""
        return self._residual is not None

    @property
    def residual(self) -> NDArray[Any] | None:
        """What the codec has left out so far (n,); None without error feedback."""
        return self._residual

    def keep_residual(self, place: NDArray[Any] | None = None) -> None:
        """Begin with an empty residual, in memory (n,) that others can see or in one's own."""
        if self._residual is not None:
            self._residual = np.empty_like(self._residual) if place is None else place
            self._residual.fill(0)

    def is_residual(self, vector: NDArray[Any]) -> bool:
        """Whether a vector has the form of a residual of these vectors, and finite numbers."""
        has_form = vector.shape == (self.size,) and vector.dtype == self.dtype
        return self.has_feedback and has_form and bool(np.isfinite(vector.sum()))

    def inherit(self, residual: NDArray[Any]) -> None:
        """Send what another has left out (n,) as well."""
        assert self._residual is not None
        np.add(self._residual, residual, out=self._residual)
