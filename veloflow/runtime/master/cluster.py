"""A crew of slaves: the shell around the pure master. It decides nothing itself."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from msgspec.structs import replace

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
    PutOut,
    Recruit,
    Rejected,
    Say,
    Send,
    StandDown,
    StandIn,
    StopAsked,
    Tick,
    Want,
    Withdrawn,
    WorkAdded,
)
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import (
    PROTOCOL,
    Ask,
    Bye,
    Cancel,
    Collect,
    Failure,
    FrameHeader,
    GiveBack,
    Hello,
    Job,
    LeaseId,
    Part,
    Piece,
    Plan,
    Refusal,
    Residual,
    Update,
)
from veloflow.protocol.slaves import State
from veloflow.runtime.jobs.inspection import TRAIN, Form, are_finite, digest_of
from veloflow.runtime.jobs.round_order import ORDER
from veloflow.runtime.master.crew import Crew, Done
from veloflow.runtime.master.links import Links
from veloflow.runtime.master.local_slaves import LocalSlaves
from veloflow.runtime.master.processes import Janitor
from veloflow.runtime.master.stand_in import StandInCrew
from veloflow.runtime.master.team import TeamCrew
from veloflow.runtime.slaves.early import Arriving
from veloflow.runtime.slaves.job_form import FORM, JobForm
from veloflow.runtime.storage.history import Spoiled
from veloflow.runtime.transport.connections import ZmqListener
from veloflow.runtime.transport.found_vector import FoundVector
from veloflow.runtime.transport.left_out import LeftOut, name_of
from veloflow.runtime.transport.memory import MemoryListener
from veloflow.runtime.transport.payloads import header_of, pack, unpack
from veloflow.runtime.transport.published import Published
from veloflow.runtime.transport.shared_memory import make_folder, remove_folder
from veloflow.runtime.transport.unix import UnixListener
from veloflow.sharing.codecs import parse_codec

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.core import Payload
    from veloflow.runtime.jobs.peer_order import PeerOrder
    from veloflow.runtime.jobs.round_order import Order
    from veloflow.runtime.master.settings import ClusterSettings
    from veloflow.runtime.slaves.worker import Jobs
    from veloflow.runtime.transport.connections import Frame, Listener, Others
    from veloflow.sharing.policies import Policy

__all__ = ["Cluster", "Work"]

#: the longest that the master looks at nothing but its sockets, in seconds
_GLANCE = 0.25
#: seconds, times patience, that a checkpoint waits for slaves to say what their codecs leave out
_TELLING = 5.0


@dataclass
class Work:
    """A piece that is not done, and what its jobs say."""

    piece: Piece
    data: dict[str, Any]
    headers: tuple[FrameHeader, ...]
    arrays: list[NDArray[np.generic]]
    start: NDArray[np.floating] | None = None
    order: Order | PeerOrder | None = None  # where it is part of a block of rounds

    @property
    def steps(self) -> int:
        """How many minibatches it has, if it is a stretch."""
        return len({path.partition("|")[0] for path in self.data if path != FORM})


class Cluster(TeamCrew):
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
        self._firsts: dict[bytes, Piece] = {}  # by client: the first piece that it did
        self._known: set[bytes] = set()  # clients that have said hello
        self._exposed: set[bytes] = set()
        self._is_open = self._is_closing = False
        self._story = settings.story
        try:
            if self._story is not None:
                self._story.open(say)
            self._listener: Listener = UnixListener(self._folder / "socket", _others(settings))
        except BaseException:
            self._janitor.close()
            if self._story is not None:
                self._story.close()
            raise
        self.addresses = self._listener.addresses
        self._locals = LocalSlaves(settings, self.addresses[0], self._janitor.group, self._listener)
        self._work: dict[int, Work] = {}
        self._ready: deque[Done] = deque()
        self._handed = -1  # the number of the last piece that was handed out
        self._gone: dict[bytes, None] = {}  # clients to whom nothing could be sent
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
        data: Mapping[str, object] | None = None,
        found: FoundVector | None = None,
        found_of: Callable[[JobForm], FoundVector] | None = None,
    ) -> None:
        """Let slaves in.

        Args:
            workflow, options, settings, checksum: see :class:`~veloflow.protocol.messages.Plan`.
            size, dtype: of the flat vectors of parameters and of gradients.
            templates: what updates look like, by unit path.
            source: the definition's text, if it is to be sent.
            data: what slaves must know of data that they are given.
            found: what slaves send of what they find; by default the gradient as it is.
            found_of: the same for another form of jobs, where the mode may change.
            stand_in: makes the crew that is the master itself, if it is to compute.

        Raises:
            StorageError: the machine has not enough shared memory.
        """
        self._found = FoundVector(size, dtype) if found is None else found
        self._found_of = found_of or (lambda form: self._found)
        self._templates = templates
        self._form = Form(templates, self._found)
        self._exactly, self._bound = self._settings.exactly, self._settings.bound
        self._job_form: dict[str, Payload] = {}  # what each job says of its form
        self._sent: dict[LeaseId, tuple[float, int]] = {}  # when to an idle slave; and the bytes
        self._traffic: Counter[str] = Counter()
        machine = MasterSettings(
            secrets.token_hex(8),
            checksum,
            self._settings.patience,
            audit=self._settings.audit,
            seed=secrets.randbits(64),
            works=self._settings.works,
            bound=self._settings.bound,
            inherits=self._found.has_feedback or found_of is not None,
            bounds=self._settings.bounds,
        )
        self._machine = Master(machine)
        self._parameters = Published(self._folder, size, dtype)
        self._links = Links(self._folder, size, np.dtype(dtype), machine.prefetch)
        self._left_out = LeftOut(self._folder, self._found)
        self._arriving = Arriving(size, dtype)
        self._stand_in = StandInCrew(stand_in, checksum)
        self._is_open = True
        plain = cast("dict[str, object]", dict(options))
        self._plan = Plan(
            workflow, plain, dict(settings), checksum, str(self._folder), self._token, size, source,
            data=dict(data or {}),
        )  # fmt: skip

    # -- what a farm sees ---------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """How many pieces all slaves can hold."""
        return max(1, self._machine.capacity)

    @property
    def slaves(self) -> int:
        """How many slaves are well; before the first has come, how many there will be."""
        return self._machine.crowd.well or max(1, self._settings.slaves)

    @property
    def device(self) -> str:
        """The devices of all slaves that have joined."""
        return ", ".join(self._devices) or "none"

    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Show the parameters to local slaves, and keep them for others."""
        self._parameters.show(values, version)

    def adopt(self, policy: Policy, codec: str) -> None:
        """Have slaves do jobs of that form; each says it."""
        form = JobForm.of_policy(policy, codec)
        self._found = self._found_of(form)
        self._form = Form(self._templates, self._found)
        self._left_out.adopt(self._found)
        self._job_form = form.payload()
        self._exactly = policy.is_exact and not parse_codec(codec).has_feedback
        self._bound = policy.bound
        self._handle(BoundChanged(policy.bound))

    @property
    def names(self) -> list[str]:
        """The ids of the slaves that are well."""
        return [one.id for one in self._machine.crowd if one.state is State.WELL]

    def submit(
        self,
        piece: Piece,
        jobs: Jobs,
        start: NDArray[np.floating] | None = None,
        wish: str = "",
    ) -> None:
        """Put a piece into the ledger."""
        self._work[piece.number] = Work(piece, *pack({**jobs, **self._job_form}), start)
        self._handle(WorkAdded((piece,), wishes=(wish,) if wish else ()))

    def applied(self, number: int) -> None:
        """Let those go on who were held back by this piece."""
        if self._bound is not None:
            self._handle(Applied(number))

    # -- what codecs leave out ----------------------------------------------------------------

    def left_out(self) -> list[NDArray[np.floating]]:
        """Return what all slaves have left out; those that share no memory are asked."""
        if not self._found.has_feedback:
            return []
        crowd, left_out = self._machine.crowd, self._left_out
        well = [one.client for one in crowd if one.state is State.WELL and one.client != STAND_IN]
        asked = [client for client in well if left_out.must_tell(client)]
        left_out.forget_told()
        for client in asked:
            self._send(client, Collect())
        until = time.monotonic() + _TELLING * self.patience
        while missing := [
            one for one in asked if one in crowd.by_client and not left_out.has_told(one)
        ]:
            if time.monotonic() > until:
                self._say(
                    f"{len(missing)} slaves compute and do not say what their codec has left out: "
                    "the checkpoint is without it"
                )
                break
            self._pump()
        return [*left_out.all(one for one in well if one in crowd.by_client),
                *self._stand_in.left_out()]  # fmt: skip

    def inherit(self, residuals: Sequence[NDArray[np.floating]]) -> None:
        """Have slaves that join send this as well."""
        self._left_out.orphans.add(residuals)

    def _inherit(self, client: bytes) -> None:
        if client == STAND_IN:
            self._left_out.orphans.add(self._stand_in.hand_over())
        self._left_out.inherit(client)

    def _hand_out(self, client: bytes, lease: LeaseId) -> None:
        """Have a slave send what another has left out, along with what it finds itself."""
        if not self._left_out.orphans:
            return
        expected = max(self._settings.slaves, self._machine.crowd.well)
        residual = self._left_out.take(client, lease, expected)
        if residual is None:
            return
        if client == STAND_IN:
            self._stand_in.inherit(residual)
            return
        message = Residual((header_of(name_of(self._found), residual),))
        self._listener.send(client, [encode(message), residual.data])

    # -- rounds ahead of the master -----------------------------------------------------------

    @property
    def patience(self) -> float:
        """What scales all waiting."""
        return self._settings.patience

    @property
    def room(self) -> int:
        """How many bytes of shared memory a slave may have: all together half of what is free."""
        free = os.statvfs(self._folder)
        slaves = max(self._settings.most, len(self._machine.crowd)) + 1
        return free.f_bavail * free.f_frsize // (2 * slaves)

    def team(self) -> list[str]:
        """Return the names of the memory of those who can compute rounds ahead.

        It is empty where one of the slaves could not: it might be given a piece that others left.
        With audits and codecs each piece is looked at by itself, and the master computes no blocks.
        """
        settings = self._settings
        is_plain = self._found.is_shared and self._exactly
        if settings.audit or settings.works or not is_plain:
            return []
        well = [one for one in self._machine.crowd if one.state is State.WELL]
        if not all(one.hello.moves for one in well):
            return []
        return [one.hello.memory for one in well if one.load < one.capacity]

    def show_state(
        self, state: NDArray[np.floating], steps: Mapping[str, Payload], version: int
    ) -> None:
        """Show all that the next step depends on to slaves that compute ahead."""
        self._parameters.show_state(state, steps, version)

    def submit_block(self, orders: Sequence[tuple[Piece, Order]], jobs: Jobs) -> None:
        """Put the pieces of a block into the ledger."""
        data, headers, arrays = pack({**jobs, **self._job_form})
        for piece, order in orders:
            said = pack({ORDER: order.payload()})[0]
            self._work[piece.number] = Work(piece, {**data, **said}, headers, arrays, order=order)
        self._handle(WorkAdded(tuple(piece for piece, _ in orders), is_shared=True))

    def withdraw(self, numbers: Sequence[int]) -> None:
        """Have these pieces computed no more."""
        self._ready = deque(one for one in self._ready if one.piece.number not in numbers)
        for number in numbers:
            self._work.pop(number, None)
            self._links.withdraw(number)
        self._handle(Withdrawn(tuple(numbers)))

    def next(self) -> Done:
        """Wait for the next piece that is done, and listen to everything meanwhile."""
        self._links.release(self._handed)
        self._arriving.release(self._handed)
        if time.monotonic() - self._away_since > self._machine.settings.beat_every:
            self._handle(Away())
        while not self._ready:
            self._pump()
            if not self._machine.crowd.by_client and self._is_stopping():
                raise Interrupted("interrupted while waiting for slaves; go on with --resume")
        self._away_since = time.monotonic()
        done = self._ready.popleft()
        self._handed = done.piece.number
        return done

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
            "bytes": dict(self._traffic),
            "waiting": self._waiting(),
            "jobs": {
                "accepted": ledger.accepted,
                "late": ledger.late,
                "returned": ledger.returned,
                **counters,
            },
        }

    def _waiting(self) -> dict[str, float]:
        """Return the seconds in which slaves were here, and those in which they did not compute."""
        now = time.monotonic()
        here = computing = 0.0
        for one in self._machine.crowd.by_id.values():
            here += (one.heard if one.is_gone else now) - one.joined
            computing += one.seconds
        idle = max(0.0, here - computing)
        return {"seconds": round(idle, 6), "share": round(idle / here, 6) if here else 0.0}

    def close(self) -> None:
        """Tell all slaves that it is over; leave no process, socket or file behind."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            if self._is_open:
                self._perform(self._machine.handle(StopAsked("the run is over"), time.monotonic()))
            self._listener.close()
            self._locals.stop(grace=self._settings.grace if self._is_open else 0.0)
        finally:
            if self._is_open:
                self._links.close()
                self._left_out.close()
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
        while self._gone:  # and all that they had said was heard
            self._lose(next(iter(self._gone)))
        own = self._stand_in.begin()
        if own is not None:
            self._compute(own)
            if self._ready:
                return
        now = time.monotonic()
        times = [
            now + _GLANCE,
            *(one for one in (self._locals.next_start, self._machine.deadline) if one is not None),
        ]
        patience = max(0.0, min(times) - now)
        ended = self._listener.wait(patience)
        was_stopped = time.monotonic() - now > patience + self._machine.settings.beat_every
        now = time.monotonic()
        if was_stopped:  # by Ctrl-Z, or with its whole machine
            self._handle(Away())
        if ended:
            waiting = self._listener.receive()
            if waiting is not None:  # the last words of who has ended come first
                self._hear(*waiting)
                return
            for sentinel in ended:
                self._bury(sentinel)
        self._locals.start_due(now)
        self._locals.end_sleepers(now, self._links)
        due = self._machine.deadline
        if due is not None and now >= due:
            waiting = self._listener.receive()
            while waiting is not None and not self._ready:
                self._hear(*waiting)
                waiting = self._listener.receive() if not self._ready else None
            if not self._ready:
                self._handle(Tick())

    def _lose(self, client: bytes) -> None:
        """Take note that nothing can be sent to a client."""
        del self._gone[client]
        self._arriving.drop(client)
        self._handle(Lost(client, "its connection is closed"))

    def _hear(self, client: bytes, frames: list[Frame]) -> None:
        try:
            message, arrays = decode_from_slave(frames)
        except WireError as error:
            self._handle(Garbage(client, str(error)))
            return
        self._traffic["control"] += len(frames[0])
        if isinstance(message, Ask):
            self._answer(client, message)
            return
        if isinstance(message, Hello):
            if client in self._gone:  # it has come again
                self._lose(client)
            reason = self._links.connect(client, message)
            if reason:
                self._send(client, Refusal(reason))
                return
            self._known.add(client)
            self._devices[message.device] = None
        if isinstance(message, Residual | Part):
            try:
                self._keep(client, message, arrays)
            except WireError as error:
                self._handle(Garbage(client, str(error)))
                return
        done: Done | None = None
        if isinstance(message, Update):
            found = self._look_into(client, message, arrays)
            if isinstance(found, Rejected):
                self._handle(found)
                self._answered(client, message)
                return
            done = found
        is_local = isinstance(message, Hello) and self._locals.owns(client)
        event = Heard(client, message, is_local, self._digest(done))
        actions = self._machine.handle(event, time.monotonic())
        self._perform(actions, done)
        if isinstance(message, Update | GiveBack | Failure):
            self._answered(client, message)
        if isinstance(message, Hello) and client in self._machine.crowd.by_client:
            self._left_out.connect(
                client, message.memory if self._machine.settings.inherits else ""
            )

    def _keep(self, client: bytes, message: Residual | Part, arrays: Sequence[Frame]) -> None:
        """Keep arrays that are no update, if their sender is known and was asked for them.

        Raises:
            WireError: they are wrong.
        """
        if isinstance(message, Part):
            if self._links.has_granted(client, message.lease) and self._found.is_shared:
                self._arriving.hear(client, message.lease, message.frames, arrays)
        elif client in self._machine.crowd.by_client and self._machine.settings.inherits:
            self._left_out.hear(client, message.frames, arrays)

    def _answered(self, client: bytes, message: Update | GiveBack | Failure) -> None:
        lease = message.lease
        self._arriving.drop(client, lease)
        self._links.answered(client, lease)
        self._left_out.answered(client, lease, is_update=isinstance(message, Update))

    def _answer(self, client: bytes, ask: Ask) -> None:
        if ask.protocol != PROTOCOL:
            self._send(client, Refusal(f"it speaks protocol {ask.protocol}, not {PROTOCOL}"))
        else:
            self._listener.send(client, [encode(self._plan)])

    # -- the master as its own slave ----------------------------------------------------------

    def _compute(self, lease: LeaseId) -> None:
        """Do a job in this process."""
        work = self._work[lease.number]
        jobs = unpack(work.data, work.headers, [one.data for one in work.arrays])
        own = self._stand_in.compute(lease, work.piece, jobs, self._parameters, work.start)
        if own.seconds > self._machine.settings.beat_every:
            self._handle(Away())
        done = own.found
        if isinstance(done, Failure):
            self._handle(Heard(STAND_IN, done))
            return
        if not self._is_sound(STAND_IN, lease, done.updates, done.gradients):
            self._handle(_not_finite(STAND_IN, lease))
            return
        update = Update(lease, {}, (), own.seconds, done.version)
        event = Heard(STAND_IN, update, digest=self._digest(done))
        self._perform(self._machine.handle(event, time.monotonic()), done)

    # -- updates ------------------------------------------------------------------------------

    def _look_into(
        self, client: bytes, update: Update, frames: Sequence[Frame]
    ) -> Done | Rejected | None:
        """Look whether an update has the form that it must have, and finite numbers."""
        work = self._work.get(update.lease.number)
        if work is None or not self._links.has_granted(client, update.lease):
            return None  # late, or a lie: the machine knows
        piece = work.piece
        updates = cast("dict[str, Payload]", unpack(update.data, update.frames, frames))
        if work.order is not None:
            return self._look_into_block(client, update, updates, work.order)
        gradients: NDArray[Any] | None = None
        if piece.kind == TRAIN:
            try:
                gradients = self._arriving.whole(client, update.lease, update.frames, frames)
                if gradients is None:
                    slot = self._links.slot(client, update.lease)
                    gradients = self._found.read(slot, update.frames, frames)
            except WireError as error:
                return Rejected(client, update.lease, str(error), True)
        steps = work.steps if self._found.is_local else 1
        fault = self._form.fault_of(piece.kind, updates, gradients, steps)
        if fault:
            return Rejected(client, update.lease, fault, True)
        if not self._is_sound(client, update.lease, updates, gradients):
            return _not_finite(client, update.lease)
        if gradients is not None:
            self._traffic["updates"] += self._found.nbytes(update.frames, gradients)
            self._traffic["uncoded"] += gradients.nbytes
        return Done(piece, updates, gradients, update.parameters, update.seconds)

    def _look_into_block(
        self, client: bytes, update: Update, updates: dict[str, Payload], order: Any
    ) -> Done | Rejected:
        """Look at a part of a block; whether its numbers are finite shows in the whole of it."""
        fault = self._form.fault_of_block(updates, order)
        if fault:
            return Rejected(client, update.lease, fault, True)
        state: NDArray[Any] | None = None
        if order.member == 0:
            try:
                state = self._links.state_after(client, update.lease, order)
            except (StorageError, OSError) as error:
                return Rejected(client, update.lease, f"a block without its state: {error}", True)
        return Done(self._work[update.lease.number].piece, updates, state, update.parameters)

    def _digest(self, done: Done | None) -> bytes:
        """Return what is compared of an answer, if its piece is audited."""
        if done is None or not self._machine.is_audited(done.piece.number):
            return b""
        return digest_of(done.updates, done.gradients)

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
        for action in actions:
            if isinstance(action, Grant):
                self._hand_out(action.client, action.lease)
                if action.client == STAND_IN:
                    self._stand_in.grant(action.lease)
                elif not self._grant(action):
                    self._gone[action.client] = None
            elif isinstance(action, Apply):
                assert done is not None
                self._accept(action, done)
            elif isinstance(action, Send):
                self._send(action.client, action.message)
            elif isinstance(action, Say):
                self._say(action.text)
            elif isinstance(action, PutOut):
                self._put_out(action)
            elif isinstance(action, Inherit):
                self._inherit(action.client)
            elif isinstance(action, Exposed):
                self._expose(action)
            elif isinstance(action, StandIn):
                self._stand()
            elif isinstance(action, StandDown):
                self._stand_in.drop()
                self._handle(Heard(STAND_IN, Bye("there are slaves")))
            elif isinstance(action, Recruit):
                self._locals.recruit()
            elif isinstance(action, Want):
                (self._settings.scale or self._locals.scale)(action.count)
            else:
                self._give_up(action)

    def _send(self, client: bytes, message: Any) -> None:
        if client != STAND_IN:
            text = encode(message)
            self._traffic["control"] += len(text)
            self._listener.send(client, [text])
        elif isinstance(message, Cancel | Refusal):
            self._stand_in.drop()

    def _stand(self) -> None:
        hello = self._stand_in.hello()
        self._devices[hello.device] = None
        self._handle(Heard(STAND_IN, hello))

    def _grant(self, grant: Grant) -> bool:
        work, link = self._work[grant.lease.number], self._links[grant.client]
        slot = self._links.grant(grant.client, grant.lease)
        present = self._parameters.version
        version = present if self._exactly or link.outbox is None else 0
        headers, arrays = work.headers, list(work.arrays)
        moved = 0
        if work.start is not None:
            headers = (*headers, header_of("start", work.start))
            arrays.append(work.start)
            moved = work.start.nbytes
            link.version = 0  # what the slave has afterwards is its own
        elif link.outbox is None and link.version != present and present:
            values = self._parameters.values
            headers = (*headers, header_of("parameters", values))
            arrays.append(values)
            link.version = present
            moved = values.nbytes
        self._traffic["parameters"] += moved
        slave = self._machine.crowd.by_client.get(grant.client)
        if slave is not None and slave.load == 1:  # it begins at once
            self._sent[grant.lease] = time.monotonic(), moved
        job = encode(Job(grant.lease, grant.piece, work.data, headers, version, slot))
        self._traffic["control"] += len(job) + sum(one.nbytes for one in work.arrays)
        return self._listener.send(grant.client, [job, *(one.data for one in arrays)])

    def _accept(self, apply: Apply, done: Done) -> None:
        del self._work[apply.piece.number]
        done = self._timed(done, apply)
        self._firsts.setdefault(apply.client, apply.piece)
        self._links.accept(apply.client, apply.update.lease)
        self._arriving.accept(apply.client, apply.update.lease)
        self._ready.append(done)

    def _timed(self, done: Done, apply: Apply) -> Done:
        """Say who has computed a piece, and what it cost on the wire if that is known."""
        sent, moved = self._sent.pop(apply.update.lease, (None, 0))
        if self._sent:
            self._sent = {one: at for one, at in self._sent.items() if one.number in self._work}
        if done.gradients is not None and apply.client != STAND_IN:
            moved += self._found.nbytes(apply.update.frames, done.gradients)
        wire = None if sent is None else max(0.0, time.monotonic() - sent - done.seconds)
        return replace(done, slave=apply.slave, wire=wire, nbytes=moved)

    def _put_out(self, action: PutOut) -> None:
        self._arriving.drop(action.client)
        self._links.drop(action.client)
        if action.kill:
            self._locals.kill(action.client)

    def _give_up(self, action: GiveUp) -> None:
        failure = action.failure
        if action.is_deadly:
            raise ClusterError(failure.reason)
        if not failure.unit:
            raise NumericsError(failure.reason)
        raise UnitError(failure.unit, failure.reason)

    def _expose(self, action: Exposed) -> None:
        slave = self._machine.crowd.by_id[action.slave]
        self._exposed.add(slave.client)
        first = self._firsts.get(slave.client)
        if first is None:
            return
        what = f"slave {slave.id} ({slave.hello.name}) spoils updates"
        if self._settings.undo:
            if self._story is not None:
                goes_back = f"goes back to before {first.number}, for {what}"
                self._story.write([(time.monotonic(), "run", goes_back, None)])
            raise Spoiled(what, first.number)
        self._say(
            f"{what}; it did {slave.jobs} jobs since epoch {first.epoch}, and those that were not "
            "audited are in the parameters: --undo-spoiled would go back to before them"
        )

    def _bury(self, sentinel: int) -> None:
        ended = self._locals.bury(sentinel)
        if ended is None:
            return
        self._links.drop(ended.identity)
        self._arriving.drop(ended.identity)
        self._handle(Lost(ended.identity, ended.fate))
        if ended.identity not in self._known and not ended.is_dismissed:
            self._say(f"{ended.name} ended before it joined: {ended.fate}")
        if self._locals.replace(ended, is_exposed=ended.identity in self._exposed):
            return
        self._say(f"{ended.name} died too often and is not started again: {ended.fate}")
        if not (self._locals.has_any or self._settings.listen or self._settings.works):
            raise ClusterError(f"all local slaves died, the last one so: {ended.fate}")


def _not_finite(client: bytes, lease: LeaseId) -> Rejected:
    return Rejected(client, lease, "NaN or infinity in its update", is_lie=False)


def _others(settings: ClusterSettings) -> Others | None:
    """Return the listener for slaves that this master does not start."""
    if settings.others is not None:
        return settings.others
    if not settings.listen:
        return None
    if settings.listen[0].startswith("memory://"):
        if len(settings.listen) > 1:
            raise InputError(f"{settings.listen[0]} cannot be one of several --listen addresses")
        return MemoryListener(settings.listen[0])
    return ZmqListener(settings.listen, settings.keys)
