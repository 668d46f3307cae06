"""A crew of slaves: the shell around the pure master. It decides nothing itself."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.errors import (
    ClusterError,
    InputError,
    Interrupted,
    NumericsError,
    StorageError,
    UnitError,
    WireError,
)
from veloflow.protocol.codec import decode_from_slave, encode
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
    PutOut,
    Recruit,
    Rejected,
    Say,
    Send,
    StandDown,
    StandIn,
    StopAsked,
    Tick,
    WorkAdded,
)
from veloflow.protocol.faults import FaultPlan
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import (
    PROTOCOL,
    Ask,
    Bye,
    Cancel,
    Failure,
    FrameHeader,
    Hello,
    Job,
    LeaseId,
    Piece,
    Plan,
    Refusal,
    Update,
)
from veloflow.protocol.respawn import Respawn
from veloflow.runtime.crew import Crew, Done
from veloflow.runtime.history import Spoiled
from veloflow.runtime.inspection import Form, are_finite, digest_of
from veloflow.runtime.memory_transport import MemoryListener
from veloflow.runtime.mischief import VARIABLE
from veloflow.runtime.payloads import header_of, pack, unpack, view
from veloflow.runtime.processes import Janitor, SlaveProcess, stop_all
from veloflow.runtime.shared_memory import Board, Outbox, make_folder, remove_folder
from veloflow.runtime.story import StoryFile
from veloflow.runtime.transport import ZmqListener
from veloflow.runtime.unix_transport import UnixListener

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.core import Payload
    from veloflow.runtime.keys import ServerKeys
    from veloflow.runtime.transport import Frame, Listener, Others
    from veloflow.runtime.worker import Jobs

__all__ = ["Cluster", "ClusterSettings"]

_TRAIN = 2
#: the longest that the master looks at nothing but its sockets, in seconds
_GLANCE = 0.25
#: seconds, times patience, in which a local slave has to join
_START = 60.0


@dataclass(frozen=True)
class ClusterSettings:
    """What the user says of slaves.

    Attributes:
        slaves: how many local ones to start.
        listen: addresses for others, such as ``tcp://127.0.0.1:5555``.
        device: of the local slaves, as ``--device`` has it.
        patience: scales every wait.
        keys: for addresses outside this machine.
        audit: the share of the pieces that two slaves compute, to be compared.
        works: the master computes itself while there are no slaves.
        faults: what is to go wrong with local slaves.
        undo: where a slave is found to have spoiled updates, raise Spoiled.
        story: where to write what happens to slaves and pieces.
        exactly: jobs name the version of the parameters; otherwise slaves take the latest.
        environment: more of it for local slaves.
    """

    slaves: int = 0
    listen: tuple[str, ...] = ()
    device: str = "auto"
    patience: float = 1.0
    keys: ServerKeys | None = None
    audit: float = 0.0
    works: bool = False
    faults: FaultPlan = field(default_factory=FaultPlan)
    undo: bool = False
    story: Path | None = None
    exactly: bool = True
    environment: tuple[tuple[str, str], ...] = ()


@dataclass
class _Link:
    """What the shell knows of a client: how its arrays travel.

    A slave that says another hello gets another link; slots go back to the link they are of.
    """

    hello: Hello
    outbox: Outbox | None
    slots: list[int]
    version: int = 0  # of the parameters that were sent to it


@dataclass
class _Work:
    """A piece that is not done, and what its jobs say."""

    piece: Piece
    data: dict[str, Any]
    headers: tuple[FrameHeader, ...]
    arrays: list[NDArray[np.generic]]


class Cluster(Crew):
    """Slaves and what they compute.

    Local slaves are started at once, and load what they need while the master does the same;
    :meth:`open` then lets them in.

    Args:
        settings: what the user says.
        say: takes a line for the user.
        is_stopping: whether the user has asked for the end.

    Raises:
        InputError: an address cannot be bound.
        StorageError: there is no place for shared memory.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        say: Callable[[str], None],
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._say = say
        self._is_stopping = is_stopping
        self._folder = make_folder()
        self._token = secrets.token_hex(16)
        (self._folder / "token").write_text(self._token)
        self._janitor = Janitor(self._folder)
        self._processes: dict[int, SlaveProcess] = {}  # by sentinel
        self._respawns = [Respawn(patience=settings.patience) for _ in range(settings.slaves)]
        self._due: list[tuple[float, int]] = []  # when which local slave is to be started
        self._lives: Counter[int] = Counter()
        self._firsts: dict[bytes, Piece] = {}  # by client: the first piece that it did
        self._known: set[bytes] = set()  # clients that have said hello
        self._exposed: set[bytes] = set()
        self._spares = 0  # slaves started to judge; they take the places of those found wrong
        self._is_closing = False
        self._story: StoryFile | None = None
        try:
            self._story = StoryFile(settings.story, say) if settings.story is not None else None
            self._listener: Listener = UnixListener(self._folder / "socket", _others(settings))
        except BaseException:
            self._janitor.close()
            if self._story is not None:
                self._story.close()
            raise
        self.addresses = self._listener.addresses
        for number in range(settings.slaves):
            self._start_slave(number)
        self._links: dict[bytes, _Link] = {}
        #: number of a piece -> client and lease -> where its arrays will be
        self._granted: dict[int, dict[tuple[bytes, LeaseId], tuple[_Link, int]]] = {}
        self._work: dict[int, _Work] = {}
        self._ready: deque[Done] = deque()
        self._spent: tuple[_Link, int] | None = None  # the slot of the last piece handed out
        self._version = 0
        self._values: NDArray[np.floating] | None = None
        self._board: Board | None = None
        self._stand_in: Crew | None = None
        self._own_jobs: deque[LeaseId] = deque()
        self._devices: dict[str, None] = {}
        self._away_since = time.monotonic()

    def open(
        self,
        *,
        workflow: str,
        options: Mapping[str, object],
        settings: Mapping[str, object],
        checksum: str,
        size: int,
        dtype: DTypeLike,
        templates: Mapping[str, Payload],
        stand_in: Callable[[], Crew],
        source: str = "",
    ) -> None:
        """Let slaves in.

        Args:
            workflow, options, settings, checksum: see :class:`~veloflow.protocol.messages.Plan`.
            size, dtype: of the flat vectors of parameters and of gradients.
            templates: what updates look like, by unit path.
            source: the definition's text, if it is to be sent.
            stand_in: makes the crew that is the master itself, if it is to compute.

        Raises:
            StorageError: the machine has not enough shared memory.
        """
        self._form = Form(templates, size, dtype)
        self._make_stand_in = stand_in
        self._size, self._dtype = size, np.dtype(dtype)
        run = secrets.token_hex(8)
        machine = MasterSettings(
            run,
            checksum,
            self._settings.patience,
            audit=self._settings.audit,
            seed=secrets.randbits(64),
            works=self._settings.works,
        )
        self._machine = Master(machine)
        self._board = Board(self._folder / "board", size, dtype, create=True)
        plain = cast("dict[str, object]", dict(options))
        self._plan = Plan(
            workflow, plain, dict(settings), checksum, str(self._folder), self._token, size, source
        )

    # -- what a farm sees ---------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """How many pieces all slaves can hold."""
        return max(1, self._machine.capacity)

    @property
    def device(self) -> str:
        """The devices of all slaves that have joined."""
        return ", ".join(self._devices) or "none"

    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Show the parameters to local slaves, and keep them for others."""
        assert self._board is not None
        self._board.write(version, values)
        self._version = version
        self._values = None

    def submit(self, piece: Piece, jobs: Jobs) -> None:
        """Put a piece into the ledger."""
        self._work[piece.number] = _Work(piece, *pack(jobs))
        self._handle(WorkAdded((piece,)))

    def next(self) -> Done:
        """Wait for the next piece that is done, and listen to everything meanwhile."""
        if self._spent is not None:
            link, slot = self._spent
            self._spent = None
            link.slots.append(slot)
        if time.monotonic() - self._away_since > self._machine.settings.beat_every:
            self._handle(Away())
        while not self._ready:
            self._pump()
            if not self._machine.crowd.by_client and self._is_stopping():
                raise Interrupted("interrupted while waiting for slaves; go on with --resume")
        self._away_since = time.monotonic()
        return self._ready.popleft()

    def results(self) -> dict[str, Any]:
        """Return what the slaves did, and what happened to them."""
        ledger, counters = self._machine.ledger, self._machine.counters
        return {
            "slaves": [
                {
                    "slave": one.id,
                    "name": one.hello.name,
                    "host": one.hello.host,
                    "device": one.hello.device,
                    "jobs": one.jobs,
                    "seconds": round(one.seconds, 6),
                    "state": one.state.value,
                }
                for one in self._machine.crowd.by_id.values()
            ],
            "jobs": {
                "accepted": ledger.accepted,
                "late": ledger.late,
                "returned": ledger.returned,
                **counters,
            },
        }

    def close(self) -> None:
        """Tell all slaves that it is over; leave no process, socket or file behind."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            if self._board is not None:
                self._perform(self._machine.handle(StopAsked("the run is over"), time.monotonic()))
            self._listener.close()
            has_begun = self._board is not None
            stop_all(list(self._processes.values()), grace=2.0 if has_begun else 0.0)
        finally:
            for link in self._links.values():
                if link.outbox is not None:
                    link.outbox = None
            remove_folder(self._folder)
            self._janitor.close()
            if self._story is not None:
                self._story.close()

    # -- listening ----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle one message; or wait for one, and see whose time has come."""
        message = self._listener.receive()
        if message is not None:
            self._hear(*message)
            return
        if self._own_jobs:
            self._compute(self._own_jobs.popleft())
            if self._ready:
                return
        now = time.monotonic()
        times = [now + _GLANCE, *(when for when, _ in self._due)]
        if self._machine.deadline is not None:
            times.append(self._machine.deadline)
        patience = max(0.0, min(times) - now)
        ended = self._listener.wait(patience)
        was_stopped = time.monotonic() - now > patience + self._machine.settings.beat_every
        now = time.monotonic()
        if was_stopped:  # by Ctrl-Z, or with its whole machine
            self._handle(Away())
        for sentinel in ended:
            self._bury(sentinel)
        for entry in [one for one in self._due if now >= one[0]]:
            self._due.remove(entry)
            self._start_slave(entry[1])
        self._end_sleepers(now)
        if self._machine.deadline is not None and now >= self._machine.deadline:
            waiting = self._listener.receive()
            while waiting is not None and not self._ready:
                self._hear(*waiting)
                waiting = self._listener.receive() if not self._ready else None
            if not self._ready:
                self._handle(Tick())

    def _hear(self, client: bytes, frames: list[Frame]) -> None:
        try:
            message, arrays = decode_from_slave(frames)
        except WireError as error:
            self._handle(Garbage(client, str(error)))
            return
        if isinstance(message, Ask):
            self._answer(client, message)
            return
        if isinstance(message, Hello):
            reason = self._connect(client, message)
            if reason:
                self._send(client, Refusal(reason))
                return
        done: Done | None = None
        digest = b""
        if isinstance(message, Update):
            found = self._look_into(client, message, arrays)
            if isinstance(found, Rejected):
                self._handle(found)
                return
            done = found
            if done is not None and self._machine.is_audited(message.lease.number):
                digest = digest_of(done.updates, done.gradients)
        is_local = isinstance(message, Hello) and any(
            one.identity == client for one in self._processes.values()
        )
        event = Heard(client, message, is_local, digest)
        actions = self._machine.handle(event, time.monotonic())
        self._perform(actions, done)

    def _answer(self, client: bytes, ask: Ask) -> None:
        if ask.protocol != PROTOCOL:
            self._send(client, Refusal(f"it speaks protocol {ask.protocol}, not {PROTOCOL}"))
        else:
            self._listener.send(client, [encode(self._plan)])

    def _connect(self, client: bytes, hello: Hello) -> str:
        """Open the slave's outbox; return why it cannot be taken in, if so."""
        former = self._links.get(client)
        if former is not None and former.hello == hello:
            return ""  # it only asked again
        outbox = None
        slots = min(hello.capacity, self._machine.settings.prefetch) + 2
        if hello.memory:
            if Path(hello.memory).name != hello.memory:
                return "its outbox is not in the run's folder"
            try:
                outbox = Outbox(self._folder / hello.memory, self._size, self._dtype, slots)
            except (StorageError, OSError, ValueError) as error:
                return f"its outbox cannot be read: {error}"
        self._known.add(client)
        self._links[client] = _Link(hello, outbox, list(range(slots)))
        self._devices[hello.device] = None
        return ""

    # -- the master as its own slave ----------------------------------------------------------

    def _stand(self) -> None:
        if self._stand_in is None:
            self._stand_in = self._make_stand_in()
        checksum, device = self._plan.checksum, self._stand_in.device
        hello = Hello(
            protocol=PROTOCOL,
            checksum=checksum,
            name="master",
            device=device,
            hardware=platform.machine(),
            host=platform.node(),
            pid=os.getpid(),
            capacity=1,
        )
        self._devices[device] = None
        self._handle(Heard(STAND_IN, hello))

    def _compute(self, lease: LeaseId) -> None:
        """Do a job in this process."""
        crew, work = self._stand_in, self._work[lease.number]
        assert crew is not None
        began = time.monotonic()
        if self._version:
            crew.publish(self._board_values(), self._version)
        crew.submit(work.piece, unpack(work.data, work.headers, [one.data for one in work.arrays]))
        try:
            done = crew.next()
        except UnitError as error:
            self._handle(Away())
            self._handle(Heard(STAND_IN, Failure(lease, error.unit[:200], str(error)[:4000])))
            return
        seconds = time.monotonic() - began
        if seconds > self._machine.settings.beat_every:
            self._handle(Away())
        if not self._is_sound(STAND_IN, lease, done.updates, done.gradients):
            self._handle(_not_finite(STAND_IN, lease))
            return
        is_audited = self._machine.is_audited(lease.number)
        digest = digest_of(done.updates, done.gradients) if is_audited else b""
        event = Heard(STAND_IN, Update(lease, {}, (), seconds, done.version), digest=digest)
        self._perform(self._machine.handle(event, time.monotonic()), done)

    # -- updates ------------------------------------------------------------------------------

    def _look_into(
        self, client: bytes, update: Update, frames: Sequence[Frame]
    ) -> Done | Rejected | None:
        """Look whether an update has the form that it must have, and finite numbers."""
        place = self._granted.get(update.lease.number, {}).get((client, update.lease))
        work = self._work.get(update.lease.number)
        if place is None or work is None:
            return None  # late, or a lie: the machine knows
        link, slot = place
        payloads = unpack(update.data, update.frames, frames)
        gradients: NDArray[Any] | None = None
        if work.piece.kind == _TRAIN:
            if link.outbox is not None:
                gradients = link.outbox[slot]
            else:
                gradients = next(
                    (
                        view(header, frame)
                        for header, frame in zip(update.frames, frames, strict=True)
                        if header.name == "gradients"
                    ),
                    None,
                )
            fault = self._form.fault_of_gradients(gradients)
            if fault:
                return Rejected(client, update.lease, fault, True)
        if work.piece.kind >= 0:
            fault = self._form.fault_of_payloads(payloads)
            if fault:
                return Rejected(client, update.lease, fault, True)
        updates = cast("dict[str, Payload]", payloads)
        if not self._is_sound(client, update.lease, updates, gradients):
            return _not_finite(client, update.lease)
        return Done(work.piece, updates, gradients, update.parameters)

    def _is_sound(
        self,
        client: bytes,
        lease: LeaseId,
        updates: Mapping[str, Payload],
        gradients: NDArray[Any] | None,
    ) -> bool:
        """Whether an update is finite, or nobody else can be asked."""
        return are_finite(updates, gradients) or self._machine.is_last_word(client, lease)

    # -- doing what the machine says ----------------------------------------------------------

    def _handle(self, event: Event) -> None:
        self._perform(self._machine.handle(event, time.monotonic()))

    def _perform(self, actions: list[Action], done: Done | None = None) -> None:
        if self._story is not None:
            self._story.write(self._machine.news())
        gone: list[bytes] = []
        for action in actions:
            if isinstance(action, Grant):
                if action.client == STAND_IN:
                    self._own_jobs.append(action.lease)
                elif not self._grant(action):
                    gone.append(action.client)
            elif isinstance(action, Apply):
                assert done is not None
                self._accept(action, done)
            elif isinstance(action, Send):
                self._send(action.client, action.message)
            elif isinstance(action, Say):
                self._say(action.text)
            elif isinstance(action, PutOut):
                self._put_out(action)
            elif isinstance(action, Exposed):
                self._expose(action)
            elif isinstance(action, StandIn):
                self._stand()
            elif isinstance(action, StandDown):
                self._own_jobs.clear()
                self._handle(Heard(STAND_IN, Bye("there are slaves")))
            elif isinstance(action, Recruit):
                self._recruit()
            else:
                self._give_up(action)
        for client in dict.fromkeys(gone):
            self._handle(Lost(client, "its connection is closed"))

    def _send(self, client: bytes, message: Any) -> None:
        if client != STAND_IN:
            self._listener.send(client, [encode(message)])
        elif isinstance(message, Cancel | Refusal):
            self._own_jobs.clear()

    def _grant(self, grant: Grant) -> bool:
        work, link = self._work[grant.lease.number], self._links[grant.client]
        slot = link.slots.pop(0) if link.outbox is not None else 0
        place = link, slot
        self._granted.setdefault(grant.lease.number, {})[grant.client, grant.lease] = place
        version = self._version if self._settings.exactly or link.outbox is None else 0
        headers, arrays = work.headers, list(work.arrays)
        if link.outbox is None and link.version != self._version and self._version:
            values = self._board_values()
            headers = (*headers, header_of("parameters", values))
            arrays.append(values)
            link.version = self._version
        job = Job(grant.lease, grant.piece, work.data, headers, version, slot)
        return self._listener.send(grant.client, [encode(job), *(one.data for one in arrays)])

    def _board_values(self) -> NDArray[Any]:
        """Return a copy of the parameters: ZeroMQ reads it when it likes."""
        if self._values is None:
            assert self._board is not None
            values = self._board.look(self._version)
            assert values is not None
            self._values = values.copy()
        return self._values

    def _accept(self, apply: Apply, done: Done) -> None:
        del self._work[apply.piece.number]
        self._firsts.setdefault(apply.client, apply.piece)
        for key, (link, slot) in self._granted.pop(apply.piece.number, {}).items():
            if link.outbox is None:
                continue
            if key == (apply.client, apply.update.lease):
                self._spent = (link, slot)  # it is read until the next piece is asked for
            else:
                link.slots.append(slot)
        self._ready.append(done)

    def _put_out(self, action: PutOut) -> None:
        self._links.pop(action.client, None)
        if action.kill:
            for process in self._processes.values():
                if process.identity == action.client:
                    process.kill()

    def _give_up(self, action: GiveUp) -> None:
        failure = action.failure
        if action.is_deadly:
            raise ClusterError(failure.reason)
        if not failure.unit:
            raise NumericsError(failure.reason)
        raise UnitError(failure.unit, failure.reason)

    # -- local slaves -------------------------------------------------------------------------

    def _start_slave(self, number: int) -> None:
        settings = self._settings
        cores = max(1, (os.cpu_count() or 1) // max(1, settings.slaves))
        arguments = [
            self.addresses[0],
            *("--device", settings.device),
            *("--name", f"slave{number + 1}"),
            *("--patience", str(settings.patience)),
        ]
        environment = {**dict(settings.environment), **self._faults_of(number)}
        process = SlaveProcess.start(
            number,
            arguments,
            group=self._janitor.group,
            cores=1 if settings.exactly else cores,
            environment=environment,
        )
        self._processes[process.sentinel] = process
        self._listener.watch(process.sentinel)

    def _faults_of(self, number: int) -> dict[str, str]:
        """Return what tells a local slave its faults; appointments are for its first life."""
        life = self._lives[number]
        self._lives[number] += 1
        plan = self._settings.faults
        text = str(replace(plan, appointments=()) if life else plan)
        return {VARIABLE: f"{life} {text}"} if text else {}

    def _expose(self, action: Exposed) -> None:
        slave = self._machine.crowd.by_id[action.slave]
        self._exposed.add(slave.client)
        first = self._firsts.get(slave.client)
        if first is None:
            return
        what = f"slave {slave.id} ({slave.hello.name}) spoils updates"
        if self._settings.undo:
            raise Spoiled(what, first.number)
        self._say(
            f"{what}; it did {slave.jobs} jobs since epoch {first.epoch}, and those that were not "
            "audited are in the parameters: --undo-spoiled would go back to before them"
        )

    def _recruit(self) -> None:
        """Start one local slave more, if there are local ones."""
        if self._settings.slaves:
            self._spares += 1
            self._respawns.append(Respawn(patience=self._settings.patience))
            self._start_slave(len(self._respawns) - 1)

    def _end_sleepers(self, now: float) -> None:
        """Kill local slaves that do not come; they are then started again."""
        limit = _START * self._settings.patience
        for process in self._processes.values():
            if now - process.started > limit and process.identity not in self._links:
                process.kill()

    def _bury(self, sentinel: int) -> None:
        process = self._processes.pop(sentinel, None)
        if process is None:
            return
        self._listener.unwatch(sentinel)
        fate = process.fate()
        process.close()
        was_in = process.identity in self._known
        self._links.pop(process.identity, None)
        self._handle(Lost(process.identity, fate))
        if not was_in:
            self._say(f"slave{process.number + 1} ended before it joined: {fate}")
        if process.identity in self._exposed and self._spares:
            self._spares -= 1  # another has its place already
            return
        when = self._respawns[process.number].died(time.monotonic())
        if when is not None:
            self._due.append((when, process.number))
            return
        self._say(f"slave{process.number + 1} died too often and is not started again: {fate}")
        if not (self._processes or self._due or self._settings.listen or self._settings.works):
            raise ClusterError(f"all local slaves died, the last one so: {fate}")


def _not_finite(client: bytes, lease: LeaseId) -> Rejected:
    return Rejected(client, lease, "NaN or infinity in its update", is_lie=False)


def _others(settings: ClusterSettings) -> Others | None:
    """Return the listener for slaves that this master does not start."""
    if not settings.listen:
        return None
    if settings.listen[0].startswith("memory://"):
        if len(settings.listen) > 1:
            raise InputError(f"{settings.listen[0]} cannot be one of several --listen addresses")
        return MemoryListener(settings.listen[0])
    return ZmqListener(settings.listen, settings.keys)
