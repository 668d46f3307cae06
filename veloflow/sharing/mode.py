"""What a user writes after ``--sharing``: ``sync``, ``sync:shards=4``, ``async``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from veloflow.errors import OptionError, nearest

__all__ = ["Sharing", "parse_sharing"]

_MODES = ("sync", "async")


@dataclass(frozen=True)
class Sharing:
    """A mode of sharing parameters.

    Attributes:
        mode: "sync" adds the gradients of a minibatch's shards in order; "async" applies updates
            as they come.
        shards: into how many parts sync cuts a minibatch; 0 lets the size of the minibatch say.
    """

    mode: Literal["sync", "async"] = "sync"
    shards: int = 0

    def __str__(self) -> str:
        return f"{self.mode}:shards={self.shards}" if self.shards else self.mode


def parse_sharing(text: str) -> Sharing:
    """Read ``mode`` or ``mode:name=value,…``.

    Raises:
        OptionError: the text is no mode of sharing; the message says which there are.
    """
    mode, _, rest = text.partition(":")
    if mode not in _MODES:
        raise OptionError(
            f"--sharing: no mode {mode!r}{nearest(mode, _MODES)}; there are: {', '.join(_MODES)}"
        )
    shards = 0
    for word in filter(None, rest.split(",")):
        name, _, value = word.partition("=")
        if mode != "sync" or name != "shards":
            known = "shards" if mode == "sync" else "none"
            raise OptionError(f"--sharing {mode} has no option {name!r}; it has: {known}")
        if not value.isdecimal() or not 1 <= int(value) <= 1024:
            raise OptionError(
                f"--sharing {mode}: shards is {value!r}; give a number from 1 to 1024"
            )
        if shards:
            raise OptionError(f"--sharing {mode}: shards is given twice")
        shards = int(value)
    return Sharing(cast("Literal['sync', 'async']", mode), shards)
