"""The slaves as the master knows them: their states, what they owe, and who is free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veloflow.protocol.messages import Hello, LeaseId

__all__ = ["TRANSITIONS", "Crowd", "Slave", "State"]


class State(Enum):
    """What a slave is to the master."""

    WELL = "well"  #: it is heard of, and gets work
    DRAINING = "draining"  #: it gave a job back, so it may be about to leave: it gets no work
    SUSPECT = "suspect"  #: it is silent: it gets no work, and what it held goes to others
    LEFT = "left"  #: it said goodbye
    LOST = "lost"  #: its process or its connection is gone
    PUT_OUT = "put out"  #: it was wrong, or silent for too long


#: state -> event -> state; what is not here cannot happen
TRANSITIONS: dict[State, dict[str, State]] = {
    State.WELL: {
        "gives back": State.DRAINING,
        "silent": State.SUSPECT,
        "bye": State.LEFT,
        "lost": State.LOST,
        "wrong": State.PUT_OUT,
        "stuck": State.PUT_OUT,
    },
    State.DRAINING: {
        "still here": State.WELL,
        "silent": State.SUSPECT,
        "bye": State.LEFT,
        "lost": State.LOST,
        "wrong": State.PUT_OUT,
        "stuck": State.PUT_OUT,
    },
    State.SUSPECT: {
        "heard": State.WELL,
        "bye": State.LEFT,
        "lost": State.LOST,
        "wrong": State.PUT_OUT,
        "silent for long": State.PUT_OUT,
    },
    State.LEFT: {},
    State.LOST: {},
    State.PUT_OUT: {},
}


@dataclass(slots=True)
class Slave:
    """A slave and what it owes.

    ``owed`` are the leases that it has not answered, void ones too, in the order in which it got
    them; it computes the first of them since ``started``. ``pulse`` is the connection of its
    beats. ``look_at`` is when the master looks whether all is well with it.
    """

    id: str
    client: bytes
    hello: Hello
    is_local: bool
    capacity: int
    heard: float
    joined: float
    suspected: float = 0.0
    look_at: float = 0.0
    pulse: bytes = b""
    state: State = State.WELL
    owed: dict[LeaseId, tuple[int, int]] = field(default_factory=dict)  #: and the sort of piece
    started: float = 0.0
    progress: int = -1
    progressed: float = 0.0
    jobs: int = 0
    seconds: float = 0.0
    is_exposed: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether the master has no more to do with it."""
        return not TRANSITIONS[self.state]

    @property
    def kind(self) -> tuple[str, str]:
        """Device and hardware: only slaves of one kind must find the same bits."""
        return self.hello.device, self.hello.hardware

    @property
    def load(self) -> int:
        """How many answers it owes."""
        return len(self.owed)

    def move(self, event: str) -> None:
        """Go to the next state by the table."""
        self.state = TRANSITIONS[self.state][event]


class Crowd:
    """All slaves; those that may get work by load, those that waited longest first."""

    def __init__(self) -> None:
        self.by_id: dict[str, Slave] = {}
        self.by_client: dict[bytes, Slave] = {}
        self._free: list[dict[str, None]] = []
        self._placed: dict[str, int] = {}
        #: those that owe two answers or more, but for those that were found to hold nothing new
        self.stacked: dict[str, None] = {}
        self._capacities: dict[str, int] = {}
        self.capacity = 0  #: how many pieces those that are well can hold together

    def __iter__(self) -> Iterator[Slave]:
        return iter(self.by_client.values())

    def __len__(self) -> int:
        return len(self.by_client)

    def add(self, slave: Slave) -> None:
        """Take a slave in."""
        self.by_id[slave.id] = slave
        self.by_client[slave.client] = slave
        self.place(slave)

    def remove(self, slave: Slave) -> None:
        """Let a slave go; it stays known by its id."""
        if self.by_client.get(slave.client) is slave:
            del self.by_client[slave.client]
        self._displace(slave.id)
        self._count(slave.id, 0)
        self.stacked.pop(slave.id, None)

    def place(self, slave: Slave) -> None:
        """Put a slave where it belongs by state and load; call it after each change of them."""
        load, is_well = slave.load, slave.state is State.WELL
        self._displace(slave.id)
        self._count(slave.id, slave.capacity if is_well else 0)
        if is_well and load < slave.capacity:
            while len(self._free) <= load:
                self._free.append({})
            self._free[load][slave.id] = None
            self._placed[slave.id] = load
        if is_well and load >= 2:
            self.stacked[slave.id] = None
        else:
            self.stacked.pop(slave.id, None)

    def _displace(self, id_: str) -> None:
        load = self._placed.pop(id_, None)
        if load is not None:
            del self._free[load][id_]

    def _count(self, id_: str, capacity: int) -> None:
        former = self._capacities.get(id_, 0)
        if capacity == former:
            return
        self.capacity += capacity - former
        self._capacities.pop(id_, None)
        if capacity:
            self._capacities[id_] = capacity

    def free(self, up_to: int | None = None) -> Iterator[Slave]:
        """Yield those that may get work, the least loaded first; change nothing meanwhile."""
        for load, ids in enumerate(self._free):
            if up_to is not None and load > up_to:
                return
            for id_ in ids:
                yield self.by_id[id_]

    @property
    def idle(self) -> int:
        """How many are well and owe nothing."""
        return len(self._free[0]) if self._free else 0

    @property
    def well(self) -> int:
        """How many are well."""
        return len(self._capacities)

    def validate(self) -> None:
        """Check that everybody is where they belong.

        Raises:
            AssertionError: somebody is not.
        """
        for slave in self:
            is_free = slave.state is State.WELL and slave.load < slave.capacity
            assert (self._placed.get(slave.id) == slave.load) == is_free, f"misplaced: {slave}"
            assert (slave.id in self._placed) == is_free, f"misplaced: {slave}"
            assert not slave.is_gone, f"gone and still here: {slave}"
            is_stacked = slave.state is State.WELL and slave.load >= 2
            assert is_stacked or slave.id not in self.stacked, f"nothing to take from {slave}"
        well = [slave.capacity for slave in self if slave.state is State.WELL]
        assert self.capacity == sum(well), f"a capacity of {self.capacity}, not {sum(well)}"
        known = {slave.id for slave in self}
        assert set(self._placed) <= known, "somebody who is gone may get work"
        assert sum(len(ids) for ids in self._free) == len(self._placed), "somebody is free twice"
