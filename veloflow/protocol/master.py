"""The master, pure: who gets which piece, whose answer counts, who is waited for no longer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from veloflow.protocol.audit import Audit, Opinion
from veloflow.protocol.chronicle import Chronicle, Told
from veloflow.protocol.clocks import Clocks
from veloflow.protocol.dealer import Dealer
from veloflow.protocol.deaths import Deaths
from veloflow.protocol.door import Door
from veloflow.protocol.elasticity import Bounds, Scaling
from veloflow.protocol.events import (
    Action,
    Applied,
    Apply,
    Away,
    BoundChanged,
    Event,
    Exposed,
    Garbage,
    GiveUp,
    Grant,
    Heard,
    Inherit,
    Lost,
    PauseAsked,
    PutOut,
    Rejected,
    ResumeAsked,
    Say,
    Send,
    StopAsked,
    Tick,
    Withdrawn,
    WorkAdded,
)  # fmt: skip
from veloflow.protocol.hunger import Hunger
from veloflow.protocol.ledger import Lease, Ledger, Verdict
from veloflow.protocol.messages import (
    Beat,
    Bye,
    Cancel,
    Failure,
    GiveBack,
    Hello,
    Introduce,
    LeaseId,
    Pause,
    Refusal,
    Resume,
    Stop,
    Update,
    Welcome,
)  # fmt: skip
from veloflow.protocol.pace import Pace
from veloflow.protocol.slaves import Crowd, Slave, State
from veloflow.protocol.watch import Finding, Watch

__all__ = ["Master", "MasterSettings"]

#: no lease is called late so soon after the master was away, in beats
_READING = 0.5


@dataclass(frozen=True)
class MasterSettings:
    """What the master is told.

    Attributes:
        run: the run's id.
        checksum: what a slave's definition, options and version must come to.
        patience: scales every wait.
        prefetch: how many jobs a slave may hold: one to compute, the others in advance.
        audit: the share of the pieces that two slaves compute, to be compared.
        seed: of the choice of these, which no slave may foresee.
        works: whether the master computes itself while there are no slaves.
        bound: how many clocks a slave may be ahead of the slowest; None for no bound.
        inherits: whether slaves keep something that others are to have when they are gone.
        bounds: how many slaves the run may have; None where that is not to be decided here.
    """

    run: str
    checksum: str
    patience: float = 1.0
    prefetch: int = 2
    audit: float = 0.0
    seed: int = 0
    works: bool = False
    bound: int | None = None
    inherits: bool = False
    bounds: Bounds | None = None

    @property
    def beat_every(self) -> float:
        """Seconds between the signs of life of a slave."""
        return 0.25 * self.patience


class Master:
    """The state of a run with slaves. Events and the time go in, actions come out."""

    def __init__(self, settings: MasterSettings) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self.crowd = Crowd()
        self.counters: Counter[str] = Counter()
        self._pace = Pace(settings.patience)
        self._actions: list[Action] = []
        self._handlers: dict[type[Event], Callable[[Any, float], None]] = {
            Heard: self._on_heard,
            Lost: self._on_lost,
            Garbage: self._on_garbage,
            WorkAdded: self._on_work,
            Withdrawn: self._on_withdrawn,
            Rejected: self._on_rejected,
            PauseAsked: self._on_pause,
            ResumeAsked: self._on_resume,
            StopAsked: self._on_stop,
            Away: self._on_away,
            Applied: lambda event, now: self._clocks.applied(event.number),
            BoundChanged: lambda event, now: self._clocks.change(event.bound),
            Tick: lambda event, now: None,
        }
        self._audit = Audit(settings.audit, settings.seed)
        self._clocks = Clocks(self.ledger, settings.bound)
        self._dealer = Dealer(self.ledger, self.crowd, self._pace, self._audit, self._clocks)
        self._watch = Watch(self.crowd, self._pace, settings.beat_every, settings.patience)
        self._hunger = Hunger(
            self.ledger,
            self.crowd,
            self._audit,
            self._dealer,
            works=settings.works,
            patience=settings.patience,
        )
        self._scaling = Scaling(self.ledger, self.crowd, settings.bounds, settings.patience)
        self._failed: set[int] = set()  # pieces that failed on a slave
        self._deaths = Deaths()
        self._lies = Deaths()  # updates that had not even the right form
        self._door = Door(settings.checksum, settings.patience, settings.beat_every)
        self._joined = 0
        self._next_number = 0
        self._last = self._looked = -math.inf
        self._is_paused = False
        self._stopped = ""
        self._chronicle = Chronicle()

    # -- questions ----------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When to call with Tick at the latest; None for never."""
        hunger = None if self._stopped else self._hunger.deadline
        scaling = None if self._stopped or self._is_paused else self._scaling.deadline
        times = (self._dealer.deadline, self._watch.deadline, hunger, scaling)
        return min((one for one in times if one is not None), default=None)

    @property
    def capacity(self) -> int:
        """How many pieces all slaves together can hold."""
        return self.crowd.capacity

    def is_last_word(self, client: bytes, lease: LeaseId) -> bool:
        """Whether one more failure of this lease's piece, by this client, would end the run."""
        slave = self.crowd.by_client.get(client)
        return slave is not None and lease.number in self._failed

    def is_audited(self, number: int) -> bool:
        """Whether answers to this piece are compared, and need a digest."""
        return number in self._audit

    def story(self, of: str | int) -> list[str]:
        """Return what happened to a slave (by id) or to a piece (by number), the oldest first."""
        return self._chronicle.about(of)

    def news(self) -> list[Told]:
        """Return what has happened to slaves and pieces since this was called last."""
        return self._chronicle.news()

    # -- events -------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in an event; return what is to be done, in order.

        Time passes with Tick, when all that had arrived was handled; or with any event if
        nobody says Tick, for there is always more to handle.
        """
        self._last = now
        self._actions = []
        self._handlers[type(event)](event, now)
        if type(event) is Tick or now - self._looked >= self.settings.beat_every:
            self._pass_time(now)
        self._give_work(now)
        if not self._stopped:
            self._actions += self._hunger.watch(now)
            if not self._is_paused:
                self._actions += self._scaling.watch(now)
        return self._actions

    def _on_heard(self, event: Heard, now: float) -> None:
        message = event.message
        if type(message) is Beat:
            self._on_beat(event.client, message, now)
            return
        if type(message) is Hello:
            self._on_hello(event.client, message, event.is_local, now)
            return
        slave = self.crowd.by_client.get(event.client)
        if slave is None:
            self._introduce(event.client, now)
            return
        self._is_alive(slave, now)
        if type(message) is Update:
            self._on_update(slave, message, event.digest, now)
        elif type(message) is GiveBack:
            self._on_give_back(slave, message.lease, now)
        elif type(message) is Failure:
            if self._answered(slave, message.lease, now):
                self._fail(slave, message)
        elif type(message) is Bye:
            self._let_go(slave, "bye", message.reason)

    def _on_hello(self, client: bytes, hello: Hello, is_local: bool, now: float) -> None:
        former = self.crowd.by_client.get(client)
        if former is not None and hello == former.hello and not former.jobs:
            # it said so before it heard our welcome: nobody listened for a while
            self._is_alive(former, now)
            self._welcome(former)
            return
        if former is not None:  # it has lost its memory of us
            self._let_go(former, "lost", "it said hello again")
        reason = f"the run is over: {self._stopped}" if self._stopped else ""
        reason = reason or self._door.objection(hello, is_local, now)
        if reason:
            self.counters["refused"] += 1
            self._actions.append(Send(client, Refusal(reason)))
            self._say("warning", f"slave {hello.name} on {hello.host} is refused: {reason}")
            return
        self._joined += 1
        capacity = min(hello.capacity, self.settings.prefetch)
        slave = Slave(f"s{self._joined}", client, hello, is_local, capacity, now, now)
        self.crowd.add(slave)
        self._door.let_in(client)
        self._watch.heard(slave, now)
        self._chronicle.tell(now, "joined", slave.id)
        self._welcome(slave)
        self._say("info", f"slave {slave.id} joined: {hello.name} on {hello.host}, {hello.device}")

    def _welcome(self, slave: Slave) -> None:
        welcome = Welcome(slave.id, self.settings.run, self.settings.beat_every)
        self._actions.append(Send(slave.client, welcome))
        if self._is_paused:
            self._actions.append(Send(slave.client, Pause()))

    def _on_beat(self, client: bytes, beat: Beat, now: float) -> None:
        # the same id may be of another, from an earlier master
        slave = self.crowd.by_id.get(beat.slave) if beat.run in ("", self.settings.run) else None
        if slave is not None and not slave.pulse:
            slave.pulse = client
        if slave is None or slave.is_gone or slave.pulse != client:
            self._introduce(client, now, beat.run)
            return
        self._actions.append(Send(client, beat))
        if beat.progress != slave.progress:
            slave.progress, slave.progressed = beat.progress, now
        self._is_alive(slave, now)

    def _introduce(self, client: bytes, now: float, run: str = "") -> None:
        """Ask who speaks, but not at every word."""
        if self._door.is_to_ask(client, now):
            self._actions.append(Send(client, Introduce(run)))

    def _is_alive(self, slave: Slave, now: float) -> None:
        slave.heard = now
        if slave.state is State.SUSPECT:
            slave.move("heard")
            self.crowd.place(slave)
            self._chronicle.tell(now, "is heard of again", slave.id)
            self._say("info", f"slave {slave.id} is heard of again")
            self._watch.heard(slave, now)

    # -- answers ------------------------------------------------------------------------------

    def _on_update(self, slave: Slave, update: Update, digest: bytes, now: float) -> None:
        sort = slave.owed.get(update.lease)
        if sort is None:
            self._on_unasked(slave, update.lease)
            return
        self._pace.add(sort, now - slave.started)
        slave.jobs += 1
        slave.seconds += update.seconds
        slave.progressed = now
        self._dealer.answered(slave, update.lease, now)
        self._deaths.answered()
        self._lies.answered()
        number = update.lease.number
        if number in self._audit and not self._stands(slave, update.lease, digest):
            return
        verdict, void = self.ledger.complete(update.lease, slave.id)
        if verdict is not Verdict.ACCEPTED:
            self._chronicle.tell(now, "came late with", slave.id, update.lease)
            return
        self._chronicle.tell(now, "did", slave.id, update.lease)
        self._actions.append(Apply(slave.client, slave.id, self.ledger[number].piece, update))
        self._cancel(void)
        wrong = self._audit.outvoted(number, digest) if number in self._audit else []
        self.ledger.forget(number)
        self._settle(number)
        for id_ in wrong:
            self._expose(id_, number)

    # -- audit --------------------------------------------------------------------------------

    def _stands(self, slave: Slave, lease: LeaseId, digest: bytes) -> bool:
        """Compare an answer with others; return whether it may count now, if its lease does."""
        number = lease.number
        if not self.ledger.is_current(lease):
            return True
        opinion = self._audit.weigh(number, slave.id, slave.kind, digest)
        self._dealer.bar(number, slave.id)
        if opinion is Opinion.ANOTHER and not self._dealer.has_other(number):
            opinion = Opinion.SETTLED
        if opinion is Opinion.SETTLED:
            is_confirmed = self._audit.is_confirmed(number)
            self.counters["audited" if is_confirmed else "not audited"] += 1
            return True
        self._chronicle.tell(self._last, f"is compared ({opinion.value}) on", slave.id, lease)
        self.ledger.take_back(lease)
        self._dealer.returned(number)
        if opinion is Opinion.JUDGE:
            self._say("warning", f"slaves differ on piece {number}: another one judges")
        elif opinion is Opinion.HOPELESS:
            reason = "each slave that computed it found something else: it is not deterministic"
            self._actions.append(GiveUp(self.ledger[number].piece, Failure(lease, "audit", reason)))
        return False

    def _expose(self, id_: str, number: int) -> None:
        """Put out a slave whose answer two others contradict."""
        slave = self.crowd.by_id[id_]
        if slave.is_exposed:
            return
        slave.is_exposed = True
        self.counters["spoiled"] += 1
        reason = f"it spoils updates: two others agree on piece {number}, and not with it"
        self._actions.append(Exposed(id_, reason))
        if slave.is_gone:
            self._say("warning", f"slave {id_} ({slave.hello.name}), which is gone: {reason}")
        else:
            self._put_out(slave, "wrong", reason)

    def _settle(self, number: int) -> None:
        self._audit.settle(number)
        self._dealer.settle(number)
        self._deaths.settle(number)
        self._lies.settle(number)
        self._failed.discard(number)

    def _cancel(self, leases: list[Lease]) -> None:
        for lease in leases:
            other = self.crowd.by_id.get(lease.slave)
            if other is not None and lease.id in other.owed:
                self._actions.append(Send(other.client, Cancel(lease.id)))

    def _answered(self, slave: Slave, lease: LeaseId, now: float) -> bool:
        """Take an answer off what a slave owes; return whether it owed it."""
        if lease not in slave.owed:
            self._on_unasked(slave, lease)
            return False
        self._dealer.answered(slave, lease, now)
        return True

    def _on_give_back(self, slave: Slave, lease: LeaseId, now: float) -> None:
        """It did not begin with a job: that was cancelled, or else it is about to leave."""
        if not self._answered(slave, lease, now) or not self.ledger.take_back(lease):
            return
        self._dealer.returned(lease.number)
        if slave.state is State.WELL:
            slave.move("gives back")
            self.crowd.place(slave)
            self._watch.gave_back(slave, now)

    def _on_unasked(self, slave: Slave, lease: LeaseId) -> None:
        """An answer that is not owed: it came twice, or it is to a job that the slave never had."""
        if lease.number in self.ledger:
            is_lie = self.ledger[lease.number].holders.get(lease.attempt) != slave.id
        else:
            is_lie = lease.number >= self._next_number
        if is_lie:
            self._put_out(slave, "wrong", f"it answers job {lease.number}, which it never had")
        else:
            self.counters["doubled"] += 1

    def _on_rejected(self, event: Rejected, now: float) -> None:
        slave = self.crowd.by_client.get(event.client)
        if slave is None:
            return
        self._is_alive(slave, now)
        if event.is_lie:
            self._put_out(slave, "wrong", event.reason)
            self._count_lie(event)
        elif self._answered(slave, event.lease, now):
            self._fail(slave, Failure(event.lease, "", event.reason))

    def _count_lie(self, event: Rejected) -> None:
        """See whether slave after slave sends a wrong update of one piece: then a unit is wrong."""
        number = event.lease.number
        if number not in self.ledger:
            return
        count = self._lies.died(number)
        if count:
            piece = self.ledger[number].piece
            text = (
                f"{count} slaves sent updates of piece {number} ({piece.words}) that the master "
                f"cannot take; the last one: {event.reason}; a unit's make_update gives something "
                "else than it gave before the run"
            )
            self._actions.append(GiveUp(piece, Failure(event.lease, "", text), is_deadly=True))

    def _fail(self, slave: Slave, failure: Failure) -> None:
        """A piece failed on a slave that is well: try another, or give up."""
        number = failure.lease.number
        if not self.ledger.take_back(failure.lease):
            return
        self._dealer.returned(number)
        self._dealer.bar(number, slave.id)
        self.counters["failed"] += 1
        self._say("warning", f"piece {number} failed on slave {slave.id}: {failure.reason}")
        if number in self._failed:
            self._actions.append(GiveUp(self.ledger[number].piece, failure))
        self._failed.add(number)

    # -- losses -------------------------------------------------------------------------------

    def _on_lost(self, event: Lost, now: float) -> None:
        slave = self.crowd.by_client.get(event.client)
        if slave is not None:
            self._door.lost(slave.hello, now)
            self.counters["lost"] += 1
            self._count_death(slave, event.reason)
            self._let_go(slave, "lost", event.reason)

    def _count_death(self, slave: Slave, reason: str) -> None:
        """See whether the piece that the slave was computing is to blame for its end."""
        lease = next(iter(slave.owed), None)
        if lease is None or lease.number not in self.ledger:
            return
        count = self._deaths.died(lease.number)
        if count:
            piece = self.ledger[lease.number].piece
            text = (
                f"{count} slaves died while they computed piece {piece.number} ({piece.words}), "
                f"and other pieces do not kill; the last one: {reason}; to see why, run without "
                "slaves"
            )
            self._actions.append(GiveUp(piece, Failure(lease, "", text), is_deadly=True))

    def _on_garbage(self, event: Garbage, now: float) -> None:
        slave = self.crowd.by_client.get(event.client)
        self.counters["garbage"] += 1
        if slave is not None:
            self._put_out(slave, "wrong", f"it sent what is no message: {event.reason}")

    def _put_out(self, slave: Slave, event: str, reason: str) -> None:
        self.counters["put out"] += 1
        self._actions.append(Send(slave.client, Refusal(reason)))
        self._actions.append(PutOut(slave.client, slave.id, reason, kill=slave.is_local))
        self._let_go(slave, event, reason)

    def _let_go(self, slave: Slave, event: str, reason: str) -> None:
        slave.move(event)
        self._take_all_back(slave)
        slave.owed.clear()
        self.crowd.remove(slave)
        if self.settings.inherits and event != "wrong":
            self._actions.append(Inherit(slave.client))
        self._chronicle.tell(self._last, f"{slave.state.value}: {reason};", slave.id)
        level = "info" if slave.state is State.LEFT else "warning"
        self._say(level, f"slave {slave.id} ({slave.hello.name}) is {slave.state.value}: {reason}")

    def _take_all_back(self, slave: Slave) -> None:
        for lease in self.ledger.lose(slave.id):
            self._dealer.returned(lease.id.number)
            self._chronicle.tell(self._last, "lost", slave.id, lease.id)

    # -- time ---------------------------------------------------------------------------------

    def _pass_time(self, now: float) -> None:
        self._looked = now
        self._dealer.pass_time(now)
        for slave, finding in self._watch.pass_time(now):
            if finding is Finding.SILENT:
                self._suspect(slave, now)
            elif finding is Finding.STILL_HERE:
                slave.move("still here")
                self.crowd.place(slave)
            else:
                self._put_out_idle(slave, finding, now)

    def _put_out_idle(self, slave: Slave, finding: Finding, now: float) -> None:
        event, reason = "stuck", "it beats, but its work does not advance"
        if finding is Finding.GONE:
            event, reason = "silent for long", f"silent for {now - slave.heard:.1f} s"
        if slave.heard >= slave.started:  # else it fell silent before it got the piece
            self._count_death(slave, reason)
        self._put_out(slave, event, reason)

    def _suspect(self, slave: Slave, now: float) -> None:
        slave.move("silent")
        slave.suspected = now
        self._take_all_back(slave)
        self.crowd.place(slave)
        self.counters["suspected"] += 1
        self._chronicle.tell(now, "is silent", slave.id)
        self._say("warning", f"slave {slave.id} is silent: its work goes to others")

    def _on_away(self, event: Away, now: float) -> None:
        """Silence proves nothing while nobody listened."""
        self._looked = now
        self._watch.was_away(now)
        self._dealer.keep_quiet(now + _READING * self.settings.beat_every)

    # -- work ---------------------------------------------------------------------------------

    def _on_work(self, event: WorkAdded, now: float) -> None:
        self.ledger.add(event.pieces)
        for piece in event.pieces:
            self._audit.choose(piece.number)
            if event.is_shared:
                self._dealer.shared.add(piece.number)
            self._next_number = max(self._next_number, piece.number + 1)
        for piece, slave in zip(event.pieces, event.wishes, strict=False):
            self._dealer.wishes[piece.number] = slave

    def _on_withdrawn(self, event: Withdrawn, now: float) -> None:
        for number in event.numbers:
            if number in self.ledger:
                self._cancel(self.ledger.withdraw(number))
                self._settle(number)

    def _give_work(self, now: float) -> None:
        if self._is_paused or self._stopped:
            return
        while (dealt := self._dealer.deal(now)) is not None:
            slave, lease = dealt
            self._chronicle.tell(now, "got", slave.id, lease)
            self._actions.append(Grant(slave.client, lease, self.ledger[lease.number].piece))
        self.counters["speculated"] = self._dealer.again

    # -- pause, stop, words -------------------------------------------------------------------

    def _on_pause(self, event: PauseAsked, now: float) -> None:
        self._is_paused = True
        self._actions.extend(Send(slave.client, Pause()) for slave in self.crowd)

    def _on_resume(self, event: ResumeAsked, now: float) -> None:
        self._is_paused = False
        self._actions.extend(Send(slave.client, Resume()) for slave in self.crowd)

    def _on_stop(self, event: StopAsked, now: float) -> None:
        self._stopped = event.reason or "stopped"
        self._actions.extend(Send(slave.client, Stop(event.reason)) for slave in self.crowd)

    def _say(self, level: str, text: str) -> None:
        self._actions.append(Say(level, text))

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the state is broken.
        """
        self.ledger.validate()
        self.crowd.validate()
        self._dealer.validate()
        self._clocks.validate()
        for slave in self.crowd:
            for lease in self.ledger.leases_of(slave.id):
                assert lease.id in slave.owed, f"{slave.id} does not owe {lease}"
        here = {slave.id for slave in self.crowd}
        for entry in self.ledger.open:
            assert all(one.slave in here for one in entry.leases), f"held by nobody: {entry}"
        self._watch.validate()
        if not self._is_paused and not self._stopped:
            self._dealer.validate_dealt()
