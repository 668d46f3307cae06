"""Messages to frames and back, with limits: what comes from the network is not trusted.

The first frame is the message, msgpack with a schema; the others are the raw arrays that its
``frames`` announce. Sizes are compared with what has arrived; nothing is allocated by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, TypeVar

import msgspec

from veloflow.errors import WireError
from veloflow.protocol.messages import (
    FrameHeader,
    FromMaster,
    FromSlave,
    Job,
    Part,
    Residual,
    Update,
)

__all__ = ["DTYPES", "Limits", "decode_from_master", "decode_from_slave", "decode_with", "encode"]

#: the dtypes that travel, and their bytes
DTYPES: Final = {
    "|b1": 1, "|i1": 1, "|u1": 1, "<i2": 2, "<u2": 2, "<f2": 2, "<i4": 4, "<u4": 4, "<f4": 4,
    "<i8": 8, "<u8": 8, "<f8": 8,
}  # fmt: skip

Frame = bytes | bytearray | memoryview
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The largest sizes that are looked at, in bytes: of a message, of all its arrays."""

    message: int = 1 << 22
    arrays: int = 1 << 32


_LIMITS = Limits()
_encoder = msgspec.msgpack.Encoder()
_from_slave: msgspec.msgpack.Decoder[FromSlave] = msgspec.msgpack.Decoder(FromSlave)
_from_master: msgspec.msgpack.Decoder[FromMaster] = msgspec.msgpack.Decoder(FromMaster)


def encode(message: msgspec.Struct) -> bytes:
    """Return the first frame."""
    return _encoder.encode(message)


def decode_from_slave(
    frames: Sequence[Frame], limits: Limits = _LIMITS
) -> tuple[FromSlave, Sequence[Frame]]:
    """Return what a slave said, and its array frames.

    Raises:
        WireError: this is no message, or its frames are not what it announces.
    """
    message = _decode(_from_slave, frames, limits)
    _check(frames, message.frames if isinstance(message, Update | Part | Residual) else (), limits)
    return message, frames[1:]


def decode_from_master(
    frames: Sequence[Frame], limits: Limits = _LIMITS
) -> tuple[FromMaster, Sequence[Frame]]:
    """Return what the master said, and its array frames.

    Raises:
        WireError: this is no message, or its frames are not what it announces.
    """
    message = _decode(_from_master, frames, limits)
    _check(frames, message.frames if isinstance(message, Job | Residual) else (), limits)
    return message, frames[1:]


def decode_with(
    decoder: msgspec.msgpack.Decoder[T], frames: Sequence[Frame], limits: Limits = _LIMITS
) -> tuple[T, Sequence[Frame]]:
    """Return a message of another conversation that keeps to these rules, and its array frames.

    Args:
        decoder: of the messages' schema; those with arrays have ``frames``.
        frames: what has arrived.
        limits: the largest sizes.

    Raises:
        WireError: this is no message, or its frames are not what it announces.
    """
    message = _decode(decoder, frames, limits)
    _check(frames, getattr(message, "frames", ()), limits)
    return message, frames[1:]


def _decode(decoder: msgspec.msgpack.Decoder[T], frames: Sequence[Frame], limits: Limits) -> T:
    if not frames:
        raise WireError("an empty message")
    if len(frames[0]) > limits.message:
        raise WireError(f"a message of {len(frames[0])} bytes, more than {limits.message}")
    try:
        return decoder.decode(frames[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"no message: {error}") from None


def _check(frames: Sequence[Frame], headers: Sequence[FrameHeader], limits: Limits) -> None:
    if len(headers) != len(frames) - 1:
        raise WireError(f"{len(frames) - 1} arrays came, and {len(headers)} were announced")
    total = 0
    for header, frame in zip(headers, frames[1:], strict=True):
        width = DTYPES.get(header.dtype)
        if width is None:
            raise WireError(f"array {header.name!r} is of dtype {header.dtype!r}")
        size = memoryview(frame).nbytes
        if prod(header.shape) * width != size:
            raise WireError(
                f"array {header.name!r} of {header.shape} {header.dtype} came with {size} bytes"
            )
        total += size
    if total > limits.arrays:
        raise WireError(f"{total} bytes of arrays, more than {limits.arrays}")
