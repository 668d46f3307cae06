"""What slaves and range servers say to each other: parts of gradients on their way to be added.

They find each other through the master, which gives each attempt at a block its number, and all who
take part the run's secret token. What has another token or number is passed over.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.msgpack import Decoder

from veloflow.protocol.messages import Count, FrameHeader, Name

__all__ = ["Enroll", "FromPeer", "Parcel", "peer_decoder"]

_Places = Annotated[tuple[Name, ...], Meta(max_length=1024)]


class _Record(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A message between those who compute."""


class Enroll(_Record, frozen=True):
    """A slave tells a server of an attempt that is to begin.

    Attributes:
        token: the run's.
        number: of the attempt.
        place: the server's own place in the group.
        size: of the gradient; dtype as frames have it.
        members: addresses of the slaves, by place.
        servers: how many servers there are.
    """

    token: Name
    number: Count
    place: Count
    size: Count
    dtype: Annotated[str, Meta(max_length=16)]
    members: _Places
    servers: Count


class Parcel(_Record, frozen=True):
    """A part of a vector; see :class:`veloflow.sharing.topologies.Packet`."""

    token: Name
    number: Count
    to: Count
    source: Count
    round: Count
    kind: Literal["shard", "sum", "total", "none"]
    shard: Count
    shards: Count
    first: Count
    frames: Annotated[tuple[FrameHeader, ...], Meta(min_length=1, max_length=1)]


FromPeer = Enroll | Parcel


def peer_decoder() -> Decoder[FromPeer]:
    """Return what reads these messages."""
    return Decoder(FromPeer)
