"""Payloads on the wire: JSON values in the header, arrays in frames of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.errors import InputError
from veloflow.protocol.messages import Data, FrameHeader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Payload

__all__ = ["Packed", "header_of", "pack", "unpack", "view"]

#: what a message carries: JSON values by unit path, headers of frames, the frames
Packed = tuple[dict[str, Data], tuple[FrameHeader, ...], list["NDArray[np.generic]"]]


def pack(payloads: Mapping[str, Payload]) -> Packed:
    """Take the arrays out of payloads, by unit path; each becomes a frame ``path:name``.

    Raises:
        InputError: a payload holds what is neither a JSON value nor an array of numbers.
    """
    data: dict[str, Data] = {}
    headers: list[FrameHeader] = []
    arrays: list[NDArray[np.generic]] = []
    for path, payload in payloads.items():
        own: dict[str, object] = {}
        for name, value in payload.items():
            if isinstance(value, np.ndarray):
                array = _portable(value, path, name)
                headers.append(header_of(f"{path}:{name}", array))
                arrays.append(array)
            elif isinstance(value, np.generic):
                own[name] = value.item()
            else:
                own[name] = value
        data[path] = cast("Data", own)
    return data, tuple(headers), arrays


def _portable(array: NDArray[Any], path: str, name: str) -> NDArray[np.generic]:
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"unit {path!r}: {name!r} is an array of {array.dtype}; only numbers travel"
        )
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, little)


def header_of(name: str, array: NDArray[np.generic]) -> FrameHeader:
    """Return what announces an array."""
    return FrameHeader(name, array.dtype.str, array.shape)


def view(header: FrameHeader, frame: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Return a frame as the array that its header says it is; the codec has checked the size."""
    return np.frombuffer(frame, header.dtype).reshape(header.shape)


def unpack(
    data: Mapping[str, Data],
    headers: Iterable[FrameHeader],
    frames: Sequence[bytes | bytearray | memoryview],
) -> dict[str, dict[str, object]]:
    """Put arrays back into payloads. Frames whose names hold no ``:`` are left out."""
    payloads: dict[str, dict[str, object]] = {path: dict(own) for path, own in data.items()}
    for header, frame in zip(headers, frames, strict=True):
        path, colon, name = header.name.rpartition(":")
        if colon:
            payloads.setdefault(path, {})[name] = view(header, frame)
    return payloads
