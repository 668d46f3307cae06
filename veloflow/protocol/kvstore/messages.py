"""What workers and a key-value store say to each other; arrays travel beside in raw frames.

Commands that change something, Start and Push, are numbered 1, 2, 3 … by each worker, and the store
takes them in that order, each once.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.msgpack import Decoder

from veloflow.protocol.messages import Count, FrameHeader, Name, Text

__all__ = [
    "PROTOCOL",
    "Denied",
    "Fault",
    "FromStore",
    "FromWorker",
    "Join",
    "Joined",
    "Leave",
    "Pull",
    "Pulse",
    "Push",
    "Start",
    "Stranger",
    "Taken",
    "Value",
    "store_decoder",
    "worker_decoder",
]

#: raised whenever old and new peers would misunderstand each other
PROTOCOL = 1

Frames = Annotated[tuple[FrameHeader, ...], Meta(max_length=64)]


class _Record(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A message; ``worker`` is the secret name that a worker has made for itself."""


# -- from a worker ----------------------------------------------------------------------------


class Join(_Record, frozen=True):
    """A worker wants to take part; said again when the store does not know it.

    Attributes:
        codec: how its pushes travel.
        name: for people.
        observes: it only pulls, and no step waits for it.
    """

    protocol: Count
    worker: Name
    codec: Name = "plain"
    name: Name = ""
    observes: bool = False


class Start(_Record, frozen=True):
    """The first value of a key; the first that comes counts, later ones change nothing."""

    worker: Name
    number: Count
    key: Name
    frames: Frames


class Push(_Record, frozen=True):
    """What is to be put into a key's value: a gradient."""

    worker: Name
    number: Count
    key: Name
    frames: Frames


class Pull(_Record, frozen=True):
    """A question for a key's value, to be answered when the worker's own pushes are in it.

    Attributes:
        request: counts the questions of this worker.
        after: the number of the last command of this worker about this key.
    """

    worker: Name
    request: Count
    key: Name
    after: Count


class Pulse(_Record, frozen=True):
    """A sign of life."""

    worker: Name


class Leave(_Record, frozen=True):
    """The worker has ended; nobody is to wait for it."""

    worker: Name


FromWorker = Join | Start | Push | Pull | Pulse | Leave

# -- from the store ---------------------------------------------------------------------------


class Joined(_Record, frozen=True):
    """The worker takes part.

    Attributes:
        store: the store's own name; another one has other values.
        rank: the worker's place; pushes of one step are added in this order.
        workers: how many the store was started for.
        mode: "sync" or "async".
        pulse_every: seconds between signs of life.
        taken: the number of the last command that was taken from this worker.
    """

    store: Name
    rank: Count
    workers: Count
    mode: Name
    pulse_every: Annotated[float, Meta(gt=0, le=1e6)]
    taken: Count = 0


class Denied(_Record, frozen=True):
    """The worker cannot take part."""

    reason: Text


class Taken(_Record, frozen=True):
    """All commands up to this number have arrived."""

    number: Count


class Value(_Record, frozen=True):
    """The answer to Pull.

    Attributes:
        request: which.
        version: how many steps are in the value.
    """

    request: Count
    key: Name
    version: Count
    frames: Frames


class Fault(_Record, frozen=True):
    """A command or a question that was wrong; it has changed nothing.

    Attributes:
        number: of the command, or 0.
        request: of the question, or 0.
    """

    reason: Text
    number: Count = 0
    request: Count = 0


class Stranger(_Record, frozen=True):
    """The store does not know who speaks: join again."""


FromStore = Joined | Denied | Taken | Value | Fault | Stranger


def store_decoder() -> Decoder[FromStore]:
    """Return what reads the store's messages."""
    return Decoder(FromStore)


def worker_decoder() -> Decoder[FromWorker]:
    """Return what reads workers' messages."""
    return Decoder(FromWorker)
