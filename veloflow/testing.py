"""For tests of your own: a virtual clock, plans of faults, and a whole cluster in one thread.

:class:`Simulation` runs the real machines of master and slaves over a network that delays, doubles
and loses, with slaves that die, hang, crawl, leave, lie and come back. All of it follows from one
seed, so a failure replays::

    Simulation(seed=4711).run()

    python -m veloflow.testing --seeds 1000
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from veloflow.conformance import check_codec, check_decisions
from veloflow.protocol.elasticity import Bounds
from veloflow.protocol.events import (
    STAND_IN,
    Action,
    Applied,
    Apply,
    BoundChanged,
    Computed,
    Event,
    Exit,
    Exposed,
    Failed,
    Garbage,
    GiveUp,
    Grant,
    Heard,
    Lost,
    PutOut,
    Recruit,
    Rejected,
    Said,
    Say,
    Send,
    SlaveAction,
    StandDown,
    StandIn,
    Tell,
    TermAsked,
    Tick,
    Want,
    Withdrawn,
    WorkAdded,
)
from veloflow.protocol.faults import FaultPlan
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import (
    PROTOCOL,
    Beat,
    Bye,
    Failure,
    FromMaster,
    FromSlave,
    Hello,
    Job,
    LeaseId,
    Piece,
    Update,
)
from veloflow.protocol.slave import Slave
from veloflow.sharing.policies import Auto, GradientPolicy, LocalPolicy, Policy, Sync, parse_sharing

__all__ = [
    "FaultPlan",
    "Outcome",
    "Simulation",
    "VirtualClock",
    "Visit",
    "check_codec",
    "check_policy",
]


_FOR_EVER = 1e9
#: what ``auto`` changes to in a simulation
_MODES = ("sync", "async", "ssp:0", "ssp:1", "groups:2", "average:3", "elastic:0.9,2")


class VirtualClock:
    """Time that moves when it is told to, and things that are to happen at a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen at a time, or now if that has passed."""
        heapq.heappush(self._coming, (max(when, self.now), next(self._order), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something happen later."""
        self.at(self.now + seconds, what)

    def step(self) -> bool:
        """Go to what comes next and let it happen; return whether there was anything."""
        if not self._coming:
            return False
        self.now, _, what = heapq.heappop(self._coming)
        what()
        return True


@dataclass
class Outcome:
    """How a simulation went.

    Attributes:
        seconds: of virtual time.
        applied: number of a piece -> the slave whose result counted.
        wrong: numbers of the pieces of which a wrong answer counted.
        events: how often which fault happened.
        counters: the masters' own, added up.
        said: what the user would have read.
        offered: seconds that slaves were there as the visits had it, all together.
        useful: seconds of computing whose result was applied.
    """

    seconds: float = 0.0
    applied: dict[int, str] = field(default_factory=dict)
    wrong: set[int] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    offered: float = 0.0
    useful: float = 0.0


@dataclass(frozen=True)
class Visit:
    """A machine that is there for a while, as on a spot market: it comes, and is taken away.

    Attributes:
        begins: when it comes; its slave process is started then.
        ends: when it is taken away, with what is on it.
        notice: so many seconds before, its slave is told to leave; 0 for no word.
    """

    begins: float
    ends: float
    notice: float = 0.0


@dataclass
class _Node:
    """A simulated slave process."""

    client: bytes
    name: str
    slave: Slave
    pace: float
    frozen_until: float = 0.0
    steps: int = 0


class Simulation:
    """A master and slaves on a virtual network.

    After each event the machines' own invariants are checked; at the end each sample of each
    epoch must have been applied exactly once.

    Args:
        seed: all follows from it.
        plan: what goes wrong; None lets the seed say.
        slaves: how many there are at first; as many come back.
        epochs, samples, size: pieces of ``size`` samples; an epoch ends before the next begins.
        audit: the share of the pieces that two slaves compute; None lets the seed say.
        works: whether the master computes itself without slaves; None lets the seed say.
        policy: which pieces are under way together, and who is held back; None gives a whole epoch
            at once. ``Auto`` takes another mode after each epoch, as the seed says.
        limit: seconds of virtual time after which a run counts as stuck.
        most: how many slaves there may be where work waits; None for always as many.
        patience: scales every wait of the protocol.
        work: how many seconds a piece takes, from and to.
        visits: slaves that come and go besides.
        until: when to end at the latest; pieces that are under way then are let be.
        is_checked: whether the machines' invariants are checked after each event.
    """

    def __init__(
        self,
        seed: int,
        *,
        plan: FaultPlan | None = None,
        slaves: int | None = None,
        epochs: int = 2,
        samples: int = 100,
        size: int = 10,
        audit: float | None = None,
        works: bool | None = None,
        policy: Policy | None = None,
        limit: float = 3600.0,
        most: int | None = None,
        patience: float = 1.0,
        work: tuple[float, float] = (0.01, 0.02),
        visits: Sequence[Visit] = (),
        until: float = _FOR_EVER,
        is_checked: bool = True,
    ) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.plan = FaultPlan.wild(self.chance.choice) if plan is None else plan
        self.slaves = self.chance.choice((1, 2, 3, 5)) if slaves is None else slaves
        self.audit = self.chance.choice((0.0, 0.2, 1.0)) if audit is None else audit
        self.works = self.chance.random() < 0.3 if works is None else works
        self.clock = VirtualClock()
        self.outcome = Outcome()
        self._epochs, self._samples, self._size = epochs, samples, size
        self._limit = limit
        self._bounds = Bounds(self.slaves, self.slaves if most is None else most)
        self._patience, self._work, self._visits = patience, work, visits
        self._until, self._is_checked = until, is_checked
        self._changes = isinstance(policy, Auto)  # to another mode after each epoch
        self._policy: Policy | None = Sync() if isinstance(policy, Auto) else policy
        self._waiting: list[Piece] = []  # pieces of the epoch that are not under way yet
        self._tasks: list[set[int]] = []  # pieces that are applied together, not done yet
        self._nodes: dict[bytes, _Node] = {}
        self._names = itertools.count(1)
        self._flipped: set[bytes] = set()  # slaves that have sent a wrong bit
        self._digests: dict[tuple[bytes, LeaseId], bytes] = {}
        self._runs = itertools.count(1)
        self._last: dict[tuple[str, bytes], float] = {}  # connections keep their order
        self._pieces: list[Piece] = []
        self._next_number = 0
        self._whims = random.Random(f"{seed} whims")  # of what has the pieces computed
        self._epoch = -1
        self._tick_at: float | None = None
        self._is_master_up = True
        self._master = self._new_master()

    # -- running ------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end.

        Raises:
            AssertionError: an invariant is broken, a piece is applied twice, or the run is stuck;
                the message names the seed.
        """
        try:
            self._begin()
            while not self._is_done:
                assert self.clock.now < self._limit, f"stuck: {self._where()}"
                assert self.clock.step(), f"nothing happens any more: {self._where()}"
            self._check()
        except AssertionError as error:
            raise AssertionError(f"seed {self.seed}: {error}") from error
        self.outcome.seconds = self.clock.now
        self._count(self._master)
        return self.outcome

    def _begin(self) -> None:
        self._next_epoch()
        for _ in range(self.slaves):
            self.clock.after(self.chance.uniform(0, 0.1), self._join)
        for visit in self._visits:
            self.clock.at(visit.begins, partial(self._receive, visit))

    @property
    def _is_done(self) -> bool:
        return self._epoch >= self._epochs or self.clock.now >= self._until

    def _where(self) -> str:
        open_ = [entry.piece.number for entry in self._master.ledger.open]
        return f"{len(self.outcome.applied)} applied, open {open_}, {len(self._nodes)} slaves alive"

    def _next_epoch(self) -> None:
        self._epoch += 1
        if self._is_done:
            return
        firsts = range(0, self._samples, self._size)
        new = [
            Piece(self._number(), self._epoch, 2, first, min(self._size, self._samples - first))
            for first in firsts
        ]
        self._pieces += new
        self._waiting = list(new)
        if self._changes and self._epoch:
            self._change_policy()
        self._issue()

    def _change_policy(self) -> None:
        """Go on with another mode; what was under way is applied."""
        self._policy = parse_sharing(self._whims.choice(_MODES))
        self.outcome.events["changed"] += 1
        self._tell_master(BoundChanged(self._policy.bound))

    def _issue(self) -> None:
        """Give the master what the policy lets be under way."""
        slaves, capacity = max(1, self._master.crowd.well), max(1, self._master.capacity)
        while self._waiting:
            size = len(self._waiting)
            if self._policy is not None:
                if len(self._tasks) >= self._policy.tasks(slaves, capacity):
                    return
                size = _pieces_of_task(self._policy, slaves)
            task, self._waiting = self._waiting[:size], self._waiting[size:]
            self._tasks.append({piece.number for piece in task})
            is_shared = self._policy is None and self._whims.random() < 0.3
            self._tell_master(WorkAdded(tuple(task), is_shared=is_shared))

    def _see(self, number: int) -> None:
        """An update can be seen in the parameters."""
        self._tell_master(Applied(number))
        self._issue()

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _change_plans(self) -> None:
        """Withdraw some pieces, and have the same samples computed under other numbers."""
        left = [one for one in self._pieces if one.number not in self.outcome.applied]
        if not self._is_master_up or not left or self._policy is not None:
            return
        chosen = self._whims.sample(left, self._whims.randint(1, len(left)))
        kept = [one for one in self._pieces if one not in chosen]
        new = [Piece(self._number(), one.epoch, one.kind, one.first, one.count) for one in chosen]
        self._pieces = [*kept, *new]
        self.outcome.events["withdrawn"] += len(chosen)
        for task in self._tasks:
            task.difference_update(one.number for one in chosen)
        self._tasks.append({one.number for one in new})
        self._tell_master(Withdrawn(tuple(one.number for one in chosen)))
        self._tell_master(WorkAdded(tuple(new)))

    def _check(self) -> None:
        for epoch in range(self._epoch):
            seen = Counter(
                sample
                for piece in self._pieces
                if piece.epoch == epoch and piece.number in self.outcome.applied
                for sample in range(piece.first, piece.first + piece.count)
            )
            assert seen == Counter(range(self._samples)), f"epoch {epoch} is not whole: {seen}"

    # -- the master ---------------------------------------------------------------------------

    def _new_master(self) -> Master:
        seed = self.chance.getrandbits(32)
        settings = MasterSettings(
            f"run {next(self._runs)}",
            "same",
            self._patience,
            audit=self.audit,
            seed=seed,
            works=self.works,
            bound=None if self._policy is None else self._policy.bound,
            bounds=self._bounds,
        )
        return Master(settings)

    def _tell_master(self, event: Event) -> None:
        if self._is_master_up:
            actions = self._master.handle(event, self.clock.now)
            if self._is_checked:
                self._master.validate()
            self._obey(actions)
            self._plan_tick()

    def _plan_tick(self) -> None:
        deadline = self._master.deadline
        if deadline is not None and (self._tick_at is None or deadline < self._tick_at):
            self._tick_at = deadline
            self.clock.at(deadline, self._tick)

    def _tick(self) -> None:
        if self._tick_at is not None and self.clock.now >= self._tick_at:
            self._tick_at = None
            self._tell_master(Tick())

    def _obey(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._carry_down(action.client, action.message)
            elif isinstance(action, Grant):
                if action.client == STAND_IN:
                    self._stand_in(self._master, action.lease)
                self._carry_down(action.client, Job(action.lease, action.piece, {}))
            elif isinstance(action, Apply):
                self._apply(action)
            elif isinstance(action, PutOut):
                self.outcome.events["put out"] += 1
                if action.kill:
                    self._die(action.client)
            elif isinstance(action, Exposed):
                self.outcome.events["exposed"] += 1
                client = self._master.crowd.by_id[action.slave].client
                assert client in self._flipped, f"{action.slave} is called wrong, and is not"
            elif isinstance(action, StandIn):
                self.outcome.events["stood in"] += 1
                self._say_as_stand_in(
                    Hello(PROTOCOL, "same", "master", "null", "cpu", "host", 0, capacity=1)
                )
            elif isinstance(action, StandDown):
                self._say_as_stand_in(Bye(""))
            elif isinstance(action, Recruit):
                self.slaves += 1
                self.clock.after(self.chance.uniform(0.1, 1.0), self._join)
            elif isinstance(action, Want):
                self._scale(action.count)
            elif isinstance(action, GiveUp):
                # the run would fail here; the simulated user tries again with the same piece
                self.outcome.events["gave up"] += 1
            else:
                assert isinstance(action, Say)
                self.outcome.said.append(f"{self.clock.now:.3f} {action.text}")

    def _say_as_stand_in(self, message: FromSlave) -> None:
        self.clock.after(0, lambda: self._tell_master(Heard(STAND_IN, message)))

    def _stand_in(self, master: Master, lease: LeaseId) -> None:
        """The master computes a piece itself."""

        def finish() -> None:
            if self._master is master and STAND_IN in master.crowd.by_client:
                self._tell_master(Heard(STAND_IN, Update(lease, {}, (), 0.01), digest=b"right"))

        self.clock.after(0.02, finish)

    def _apply(self, action: Apply) -> None:
        number = action.piece.number
        assert number not in self.outcome.applied, f"piece {number} is applied twice"
        assert action.piece in self._pieces, f"piece {number} was withdrawn, and is applied"
        assert action.update.lease.number == number, f"{action} is for another piece"
        self.outcome.applied[number] = action.slave
        self.outcome.useful += action.update.seconds
        if self._digest(action.client, action.update.lease) != b"right":
            self.outcome.wrong.add(number)
        for task in self._tasks:
            task.discard(number)
        self._tasks = [task for task in self._tasks if task]
        if self._policy is not None:  # the farm takes a moment to apply it
            self.clock.after(self.chance.uniform(0, 2e-3), lambda: self._see(number))
        if len(self.outcome.applied) == len(self._pieces):
            self._next_epoch()
        elif self._happens("restart"):
            self._restart()
        elif not self._visits and self._whims.random() < 0.01:
            self.clock.after(0, self._change_plans)

    def _restart(self) -> None:
        """The master dies; what it had applied is saved, and nothing else."""
        self._count(self._master)
        self._is_master_up = False
        self.clock.after(self.chance.uniform(0.1, 3.0), self._come_back)

    def _come_back(self) -> None:
        self._is_master_up = True
        self._tick_at = None
        self._master = self._new_master()
        done = self.outcome.applied
        self._waiting = [piece for piece in self._pieces if piece.number not in done]
        self._tasks = []
        self._issue()

    def _count(self, master: Master) -> None:
        self.outcome.counters.update(master.counters)
        for name in ("accepted", "late", "unknown", "returned"):
            self.outcome.counters[name] += getattr(master.ledger, name)

    # -- the network --------------------------------------------------------------------------

    def _happens(self, fault: str, node: _Node | None = None) -> bool:
        name, job = (node.name, node.steps + 1) if node else ("", 0)
        happens = self.plan.strikes(fault, name, job, self.chance.random)
        if happens:
            self.outcome.events[fault] += 1
        return happens

    def _carry(self, way: str, client: bytes, deliver: Callable[[], None]) -> None:
        delay = self.chance.uniform(1e-4, 5e-3) * (100 if self._happens("late") else 1)
        when = max(self._last.get((way, client), 0.0), self.clock.now + delay)
        self._last[way, client] = when
        self.clock.at(when, deliver)

    def _carry_down(self, client: bytes, message: FromMaster) -> None:
        if client in self._nodes:
            self._carry("down", client, lambda: self._reach(client, message))

    def _carry_up(self, client: bytes, message: FromSlave, way: str = "up") -> None:
        digest = self._digest(client, message.lease) if isinstance(message, Update) else b""
        event: Event = Heard(client, message, is_local=True, digest=digest)
        if self._happens("damage"):
            event = Garbage(client, "damaged")
        elif isinstance(message, Update) and self._happens("spoil"):
            event = Rejected(client, message.lease, "NaN", is_lie=False)
        self._carry(way, client, lambda: self._tell_master(event))
        if self._happens("double"):
            self._carry(way, client, lambda: self._tell_master(event))

    def _digest(self, client: bytes, lease: LeaseId) -> bytes:
        return self._digests.get((client, lease), b"right")

    def _reach(self, client: bytes, message: FromMaster) -> None:
        node = self._nodes.get(client)
        if node is None:
            return
        if node.frozen_until > self.clock.now:  # its messages wait for it
            self.clock.at(node.frozen_until, lambda: self._reach(client, message))
            return
        self._act(node, node.slave.handle(Said(message), self.clock.now))

    # -- slaves -------------------------------------------------------------------------------

    def _scale(self, count: int) -> None:
        """Have so many slaves from now on; the latest that are too many are told to leave."""
        assert self._bounds.least <= count <= self._bounds.most, f"{count} slaves are wanted"
        before, self.slaves = self.slaves, count
        self.outcome.events["grown" if count > before else "shrunk"] += 1
        for _ in range(count - before):
            self.clock.after(self.chance.uniform(0.1, 1.0), self._join)
        for node in list(self._nodes.values())[count:] if count < before else ():
            if node.frozen_until <= self.clock.now:
                self._act(node, node.slave.handle(TermAsked(), self.clock.now))

    def _receive(self, visit: Visit) -> None:
        """A machine comes; its slave says hello when it has started, and is gone with it."""
        self.outcome.offered += min(visit.ends, self._until) - visit.begins
        client = self._new_client()
        start = self.chance.uniform(0.7, 1.5)  # of a Python process, with its imports
        if start < visit.ends - visit.begins:
            self.clock.after(start, lambda: self._greet(client))
        self.clock.at(visit.ends - visit.notice, lambda: self._dismiss(client))
        self.clock.at(visit.ends, lambda: self._die(client))

    def _dismiss(self, client: bytes) -> None:
        node = self._nodes.get(client)
        if node is not None:
            self._act(node, node.slave.handle(TermAsked(), self.clock.now))

    def _join(self) -> None:
        if not self._is_done and len(self._nodes) < 2 * self.slaves:
            self._greet(self._new_client())

    def _new_client(self) -> bytes:
        return f"c{next(self._names)}".encode()

    def _greet(self, client: bytes) -> None:
        number = int(client[1:])
        hello = Hello(PROTOCOL, "same", f"slave{number}", "null", "cpu", "host", number)
        pace = 10.0 if self._happens("slow") else self.chance.uniform(0.8, 1.2)
        node = self._nodes[client] = _Node(
            client, hello.name, Slave(hello, patience=self._patience), pace
        )
        self._act(node, node.slave.start(self.clock.now))
        self._beat(node)

    def _beat(self, node: _Node) -> None:
        if node.client not in self._nodes:
            return
        slave = node.slave
        if node.frozen_until <= self.clock.now:
            if slave.id:
                self._carry_up(node.client, Beat(slave.id, node.steps, run=slave.run), "beat")
            deadline = slave.deadline
            if deadline is not None and self.clock.now >= deadline:
                self._act(node, slave.handle(Tick(), self.clock.now))
        self.clock.after(slave.beat_every or 0.25, lambda: self._beat(node))

    def _act(self, node: _Node, actions: list[SlaveAction]) -> None:
        for action in actions:
            if isinstance(action, Tell):
                self._carry_up(node.client, action.message)
            elif isinstance(action, Exit):
                self._die(node.client)
                return
        node.slave.validate()
        if node.client not in self._nodes:
            return
        job = node.slave.begin()
        if job is not None:
            seconds = self.chance.uniform(*self._work) * node.pace
            self.clock.after(seconds, lambda: self._finish(node, job, seconds))

    def _finish(self, node: _Node, job: Job, seconds: float) -> None:
        if node.client not in self._nodes:
            return
        if node.frozen_until > self.clock.now:
            self.clock.at(node.frozen_until, lambda: self._finish(node, job, seconds))
            return
        if self._happens("kill", node):
            self._die(node.client)
            return
        if self._happens("hang", node):
            node.frozen_until = self.clock.now + self.chance.choice((0.3, 3.0, _FOR_EVER))
            if node.frozen_until >= _FOR_EVER:  # a master that never heard of it cannot end it
                self.clock.after(60.0, lambda: self._die(node.client))
        if self._happens("join", node):
            self.clock.after(0.05, self._join)
        if self._happens("lie", node):
            number = self.chance.randrange(10_000)
            self._carry_up(node.client, Update(LeaseId(number, 77), {}, (), 0.0))
        slave, now = node.slave, self.clock.now
        does_fail, does_flip = self._happens("fail", node), self._happens("flip", node)
        does_leave = self._happens("leave", node)
        node.steps += 1
        if does_leave:
            self._act(node, slave.handle(TermAsked(), now))
        if does_fail:
            failure = Failure(job.lease, "unit", "it failed")
            self._act(node, slave.handle(Failed(failure), now))
        else:
            if does_flip:
                self._flipped.add(node.client)
                self._digests[node.client, job.lease] = self.chance.randbytes(8)
            self._act(node, slave.handle(Computed(Update(job.lease, {}, (), seconds)), now))

    def _die(self, client: bytes) -> None:
        """A process ends; the master sees it, and another one is started in its place."""
        if self._nodes.pop(client, None) is None:
            return
        self.clock.after(1e-3, lambda: self._tell_master(Lost(client, "killed")))
        if len(self._nodes) < self.slaves:
            longest = self.chance.choice((1.0, 1.0, 1.0, 5.0))
            self.clock.after(self.chance.uniform(0.1, longest), self._join)


def _pieces_of_task(policy: Policy, slaves: int) -> int:
    """Return how many pieces are applied together."""
    if isinstance(policy, LocalPolicy):
        return policy.replicas(slaves) if policy.waits else 1
    return 3 if isinstance(policy, GradientPolicy) and policy.cut is not None else 1


def check_policy(policy: Policy, *, seeds: int = 20, plan: FaultPlan | None = None) -> None:
    """See that a policy keeps its promises, its decisions and whole runs with losses.

    In each simulated run slaves die, hang, crawl, leave and come back and the master is started
    anew: each sample of each epoch is applied once, nobody is further ahead than the policy's bound
    allows, and the run comes to its end.

    Raises:
        AssertionError: it does not; the message says which promise, and the seed.
    """
    check_decisions(policy)
    for seed in range(seeds):
        Simulation(seed, plan=plan, policy=policy, audit=0.0).run()


def main(arguments: list[str] | None = None) -> int:
    """Run many seeds; print those that fail."""
    parser = argparse.ArgumentParser(prog="python -m veloflow.testing", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--plan", help="faults, such as kill=0.05,hang=0.01; else the seed says")
    parser.add_argument("--sharing", help="a mode, such as ssp:3; else a whole epoch at once")
    given: Any = parser.parse_args(arguments)
    plan = FaultPlan.parse(given.plan) if given.plan else None
    policy = parse_sharing(given.sharing) if given.sharing else None
    failed = 0
    totals: Counter[str] = Counter()
    for seed in range(given.start, given.start + given.seeds):
        try:
            totals.update(Simulation(seed, plan=plan, policy=policy).run().events)
        except AssertionError as error:
            failed += 1
            print(error)
    happened = ", ".join(f"{count} x {name}" for name, count in totals.most_common())
    print(f"{given.seeds} seeds, {failed} failed; {happened or 'nothing went wrong'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
