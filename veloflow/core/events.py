"""Events that units publish and views show; publishing to nobody costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

__all__ = ["CheckpointWanted", "EpochDone", "Events", "Message", "SharingStatus"]

E = TypeVar("E")


@dataclass(frozen=True)
class CheckpointWanted:
    """A unit asks for a checkpoint at the next boundary; ``reason``: "improved", "interval", …."""

    reason: str


@dataclass(frozen=True)
class EpochDone:
    """An epoch was evaluated; ``record`` is its entry in the result (see ``Decision``)."""

    record: Mapping[str, object]
    improved: bool


@dataclass(frozen=True)
class Message:
    """A line for the user: what happened, in plain words."""

    text: str


@dataclass(frozen=True)
class SharingStatus:
    """How the sharing of parameters goes; some times a second, where work is farmed out.

    ``values``: ``{"sharing", "slaves", "staleness": {"mean", "max"}, "effective_batch",
    "waiting": {"share"}, "bytes": {"parameters", "updates", "control"}}``; what is not known lacks.
    """

    values: Mapping[str, object]


class Events:
    """Who wants to know of what; a service of the workflow."""

    def __init__(self) -> None:
        self._listeners: dict[type[object], list[Callable[[object], None]]] = {}

    def subscribe(self, kind: type[E], listener: Callable[[E], None]) -> None:
        """Call ``listener`` with each event of this type."""
        self._listeners.setdefault(kind, []).append(cast("Callable[[object], None]", listener))

    def publish(self, event: object) -> None:
        """Tell the listeners of the event's type, at once."""
        for listener in self._listeners.get(type(event), ()):
            listener(event)
