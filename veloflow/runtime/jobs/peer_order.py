"""What a job says that is about a block which a group computes: who takes part, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from veloflow.sharing.topologies import shards_of

if TYPE_CHECKING:
    from veloflow.core import Payload

__all__ = ["BROKEN", "ORDER", "STATE", "STEPS", "VOID", "PeerOrder"]

#: the key of the order among the payloads of a job
ORDER = "#peers"
#: before the array of the state in a job's or an update's frames; what units say of it, as JSON
STATE, STEPS = "#state", "steps"
#: in the place of an order: the attempt is over before it began; in the place of what units say:
#: the block is broken
VOID, BROKEN = "void", "#broken"


@dataclass(frozen=True)
class PeerOrder:
    """A block, and the part that one slave has in it.

    Attributes:
        number: of the attempt.
        topology: its word.
        shards: for each round, into how many shards its minibatch is cut.
        member, members: this slave's place, and how many there are.
        servers: how many servers.
        state: the version of the state that the block begins with; after it comes the next.
        patience: scales the waiting for others.
    """

    number: int
    topology: str
    shards: tuple[int, ...]
    member: int
    members: int
    servers: int
    state: int
    patience: float

    def own(self, at: int) -> range:
        """Return the shards of a round that are this member's."""
        return shards_of(self.member, self.members, self.shards[at])

    def payload(self, addresses: list[str], steps: str) -> Payload:
        """Return the order as JSON values.

        Args:
            addresses: of all who take part, by place; slaves first.
            steps: what units say of the state, as JSON; '' where the slave has it.
        """
        return {
            "number": self.number,
            "topology": self.topology,
            "shards": list(self.shards),
            "member": self.member,
            "members": self.members,
            "servers": self.servers,
            "state": self.state,
            "patience": self.patience,
            "addresses": addresses,
            STEPS: steps,
        }

    @classmethod
    def of(cls, payload: Payload) -> PeerOrder:
        """Return the order that :meth:`payload` gave."""
        given = cast("Mapping[str, Any]", payload)
        return cls(
            number=given["number"],
            topology=given["topology"],
            shards=tuple(given["shards"]),
            member=given["member"],
            members=given["members"],
            servers=given["servers"],
            state=given["state"],
            patience=given["patience"],
        )
