"""The master, pure: who gets which piece, whose answer counts, who is waited for no longer."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from veloflow.protocol.audit import Audit, Opinion
from veloflow.protocol.dealer import Dealer
from veloflow.protocol.deaths import Deaths
from veloflow.protocol.door import Door
from veloflow.protocol.events import (
    STAND_IN,
    Action,
    Apply,
    Away,
    Event,
    Exposed,
    Garbage,
    GiveUp,
    Grant,
    Heard,
    Lost,
    PauseAsked,
    PutOut,
    Recruit,
    Rejected,
    ResumeAsked,
    Say,
    Send,
    StandDown,
    StandIn,
    StopAsked,
    Tick,
    WorkAdded,
)  # fmt: skip
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

__all__ = ["Master", "MasterSettings", "Told"]

#: when, which slave, what happened, and the lease that it is about
Told = tuple[float, str, str, LeaseId | None]

#: no lease is called late so soon after the master was away, in beats
_READING = 0.5
#: silent for so many beats: what it holds goes to others; for so many more: it is put out
_SILENT, _GONE = 6, 40
#: a slave that beats but whose work has not advanced for so many seconds is put out
_STUCK = 60.0
_STORY = 4096
#: so many seconds without slaves, then the master computes itself
_HUNGER = 2.0


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
    """

    run: str
    checksum: str
    patience: float = 1.0
    prefetch: int = 2
    audit: float = 0.0
    seed: int = 0
    works: bool = False

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
            Rejected: self._on_rejected,
            PauseAsked: self._on_pause,
            ResumeAsked: self._on_resume,
            StopAsked: self._on_stop,
            Away: self._on_away,
            Tick: lambda event, now: None,
        }
        self._audit = Audit(settings.audit, settings.seed)
        self._dealer = Dealer(self.ledger, self.crowd, self._pace, self._audit)
        self._watch: list[tuple[float, str]] = []  # when to look whether slaves are silent
        self._failures: dict[int, dict[str, Failure]] = {}
        self._deaths = Deaths()
        self._door = Door(settings.checksum, settings.patience, settings.beat_every)
        self._joined = 0
        self._next_number = 0
        self._last = self._looked = -math.inf
        self._absent_until = -math.inf
        self._is_paused = False
        self._stopped = ""
        self._starving_since: float | None = None
        self._lacks_judge = False
        self._story: deque[Told] = deque(maxlen=_STORY)
        self._untold = 0  # how many of these news() has not returned

    # -- questions ----------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When to call with Tick at the latest; None for never."""
        times = [
            self._dealer.deadline,
            self._watch[0][0] if self._watch else None,
            self._stands_in_at,
        ]
        return min((one for one in times if one is not None), default=None)

    @property
    def capacity(self) -> int:
        """How many pieces all slaves together can hold."""
        return self.crowd.capacity

    def is_last_word(self, client: bytes, lease: LeaseId) -> bool:
        """Whether one more failure of this lease's piece, by this client, would end the run."""
        slave = self.crowd.by_client.get(client)
        if slave is None or lease.number not in self.ledger:
            return False
        return self._is_hopeless(lease.number, slave, {slave.id})

    def is_audited(self, number: int) -> bool:
        """Whether answers to this piece are compared, and need a digest."""
        return number in self._audit

    def story(self, of: str | int) -> list[str]:
        """Return what happened to a slave (by id) or to a piece (by number), the oldest first."""
        return [
            f"{when:.3f} {slave}: {what}" + (f" {lease.number}.{lease.attempt}" if lease else "")
            for when, slave, what, lease in self._story
            if of == slave or (lease is not None and of == lease.number)
        ]

    def news(self) -> list[Told]:
        """Return what has happened to slaves and pieces since this was called last."""
        count, self._untold = min(self._untold, len(self._story)), 0
        return [self._story[place] for place in range(-count, 0)]

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
        self._watch_hunger(now)
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
        self._look_later(slave, now + _SILENT * self.settings.beat_every)
        self._tell(now, "joined", slave.id)
        self._welcome(slave)
        self._say("info", f"slave {slave.id} joined: {hello.name} on {hello.host}, {hello.device}")

    def _welcome(self, slave: Slave) -> None:
        welcome = Welcome(slave.id, self.settings.run, self.settings.beat_every)
        self._actions.append(Send(slave.client, welcome))
        if self._is_paused:
            self._actions.append(Send(slave.client, Pause()))

    def _on_beat(self, client: bytes, beat: Beat, now: float) -> None:
        slave = self.crowd.by_id.get(beat.slave)
        if slave is not None and not slave.pulse:
            slave.pulse = client
        if slave is None or slave.is_gone or slave.pulse != client:
            self._introduce(client, now)  # the same id may be of another, from an earlier master
            return
        self._actions.append(Send(client, beat))
        if beat.progress != slave.progress:
            slave.progress, slave.progressed = beat.progress, now
        self._is_alive(slave, now)

    def _introduce(self, client: bytes, now: float) -> None:
        """Ask who speaks, but not at every word."""
        if self._door.is_to_ask(client, now):
            self._actions.append(Send(client, Introduce()))

    def _is_alive(self, slave: Slave, now: float) -> None:
        slave.heard = now
        if slave.state is State.SUSPECT:
            slave.move("heard")
            self.crowd.place(slave)
            self._tell(now, "is heard of again", slave.id)
            self._say("info", f"slave {slave.id} is heard of again")
            self._look_later(slave, now + _SILENT * self.settings.beat_every)

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
        self._answered(slave, update.lease, now)
        self._deaths.answered()
        number = update.lease.number
        if number in self._audit and not self._stands(slave, update.lease, digest):
            return
        verdict, void = self.ledger.complete(update.lease, slave.id)
        if verdict is not Verdict.ACCEPTED:
            self._tell(now, "came late with", slave.id, update.lease)
            return
        self._tell(now, "did", slave.id, update.lease)
        self._actions.append(Apply(slave.client, slave.id, self.ledger[number].piece, update))
        self._cancel(void)
        wrong = self._audit.outvoted(number, digest) if number in self._audit else []
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
        self._tell(self._last, f"is compared ({opinion.value}) on", slave.id, lease)
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
        self.ledger.forget(number)
        self._dealer.settle(number)
        self._deaths.settle(number)
        self._failures.pop(number, None)

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
            self._look_later(slave, now + self.settings.beat_every)

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
        elif self._answered(slave, event.lease, now):
            self._fail(slave, Failure(event.lease, "", event.reason))

    def _fail(self, slave: Slave, failure: Failure) -> None:
        """A piece failed on a slave that is well: try another, or give up."""
        number = failure.lease.number
        if not self.ledger.take_back(failure.lease):
            return
        self._dealer.returned(number)
        self._dealer.bar(number, slave.id)
        self.counters["failed"] += 1
        by = self._failures.setdefault(number, {})
        is_hopeless = self._is_hopeless(number, slave, {slave.id, *by})
        by[slave.id] = failure
        self._say("warning", f"piece {number} failed on slave {slave.id}: {failure.reason}")
        if is_hopeless:
            self._actions.append(GiveUp(self.ledger[number].piece, failure))

    def _is_hopeless(self, number: int, slave: Slave, tried: set[str]) -> bool:
        before = self._failures.get(number, {})
        if slave.id in before:
            return True
        return len(tried | set(before)) >= 2

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
        self._tell(self._last, f"{slave.state.value}: {reason};", slave.id)
        level = "info" if slave.state is State.LEFT else "warning"
        self._say(level, f"slave {slave.id} ({slave.hello.name}) is {slave.state.value}: {reason}")

    def _take_all_back(self, slave: Slave) -> None:
        for lease in self.ledger.lose(slave.id):
            self._dealer.returned(lease.id.number)
            self._tell(self._last, "lost", slave.id, lease.id)

    # -- time ---------------------------------------------------------------------------------

    def _pass_time(self, now: float) -> None:
        self._looked = now
        self._dealer.pass_time(now)
        while self._watch and now >= self._watch[0][0]:
            when, id_ = heapq.heappop(self._watch)
            slave = self.crowd.by_id[id_]
            if not slave.is_gone and slave.look_at == when:
                self._look_at(slave, now)

    def _look_later(self, slave: Slave, when: float) -> None:
        slave.look_at = when
        heapq.heappush(self._watch, (when, slave.id))

    def _look_at(self, slave: Slave, now: float) -> None:
        """See whether a slave is silent, stuck, or about to leave."""
        beat = self.settings.beat_every
        if slave.state is State.SUSPECT:
            due = max(slave.suspected + _GONE * beat, self._absent_until)
            if now >= due:
                reason = f"silent for {now - slave.heard:.1f} s"
                self._count_death(slave, reason)
                self._put_out(slave, "silent for long", reason)
                return
        else:
            due = max(slave.heard + _SILENT * beat, self._absent_until)
            if now >= due:
                self._suspect(slave, now)
                due = now + _GONE * beat
            elif self._is_stuck(slave, now):
                reason = "it beats, but its work does not advance"
                self._count_death(slave, reason)
                self._put_out(slave, "stuck", reason)
                return
            elif slave.state is State.DRAINING:
                slave.move("still here")
                self.crowd.place(slave)
        self._look_later(slave, due)

    def _suspect(self, slave: Slave, now: float) -> None:
        slave.move("silent")
        slave.suspected = now
        self._take_all_back(slave)
        self.crowd.place(slave)
        self.counters["suspected"] += 1
        self._tell(now, "is silent", slave.id)
        self._say("warning", f"slave {slave.id} is silent: its work goes to others")

    def _is_stuck(self, slave: Slave, now: float) -> bool:
        if not slave.owed:
            return False
        limit = 20 * self._pace.limit(next(iter(slave.owed.values())))
        since = max(slave.started, slave.progressed, self._absent_until)
        return now - since >= max(_STUCK * self.settings.patience, limit)

    def _on_away(self, event: Away, now: float) -> None:
        """Silence proves nothing while nobody listened."""
        self._looked = now
        self._absent_until = now + _SILENT * self.settings.beat_every
        self._dealer.keep_quiet(now + _READING * self.settings.beat_every)

    # -- work ---------------------------------------------------------------------------------

    def _on_work(self, event: WorkAdded, now: float) -> None:
        self.ledger.add(event.pieces)
        for piece in event.pieces:
            self._audit.choose(piece.number)
            self._next_number = max(self._next_number, piece.number + 1)

    def _give_work(self, now: float) -> None:
        if self._is_paused or self._stopped:
            return
        while (dealt := self._dealer.deal(now)) is not None:
            slave, lease = dealt
            self._tell(now, "got", slave.id, lease)
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

    @property
    def _stands_in_at(self) -> float | None:
        """When the master begins to compute itself if no slave joins; None for never."""
        is_off = not self.settings.works or STAND_IN in self.crowd.by_client or self._stopped
        if is_off or self._starving_since is None:
            return None
        return self._starving_since + _HUNGER * self.settings.patience

    def _watch_hunger(self, now: float) -> None:
        """Say it once when there is work and nobody to do it, or do it oneself."""
        has_slaves = len(self.crowd) > (STAND_IN in self.crowd.by_client)
        if not has_slaves and len(self.ledger) and not self._stopped:
            if self._starving_since is None:
                self._starving_since = now
                what = "no slaves left" if self._joined else "no slaves yet"
                then = "the master computes itself" if self.settings.works else "the run waits"
                self._say("warning", f"{what}; {then} until one joins")
            if self._stands_in_at is not None and now >= self._stands_in_at:
                self._actions.append(StandIn())
        elif self._starving_since is not None and has_slaves:
            self._starving_since = None
            self._say("info", "there is a slave; the run goes on")
            if STAND_IN in self.crowd.by_client:
                self._actions.append(StandDown())
        if self._audit.disputed or self._lacks_judge:
            self._watch_disputes()

    def _watch_disputes(self) -> None:
        """Ask for one more slave, once, if there is none to judge where two differ."""
        waiting = (number for number in self._audit.disputed if self.ledger[number].is_waiting)
        number = next((one for one in waiting if not self._dealer.has_other(one)), None)
        if number is not None and not self._lacks_judge and not self._stopped:
            device, hardware = self._audit.kind_of(number) or ("", "")
            kind = f"{device} on {hardware}"
            self._say("warning", f"nobody can judge: piece {number} waits for one more ({kind})")
            self._actions.append(Recruit())
        self._lacks_judge = number is not None

    def _say(self, level: str, text: str) -> None:
        self._actions.append(Say(level, text))

    def _tell(self, now: float, what: str, slave: str, lease: LeaseId | None = None) -> None:
        self._story.append((now, slave, what, lease))
        self._untold += 1

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the state is broken.
        """
        self.ledger.validate()
        self.crowd.validate()
        self._dealer.validate()
        for slave in self.crowd:
            for lease in self.ledger.leases_of(slave.id):
                assert lease.id in slave.owed, f"{slave.id} does not owe {lease}"
        here = {slave.id for slave in self.crowd}
        for entry in self.ledger.open:
            assert all(one.slave in here for one in entry.leases), f"held by nobody: {entry}"
        watched = set(self._watch)
        for slave in self.crowd:
            assert (slave.look_at, slave.id) in watched, f"nobody watches {slave}"
        if not self._is_paused and not self._stopped:
            self._dealer.validate_dealt()
