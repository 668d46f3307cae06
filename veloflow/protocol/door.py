"""Who is let in: what a slave must have in common with the master, and how often it may fail."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from veloflow.protocol.messages import PROTOCOL

if TYPE_CHECKING:
    from veloflow.protocol.messages import Hello

__all__ = ["Door"]

#: lost so often within so many seconds, a slave is not taken in again
_FLAPS, _WITHIN = 5, 60.0
#: so many strangers, and so many names of those that were lost, are remembered
_MEMORY = 10_000


class Door:
    """Remembers who was lost and who was asked for a name.

    Args:
        checksum: what a slave's definition, options and version must come to.
        patience: scales every wait.
        ask_every: seconds until the same stranger is asked again.
    """

    def __init__(self, checksum: str, patience: float, ask_every: float) -> None:
        self._checksum = checksum
        self._within = _WITHIN * patience
        self._ask_every = ask_every
        self._asked: dict[bytes, float] = {}
        self._losses: dict[str, deque[float]] = {}

    def objection(self, hello: Hello, is_local: bool, now: float) -> str:
        """Return why a slave is not taken in; empty if it is."""
        if hello.protocol != PROTOCOL:
            return (
                f"it speaks protocol {hello.protocol} and the master {PROTOCOL}; "
                "install the same version of veloflow on both sides"
            )
        if hello.checksum != self._checksum:
            return (
                "its definition, its options or its version of veloflow differ from the master's; "
                "give it the same files and the same version"
            )
        losses = self._losses.get(_name(hello), ())
        recent = sum(now - one < self._within for one in losses)
        if recent >= _FLAPS and not is_local:
            return f"it was lost {recent} times within a minute; mend it first"
        return ""

    def lost(self, hello: Hello, now: float) -> None:
        """Remember that a slave was lost."""
        if len(self._losses) >= _MEMORY:  # a flood of names is not remembered
            self._losses.clear()
        self._losses.setdefault(_name(hello), deque(maxlen=_FLAPS)).append(now)

    def let_in(self, client: bytes) -> None:
        """Forget that a client was a stranger."""
        self._asked.pop(client, None)

    def is_to_ask(self, client: bytes, now: float) -> bool:
        """Whether to ask a stranger who it is: not at every word."""
        if now - self._asked.get(client, -math.inf) < self._ask_every:
            return False
        if len(self._asked) >= _MEMORY:
            self._asked.clear()
        self._asked[client] = now
        return True


def _name(hello: Hello) -> str:
    return f"{hello.name}@{hello.host}"
