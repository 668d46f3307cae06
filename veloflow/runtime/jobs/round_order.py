"""What a job says that is about a block of rounds: which rounds, whose shards, from which state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from veloflow.runtime.jobs.round_log import LogShape

if TYPE_CHECKING:
    from veloflow.core import Payload

__all__ = ["LOG", "ORDER", "STEP", "SUM", "Order", "named", "part_of"]

#: the key of the order among the payloads of a job, and of what a slave reports of the whole block
ORDER = ""
#: before the path of a unit: what its step depends on; no round has this name
STEP = "step"
#: the sum of all numbers of the state after the block: equal where all bits are
SUM = "sum"


#: the end of the name of a log, after the name of the slave's memory
LOG = ".rounds"


@dataclass(frozen=True)
class Order:
    """A block, and the part that one member of the team has in it.

    Attributes:
        block: its number.
        shape: of the logs.
        shards: for each round, into how many shards its minibatch is cut.
        member, members: shards ``member``, ``member + members`` … are this member's.
        logs: the names of the memory of all slaves of the team.
        state: the version of the state that the block begins with; after it comes the next.
        patience: scales the waiting for other members.
    """

    block: int
    shape: LogShape
    shards: tuple[int, ...]
    member: int
    members: int
    logs: tuple[str, ...]
    state: int
    patience: float

    def payload(self) -> Payload:
        """Return the order as JSON values."""
        shape = self.shape
        return {
            "block": self.block,
            "shape": [shape.rounds, shape.shards, shape.size, shape.state],
            "dtype": shape.dtype,
            "shards": list(self.shards),
            "member": self.member,
            "members": self.members,
            "logs": list(self.logs),
            "state": self.state,
            "patience": self.patience,
        }

    @classmethod
    def of(cls, payload: Payload) -> Order:
        """Return the order that :meth:`payload` gave."""
        given = cast("Mapping[str, Any]", payload)
        rounds, shards, size, state = given["shape"]
        return cls(
            block=given["block"],
            shape=LogShape(rounds, shards, size, state, given["dtype"]),
            shards=tuple(given["shards"]),
            member=given["member"],
            members=given["members"],
            logs=tuple(given["logs"]),
            state=given["state"],
            patience=given["patience"],
        )

    def number(self, at: int) -> int:
        """Return the number in the run of the round that is number ``at`` of the block."""
        return self.shape.first(self.block) + at

    def own(self, at: int) -> range:
        """Return the shards of a round that are this member's."""
        return range(self.member, self.shards[at], self.members)


def named(at: int, shard: int, path: str) -> str:
    """Return the name of what a unit says of a shard of a round."""
    return f"{at}.{shard}/{path}"


def part_of(payloads: Mapping[str, Payload], head: str) -> dict[str, Payload]:
    """Return the payloads whose names begin with ``head/``, by what follows."""
    start = f"{head}/"
    return {
        name.removeprefix(start): one for name, one in payloads.items() if name.startswith(start)
    }
