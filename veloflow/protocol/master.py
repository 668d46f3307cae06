"""The master, pure: who gets which piece, whose answer counts, who is waited for no longer."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from veloflow.protocol.events import (
    Action,
    Apply,
    Away,
    Event,
    Garbage,
    GiveUp,
    Grant,
    Heard,
    Lost,
    PauseAsked,
    PutOut,
    Rejected,
    ResumeAsked,
    Say,
    Send,
    StopAsked,
    Tick,
    WorkAdded,
)  # fmt: skip
from veloflow.protocol.ledger import Lease, Ledger, Verdict
from veloflow.protocol.messages import (
    PROTOCOL,
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

__all__ = ["Master", "MasterSettings"]

#: silent for so many beats: what it holds goes to others; for so many more: it is put out
_SILENT, _GONE = 6, 40
#: a slave that beats but whose work has not advanced for so many seconds is put out
_STUCK = 60.0
#: lost so often within a minute, a slave is not taken in again
_FLAPS = 5
_STORY = 4096


@dataclass(frozen=True)
class MasterSettings:
    """What the master is told.

    Attributes:
        run: the run's id.
        checksum: what a slave's definition, options and version must come to.
        patience: scales every wait.
        prefetch: how many jobs a slave may hold: one to compute, the others in advance.
    """

    run: str
    checksum: str
    patience: float = 1.0
    prefetch: int = 2

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
        self._handlers = cast(
            "dict[type[Event], Callable[[Event, float], None]]",
            {
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
            },
        )
        self._due: list[tuple[float, LeaseId, str]] = []  # when leases that are begun are late
        self._watch: list[tuple[float, str]] = []  # when to look whether slaves are silent
        self._late: dict[int, None] = {}  # pieces that wait for a second slave
        self._failures: dict[int, dict[str, Failure]] = {}
        self._introduced: dict[bytes, float] = {}
        self._losses: dict[str, deque[float]] = {}
        self._joined = 0
        self._next_number = 0
        self._last = float("-inf")
        self._absent_until = float("-inf")
        self._is_paused = False
        self._stopped = ""
        self._is_starving = False
        self._story: deque[tuple[float, str, str, LeaseId | None]] = deque(maxlen=_STORY)

    # -- questions ----------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When to call with Tick at the latest; None for never."""
        times = [heap[0][0] for heap in (self._due, self._watch) if heap]
        return min(times, default=None)

    @property
    def capacity(self) -> int:
        """How many pieces all slaves together can hold."""
        return sum(slave.capacity for slave in self.crowd if slave.state is State.WELL)

    def is_last_word(self, client: bytes, lease: LeaseId) -> bool:
        """Whether one more failure of this lease's piece, by this client, would end the run."""
        slave = self.crowd.by_client.get(client)
        if slave is None or lease.number not in self.ledger:
            return False
        return self._is_hopeless(lease.number, slave, {slave.id})

    def story(self, of: str | int) -> list[str]:
        """Return what happened to a slave (by id) or to a piece (by number), the oldest first."""
        return [
            f"{when:.3f} {slave}: {what}" + (f" {lease.number}.{lease.attempt}" if lease else "")
            for when, what, slave, lease in self._story
            if of == slave or (lease is not None and of == lease.number)
        ]

    # -- events -------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in an event; return what is to be done, in order."""
        self._last = now
        self._actions = []
        self._handlers[type(event)](event, now)
        self._pass_time(now)
        self._give_work(now)
        self._watch_hunger()
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
            self._on_update(slave, message, now)
        elif type(message) is GiveBack:
            if self._answered(slave, message.lease, now) and self.ledger.take_back(message.lease):
                self._note_return(message.lease.number)
        elif type(message) is Failure:
            if self._answered(slave, message.lease, now):
                self._fail(slave, message)
        elif type(message) is Bye:
            self._let_go(slave, "bye", message.reason)

    def _on_hello(self, client: bytes, hello: Hello, is_local: bool, now: float) -> None:
        former = self.crowd.by_client.get(client)
        if former is not None:  # it has lost its memory of us
            self._let_go(former, "lost", "it said hello again")
        reason = self._objection(hello, is_local, now)
        if reason:
            self.counters["refused"] += 1
            self._actions.append(Send(client, Refusal(reason)))
            self._say("warning", f"slave {hello.name} on {hello.host} is refused: {reason}")
            return
        self._joined += 1
        capacity = min(hello.capacity, self.settings.prefetch)
        slave = Slave(f"s{self._joined}", client, hello, is_local, capacity, now, now)
        self.crowd.add(slave)
        self._introduced.pop(client, None)
        heapq.heappush(self._watch, (now + _SILENT * self.settings.beat_every, slave.id))
        self._tell(now, "joined", slave.id)
        beat_every = self.settings.beat_every
        self._actions.append(Send(client, Welcome(slave.id, self.settings.run, beat_every)))
        self._say("info", f"slave {slave.id} joined: {hello.name} on {hello.host}, {hello.device}")
        if self._is_paused:
            self._actions.append(Send(client, Pause()))

    def _objection(self, hello: Hello, is_local: bool, now: float) -> str:
        """Return why a slave is not taken in; empty if it is."""
        if self._stopped:
            return f"the run is over: {self._stopped}"
        if hello.protocol != PROTOCOL:
            return (
                f"it speaks protocol {hello.protocol} and the master {PROTOCOL}; "
                "install the same version of veloflow on both sides"
            )
        if hello.checksum != self.settings.checksum:
            return (
                "its definition, its options or its version of veloflow differ from the master's; "
                "give it the same files and the same version"
            )
        losses = self._losses.get(f"{hello.name}@{hello.host}", ())
        recent = [one for one in losses if now - one < 60 * self.settings.patience]
        if len(recent) >= _FLAPS and not is_local:
            return f"it was lost {len(recent)} times within a minute; mend it first"
        return ""

    def _on_beat(self, client: bytes, beat: Beat, now: float) -> None:
        slave = self.crowd.by_id.get(beat.slave)
        if slave is None or slave.state not in (State.WELL, State.SUSPECT):
            self._introduce(client, now)
            return
        self._actions.append(Send(client, beat))
        if beat.progress != slave.progress:
            slave.progress, slave.progressed = beat.progress, now
        self._is_alive(slave, now)

    def _introduce(self, client: bytes, now: float) -> None:
        """Ask who speaks, but not at every word."""
        if now - self._introduced.get(client, float("-inf")) >= self.settings.beat_every:
            if len(self._introduced) > 10_000:  # a flood of strangers is not remembered
                self._introduced.clear()
            self._introduced[client] = now
            self._actions.append(Send(client, Introduce()))

    def _is_alive(self, slave: Slave, now: float) -> None:
        slave.heard = now
        if slave.state is State.SUSPECT:
            slave.move("heard")
            self.crowd.place(slave)
            self._tell(now, "is heard of again", slave.id)
            self._say("info", f"slave {slave.id} is heard of again")
            heapq.heappush(self._watch, (now + _SILENT * self.settings.beat_every, slave.id))

    # -- answers ------------------------------------------------------------------------------

    def _on_update(self, slave: Slave, update: Update, now: float) -> None:
        sort = slave.owed.get(update.lease)
        if sort is None:
            self._on_unasked(slave, update.lease)
            return
        self._pace.add(sort, now - slave.started)
        slave.jobs += 1
        slave.seconds += update.seconds
        slave.progressed = now
        self._answered(slave, update.lease, now)
        verdict, void = self.ledger.complete(update.lease, slave.id)
        if verdict is not Verdict.ACCEPTED:
            self._tell(now, "came late with", slave.id, update.lease)
            return
        self._tell(now, "did", slave.id, update.lease)
        number = update.lease.number
        self._actions.append(Apply(slave.client, slave.id, self.ledger[number].piece, update))
        self._cancel(void)
        self._settle(number)

    def _settle(self, number: int) -> None:
        self.ledger.forget(number)
        self._late.pop(number, None)
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
        was_first = next(iter(slave.owed)) == lease
        del slave.owed[lease]
        if was_first and slave.owed:
            self._begin(slave, now)
        self.crowd.place(slave)
        return True

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

    def _begin(self, slave: Slave, now: float) -> None:
        """The slave has begun with the first of what it owes."""
        slave.started = now
        lease = next(iter(slave.owed))
        heapq.heappush(self._due, (now + self._pace.limit(slave.owed[lease]), lease, slave.id))

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
        self._note_return(number)
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
            self._losses.setdefault(
                f"{slave.hello.name}@{slave.hello.host}", deque(maxlen=_FLAPS)
            ).append(now)
            self.counters["lost"] += 1
            self._let_go(slave, "lost", event.reason)

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
            self._note_return(lease.id.number)
            self._tell(self._last, "lost", slave.id, lease.id)

    def _note_return(self, number: int) -> None:
        """A holder of a piece is gone; if there is another, it has had its time already."""
        if self.ledger[number].is_waiting:
            self._late.pop(number, None)
        else:
            self._late[number] = None

    # -- time ---------------------------------------------------------------------------------

    def _pass_time(self, now: float) -> None:
        while self._due and now >= self._due[0][0]:
            _, lease, id_ = heapq.heappop(self._due)
            self._look_at_lease(lease, id_)
        while self._watch and now >= self._watch[0][0]:
            _, id_ = heapq.heappop(self._watch)
            self._look_at_slave(self.crowd.by_id[id_], now)

    def _look_at_lease(self, lease: LeaseId, id_: str) -> None:
        """A lease is late if it is still the first that its slave owes, and still counts."""
        slave = self.crowd.by_id[id_]
        if lease.number in self.ledger and next(iter(slave.owed), None) == lease:
            entry = self.ledger[lease.number]
            if len(entry.leases) == 1 and entry.leases[0].id == lease:
                self._late[lease.number] = None

    def _look_at_slave(self, slave: Slave, now: float) -> None:
        if slave.state not in (State.WELL, State.SUSPECT):
            return
        beat = self.settings.beat_every
        due = max(slave.heard + _SILENT * beat, self._absent_until)
        if slave.state is State.SUSPECT:
            due = max(slave.suspected + _GONE * beat, self._absent_until)
        if now >= due:
            if slave.state is State.SUSPECT:
                self._put_out(slave, "silent for long", f"silent for {now - slave.heard:.1f} s")
                return
            slave.move("silent")
            slave.suspected = now
            self._take_all_back(slave)
            self.crowd.place(slave)
            self.counters["suspected"] += 1
            self._say("warning", f"slave {slave.id} is silent: its work goes to others")
            due = now + _GONE * beat
        elif self._is_stuck(slave, now):
            self._put_out(slave, "stuck", "it beats, but its work does not advance")
            return
        heapq.heappush(self._watch, (due, slave.id))

    def _is_stuck(self, slave: Slave, now: float) -> bool:
        if slave.state is not State.WELL or not slave.owed:
            return False
        limit = 20 * self._pace.limit(next(iter(slave.owed.values())))
        since = max(slave.started, slave.progressed)
        return now - since >= max(_STUCK * self.settings.patience, limit)

    def _on_away(self, event: Away, now: float) -> None:
        """Silence proves nothing while nobody listened."""
        self._absent_until = now + _SILENT * self.settings.beat_every

    # -- work ---------------------------------------------------------------------------------

    def _on_work(self, event: WorkAdded, now: float) -> None:
        self.ledger.add(event.pieces)
        highest = max((piece.number for piece in event.pieces), default=-1)
        self._next_number = max(self._next_number, highest + 1)

    def _give_work(self, now: float) -> None:
        if self._is_paused or self._stopped:
            return
        while self.ledger.waiting:
            slave = self._taker()
            if slave is None:
                return
            lease = self.ledger.lease(slave.id, now)
            assert lease is not None
            self._grant(slave, lease.id, now)
        if self._late or self.crowd.stacked:
            self._give_again(now)

    def _taker(self) -> Slave | None:
        """Return who is to have the next piece: somebody on whom it has not failed."""
        failed = self._failures.get(self.ledger.first_waiting, {})
        if not failed:
            return next(self.crowd.free(), None)
        fresh = [one for one in self.crowd if one.id not in failed]
        if not fresh:
            return next(self.crowd.free(), None)
        return next((one for one in self.crowd.free() if one.id not in failed), None)

    def _grant(self, slave: Slave, lease: LeaseId, now: float) -> None:
        piece = self.ledger[lease.number].piece
        slave.owed[lease] = (piece.kind, piece.count)
        if len(slave.owed) == 1:
            self._begin(slave, now)
        self.crowd.place(slave)
        self._tell(now, "got", slave.id, lease)
        self._actions.append(Grant(slave.client, lease, piece))

    def _give_again(self, now: float) -> None:
        """Let idle slaves take on what is late, then what others hold and have not begun."""
        for slave in list(self.crowd.free(0)):
            number = self._next_late(slave) or self._next_unbegun(slave)
            if number is None:
                return
            self._late.pop(number[0], None)
            self.counters["speculated"] += 1
            lease = self.ledger.lease_again(number[0], slave.id, now)
            self._grant(slave, lease.id, now)

    def _next_late(self, slave: Slave) -> tuple[int] | None:
        for number in self._late:
            if all(one.slave != slave.id for one in self.ledger[number].leases):
                return (number,)
        return None

    def _next_unbegun(self, slave: Slave) -> tuple[int] | None:
        for id_ in self.crowd.stacked:
            for lease in reversed(list(self.crowd.by_id[id_].owed)[1:]):
                if lease.number in self.ledger:
                    holders = self.ledger[lease.number].leases
                    if len(holders) == 1 and holders[0].id == lease and id_ != slave.id:
                        return (lease.number,)
        return None

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

    def _watch_hunger(self) -> None:
        """Say it once when there is work and nobody to do it."""
        if not self.crowd.by_client and len(self.ledger) and not self._stopped:
            if not self._is_starving:
                self._is_starving = True
                self._say("warning", "no slaves left; the run waits until one joins")
        elif self._is_starving and self.crowd.by_client:
            self._is_starving = False
            self._say("info", "there is a slave again; the run goes on")

    def _say(self, level: str, text: str) -> None:
        self._actions.append(Say(level, text))

    def _tell(self, now: float, what: str, slave: str, lease: LeaseId | None = None) -> None:
        self._story.append((now, what, slave, lease))

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the state is broken.
        """
        self.ledger.validate()
        self.crowd.validate()
        due = {(lease, id_) for _, lease, id_ in self._due}
        for slave in self.crowd:
            for lease in self.ledger.leases_of(slave.id):
                assert lease.id in slave.owed, f"{slave.id} does not owe {lease}"
            first = next(iter(slave.owed), None)
            if slave.state is State.WELL and first is not None and first.number in self.ledger:
                entry = self.ledger[first.number]
                is_current = any(one.id == first for one in entry.leases)
                is_watched = (first, slave.id) in due or len(entry.leases) > 1
                assert not is_current or is_watched or first.number in self._late, first
        for number in self._late:
            assert not self.ledger[number].is_waiting, f"piece {number} is late and waits"
        here = {slave.id for slave in self.crowd}
        for entry in self.ledger.open:
            assert all(one.slave in here for one in entry.leases), f"held by nobody: {entry}"
        assert not (self.ledger.waiting and self._could_give()), "work waits, and so does a slave"
        watched = {id_ for _, id_ in self._watch}
        assert here <= watched, f"nobody watches {here - watched}"

    def _could_give(self) -> bool:
        return not self._is_paused and not self._stopped and self._taker() is not None
