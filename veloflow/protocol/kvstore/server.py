"""The pure key-value store: whose pushes make a step, what is taken once, who is waited for.

M. Li et al.: Scaling Distributed Machine Learning with the Parameter Server. OSDI 2014. The words
(init, push, pull, updater) are those of MXNet's KVStore: T. Chen et al., arXiv:1512.01274.

It holds no arrays: those of a push that is kept are the shell's, by worker and number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from veloflow.protocol.kvstore.messages import (
    PROTOCOL,
    Denied,
    Fault,
    FromStore,
    FromWorker,
    Join,
    Joined,
    Leave,
    Pull,
    Pulse,
    Push,
    Start,
    Stranger,
    Taken,
)

__all__ = ["Action", "Apply", "Create", "Keep", "Say", "Send", "Show", "Store"]

#: seconds between signs of life, and how many may be missed; both times patience
_PULSE, _MISSED = 0.5, 6
#: pushes of one key that a worker may have waiting for those of others
_MOST_AHEAD = 16
#: a push: the worker and the number of the command
PushId = tuple[str, int]


@dataclass(frozen=True)
class Send:
    """Send a message."""

    client: bytes
    message: FromStore


@dataclass(frozen=True)
class Show:
    """Send a key's value to whoever asked."""

    client: bytes
    request: int
    key: str
    version: int


@dataclass(frozen=True)
class Keep:
    """Keep the arrays of the push that was just heard until it is applied."""

    push: PushId


@dataclass(frozen=True)
class Create:
    """Make the key of the value that was just heard."""

    key: str


@dataclass(frozen=True)
class Apply:
    """Add these pushes in this order, and put the sum into the key's value."""

    key: str
    pushes: tuple[PushId, ...]


@dataclass(frozen=True)
class Say:
    """A line for people."""

    text: str


Action = Send | Show | Keep | Create | Apply | Say


@dataclass
class _Worker:
    """What is known of a worker; it is kept when it is gone, for it may speak again."""

    id: str
    name: str
    client: bytes
    rank: int
    observes: bool
    heard: float
    taken: int = 0
    is_here: bool = True
    waiting: dict[int, Pull] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)  # by command: what was wrong with it


@dataclass
class _Key:
    """A key: how many steps are in its value, and the pushes that wait for those of others."""

    version: int = 0
    pending: dict[str, deque[int]] = field(default_factory=dict)


class Store:
    """The state of a store. What a worker says and the time go in, actions come out.

    In "sync" a step of a key is made when all workers that are here have pushed it; nothing is
    applied before as many have come as the store was started for. Whoever leaves or is lost is not
    waited for any more; what it had pushed counts. In "async" each push is a step.

    Args:
        name: its own, another one each time that a store starts.
        workers: for how many it is started.
        mode: "sync" or "async".
        patience: scales every wait.
    """

    def __init__(self, name: str, workers: int, mode: str = "sync", patience: float = 1.0) -> None:
        self.name, self.mode, self.size = name, mode, workers
        self._pulse = _PULSE * patience
        self._limit = self._pulse * _MISSED
        self._workers: dict[str, _Worker] = {}
        self._keys: dict[str, _Key] = {}
        self.has_begun = mode == "async"
        self.repeated = self.applied = self.lost = 0
        self._handlers: dict[type[object], Callable[[Any, Any, str], list[Action]]] = {
            Start: self._on_command,
            Push: self._on_command,
            Pull: self._on_pull,
            Pulse: lambda worker, message, fault: [],
            Leave: self._on_leave,
        }

    @property
    def here(self) -> int:
        """How many workers are here."""
        return sum(one.is_here for one in self._workers.values())

    @property
    def is_over(self) -> bool:
        """Whether all workers have come and gone."""
        return self.has_begun and bool(self._workers) and not self.here

    @property
    def deadline(self) -> float | None:
        """When to call :meth:`pass_time` at the latest."""
        heard = [one.heard for one in self._workers.values() if one.is_here]
        return min(heard) + self._limit if heard else None

    def knows(self, key: str) -> bool:
        """Whether a key was started."""
        return key in self._keys

    def handle(
        self, client: bytes, message: FromWorker, now: float, fault: str = ""
    ) -> list[Action]:
        """Take in what a client says.

        Args:
            client: who speaks, for answers.
            message: what.
            now: in seconds.
            fault: what is wrong with its arrays, if anything.
        """
        if isinstance(message, Join):
            return self._on_join(client, message, now)
        worker = self._workers.get(message.worker)
        if worker is None:
            return [Send(client, Stranger())]
        worker.heard = now
        if not isinstance(message, Pulse):  # those come over a connection of their own
            worker.client = client
        actions: list[Action] = []
        if not worker.is_here and not isinstance(message, Leave):
            actions += self._take_in(worker)
        return actions + self._handlers[type(message)](worker, message, fault)

    def pass_time(self, now: float) -> list[Action]:
        """Let those go who have been silent for too long."""
        gone = [
            one for one in self._workers.values() if one.is_here and now >= one.heard + self._limit
        ]
        actions: list[Action] = []
        for worker in gone:
            self.lost += 1
            worker.is_here = False
            worker.waiting.clear()
            silent = f"worker {worker.rank} ({worker.name}) is silent for {self._limit:g} s"
            actions.append(Say(f"{silent}; nobody waits for it any more"))
        return actions + (self._settle() if gone else [])

    # -- who is here --------------------------------------------------------------------------

    def _on_join(self, client: bytes, join: Join, now: float) -> list[Action]:
        if join.protocol != PROTOCOL:
            reason = f"it speaks protocol {join.protocol} of key-value stores, not {PROTOCOL}"
            return [Send(client, Denied(reason))]
        worker = self._workers.get(join.worker)
        actions: list[Action] = []
        if worker is None:
            worker = _Worker(join.worker, join.name, client, -1, join.observes, now, is_here=False)
            self._workers[join.worker] = worker
        worker.client, worker.heard = client, now
        if not worker.is_here:
            actions += self._take_in(worker)
        welcome = Joined(
            self.name, worker.rank, self.size, self.mode, self._pulse, worker.taken
        )  # fmt: skip
        return [*actions, Send(client, welcome)]

    def _take_in(self, worker: _Worker) -> list[Action]:
        """Let a worker take part; nothing waits for what it has not pushed in earlier steps."""
        taken = {one.rank for one in self._workers.values() if one.is_here}
        if worker.rank < 0 or worker.rank in taken:
            worker.rank = next(rank for rank in range(len(taken) + 1) if rank not in taken)
        worker.is_here = True
        actions: list[Action] = [Say(f"worker {worker.rank} ({worker.name}) is here")]
        pushing = sum(one.is_here and not one.observes for one in self._workers.values())
        if not self.has_begun and pushing >= self.size:
            self.has_begun = True
            actions += self._settle()
        return actions

    def _on_leave(self, worker: _Worker, message: Leave, fault: str) -> list[Action]:
        if not worker.is_here:
            return []
        worker.is_here = False
        worker.waiting.clear()
        return [Say(f"worker {worker.rank} ({worker.name}) has left"), *self._settle()]

    # -- commands -----------------------------------------------------------------------------

    def _on_command(self, worker: _Worker, message: Start | Push, fault: str) -> list[Action]:
        if message.number != worker.taken + 1:
            self.repeated += message.number <= worker.taken
            # of one that comes too early an earlier one was lost: the worker will say all again
            again = worker.faults.get(message.number)
            told: list[Action] = [Send(worker.client, Taken(worker.taken))]
            if again is not None:
                told.insert(0, Send(worker.client, Fault(again, number=message.number)))
            return told
        fault = fault or self._fault_of(worker, message)
        worker.taken += 1
        answers: list[Action] = [Send(worker.client, Taken(worker.taken))]
        if fault:
            worker.faults[message.number] = fault
            answers.insert(0, Send(worker.client, Fault(fault, number=message.number)))
        elif isinstance(message, Push):
            pending = self._keys[message.key].pending.setdefault(worker.id, deque())
            pending.append(message.number)
            return [Keep((worker.id, message.number)), *answers, *self._advance(message.key)]
        elif message.key not in self._keys:
            self._keys[message.key] = _Key()
            answers.insert(0, Create(message.key))
        return answers + self._answer_all()

    def _fault_of(self, worker: _Worker, message: Start | Push) -> str:
        if isinstance(message, Start):
            return ""
        key = self._keys.get(message.key)
        if key is None:
            return f"there is no key {message.key!r}: give its first value with init"
        if worker.observes:
            return "this worker only observes: let it join without observe"
        if len(key.pending.get(worker.id, ())) >= _MOST_AHEAD:
            return (
                f"{_MOST_AHEAD} pushes of {message.key!r} wait for those of other workers; pull it "
                "before it is pushed again"
            )
        return ""

    def _on_pull(self, worker: _Worker, pull: Pull, fault: str) -> list[Action]:
        if pull.request in worker.waiting:  # it shall know that it is heard
            return [Send(worker.client, Taken(worker.taken))]
        worker.waiting[pull.request] = pull
        return self._answer(worker)

    # -- steps --------------------------------------------------------------------------------

    def _settle(self) -> list[Action]:
        """See what can be done, now that other workers are here."""
        return [action for key in self._keys for action in self._advance(key)]

    def _advance(self, name: str) -> list[Action]:
        """Make all steps of a key that can be made; answer those who waited for them."""
        key, actions = self._keys[name], list[Action]()
        while self._is_ready(key):
            ranked = sorted(key.pending, key=lambda id_: (self._workers[id_].rank, id_))
            who = ranked if self.mode == "sync" else ranked[:1]
            pushes = tuple((id_, key.pending[id_].popleft()) for id_ in who)
            key.pending = {id_: queue for id_, queue in key.pending.items() if queue}
            key.version += 1
            self.applied += len(pushes)
            actions.append(Apply(name, pushes))
        return actions + self._answer_all()

    def _is_ready(self, key: _Key) -> bool:
        if not key.pending or not self.has_begun:
            return False
        return self.mode == "async" or all(
            one.id in key.pending
            for one in self._workers.values()
            if one.is_here and not one.observes
        )

    def _answer_all(self) -> list[Action]:
        return [
            action for one in self._workers.values() if one.waiting for action in self._answer(one)
        ]

    def _answer(self, worker: _Worker) -> list[Action]:
        """Answer those questions of a worker whose time has come."""
        actions: list[Action] = []
        for request, pull in list(worker.waiting.items()):
            key = self._keys.get(pull.key)
            if worker.taken < pull.after or (key is not None and worker.id in key.pending):
                continue
            del worker.waiting[request]
            if key is None:
                reason = f"there is no key {pull.key!r}: give its first value with init"
                actions.append(Send(worker.client, Fault(reason, request=request)))
            else:
                actions.append(Show(worker.client, request, pull.key, key.version))
        return actions

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the state is broken.
        """
        ranks = [one.rank for one in self._workers.values() if one.is_here]
        assert len(set(ranks)) == len(ranks), f"two workers have one rank: {ranks}"
        for name, key in self._keys.items():
            assert not self._is_ready(key), f"a step of {name!r} could be made and was not"
            for id_, queue in key.pending.items():
                assert list(queue) == sorted(set(queue)), f"pushes of {name!r} out of order"
                assert queue[-1] <= self._workers[id_].taken, "a push waits that was not taken"
        for worker in self._workers.values():
            assert worker.is_here or not worker.waiting, f"{worker.name} is gone and waits"
