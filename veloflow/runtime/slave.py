"""``veloflow slave``: the shell around the pure slave. It computes, and decides nothing itself."""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from veloflow.devices.selection import choose_device, open_device
from veloflow.errors import ClusterError, InputError, VeloflowError, WireError
from veloflow.protocol.codec import decode_from_master, encode
from veloflow.protocol.events import (
    Computed,
    Exit,
    Failed,
    Said,
    Say,
    Skipped,
    SlaveAction,
    Tell,
    TermAsked,
    Tick,
)
from veloflow.protocol.messages import (
    PROTOCOL,
    Ask,
    Beat,
    Failure,
    FromMaster,
    FromSlave,
    Hello,
    Introduce,
    Job,
    Plan,
    Refusal,
    Update,
)
from veloflow.protocol.slave import Slave, State
from veloflow.runtime.keys import ClientKeys, check_address
from veloflow.runtime.memory_transport import MemoryConnection
from veloflow.runtime.mischief import Mischief
from veloflow.runtime.payloads import header_of, pack, unpack, view
from veloflow.runtime.plan import session_of
from veloflow.runtime.shared_memory import Board, Outbox
from veloflow.runtime.transport import ZmqConnection
from veloflow.runtime.unix_transport import UnixConnection
from veloflow.runtime.worker import Worker

if TYPE_CHECKING:
    from veloflow.devices import Device
    from veloflow.runtime.transport import Connection, Frame

__all__ = ["join", "run_slave"]

_CAPACITY = 2
_GLANCE = 0.25
#: seconds for which a slave stays awake after a job
_AWAKE = 0.001


def run_slave(
    address: str,
    device: Device,
    *,
    name: str = "",
    patience: float = 1.0,
    keys: ClientKeys | None = None,
    accept_definition: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Join the master at ``address`` and compute until the run is over.

    Args:
        address: such as ``tcp://127.0.0.1:5555``.
        device: what to compute on.
        name: for people.
        patience: scales every wait.
        keys: for CURVE.
        accept_definition: run the definition file that the master sends; it must have keys.
        say: takes a line for the user.

    Raises:
        ClusterError: the master refuses this slave, or is not heard of.
        InputError: the address is none; or this machine has not what is run.
    """
    # a local slave is known by a secret name that its master gave it
    identity = bytes.fromhex(os.environ.pop("VELOFLOW_IDENTITY", ""))
    if not identity:
        identity = b"R" + secrets.token_bytes(15)
        # as local slaves, whose master says it: other numbers of threads may give other bits
        threadpool_limits(1, "blas")
    connect = partial(_connect, address, keys, patience)
    with contextlib.closing(connect(identity)) as connection:
        plan = _ask(connection, patience, say)
        session, checksum = session_of(plan, device, accepts_source=accept_definition)
        with session:
            session.set_up()
            mischief = Mischief.from_environment(name)
            computing = _Computing(Worker(session), plan, session.parameters.dtype, mischief)
            try:
                hello = Hello(
                    protocol=PROTOCOL,
                    checksum=checksum,
                    name=name or platform.node(),
                    device=device.name,
                    hardware=platform.machine(),
                    host=platform.node(),
                    pid=os.getpid(),
                    memory=computing.memory.name,
                    capacity=_CAPACITY,
                )
                beats = connect(b"B" + secrets.token_bytes(15))
                ask = partial(_ask, connection, patience, say)
                shell = _Shell(Slave(hello, patience=patience), connection, beats, ask, say)
                shell.run(computing)
            finally:
                computing.memory.close()


def _connect(address: str, keys: ClientKeys | None, patience: float, identity: bytes) -> Connection:
    if address.startswith("unix://"):
        return UnixConnection(address, identity, patience=patience)
    if address.startswith("memory://"):
        return MemoryConnection(address, identity)
    return ZmqConnection(address, identity, keys, patience=patience)


def _ask(connection: Connection, patience: float, say: Callable[[str], None]) -> Plan:
    """Ask the master what is run, again and again until it answers."""
    wait, until = 0.5 * patience, time.monotonic() + 600 * patience
    while time.monotonic() < until:
        connection.send([encode(Ask(PROTOCOL))])
        give_up = time.monotonic() + wait
        while (left := give_up - time.monotonic()) > 0:
            connection.wait(min(left, _GLANCE))
            while (frames := connection.receive()) is not None:
                message, _ = decode_from_master(frames)
                if isinstance(message, Plan):
                    return message
                if isinstance(message, Refusal):
                    raise ClusterError(f"the master refuses this slave: {message.reason}")
        say("no answer from the master yet")
        wait = min(2 * wait, 10 * patience)
    raise ClusterError(f"no answer from the master for {600 * patience:.0f} s")


class _Memory:
    """The shared memory of the run, where this process can reach it."""

    def __init__(self, plan: Plan, dtype: np.dtype[np.generic]) -> None:
        self.name = ""
        self.board: Board | None = None
        self.outbox: Outbox | None = None
        folder = Path(plan.folder)
        try:
            is_here = (folder / "token").read_text() == plan.token
            is_here = is_here and not os.environ.get("VELOFLOW_NO_SHARED_MEMORY")
        except OSError:
            return  # another machine, or another user
        if is_here:
            self.board = Board(folder / "board", plan.parameters, dtype)
            self.name = secrets.token_hex(8)
            self.outbox = Outbox(
                folder / self.name, plan.parameters, dtype, _CAPACITY + 2, create=True
            )

    def close(self) -> None:
        """Let go of it; the folder is the master's."""
        self.board = self.outbox = None


class _Computing:
    """A worker whose parameters come from shared memory or from frames."""

    def __init__(
        self, worker: Worker, plan: Plan, dtype: np.dtype[np.generic], mischief: Mischief
    ) -> None:
        self.worker = worker
        self.mischief = mischief
        self._plan = plan
        self._dtype = dtype
        self.memory = _Memory(plan, dtype)
        self._version = 0

    def move(self, plan: Plan) -> None:
        """Work for another master of the same run.

        Raises:
            ClusterError: it runs something else.
        """
        if plan.checksum != self._plan.checksum:
            raise ClusterError("another master is there, and it runs something else; start anew")
        self.memory.close()
        self._plan = plan
        self.memory = _Memory(plan, self._dtype)
        self._version = 0

    def do(self, job: Job, frames: list[Frame]) -> tuple[Update, list[Frame]] | None:
        """Compute a job; None when its parameters are not there any more."""
        if not self._load(job, frames):
            return None
        self.mischief.before()
        began = time.perf_counter()
        kind = job.piece.kind
        updates = self.worker.compute(kind, unpack(job.data, job.frames, frames))
        data, headers, arrays = pack(updates)
        has_gradients = self.worker.has_gradients(kind)
        if has_gradients:
            gradients = self.worker.gradients
            if self.memory.outbox is not None:
                found = self.memory.outbox[job.slot]
                np.copyto(found, gradients)
            else:
                found = gradients.copy()
                headers = (*headers, header_of("gradients", found))
                arrays.append(found)
        self.mischief.after(time.perf_counter() - began, [found] if has_gradients else [])
        seconds = time.perf_counter() - began
        update = Update(job.lease, data, headers, seconds, self._version)
        return update, [encode(update), *(array.data for array in arrays)]

    def _load(self, job: Job, frames: list[Frame]) -> bool:
        for header, frame in zip(job.frames, frames, strict=True):
            if header.name == "parameters":
                self.worker.load(view(header, frame))
                self._version = job.parameters
        board = self.memory.board
        if board is None:
            return True
        for _ in range(8):
            version = job.parameters or board.latest
            if version == self._version:
                return True
            values = board.look(version)
            if values is not None:
                self.worker.load(values)
                if board.holds(version):
                    self._version = version
                    return True
                self._version = 0
            if job.parameters:
                return False
        return False


class _Shell:
    """Carries messages between the machine, the master and the computing."""

    def __init__(
        self,
        machine: Slave,
        connection: Connection,
        beats: Connection,
        ask: Callable[[], Plan],
        say: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._connection = connection
        self._ask = ask
        self._say = say
        self._frames: dict[object, list[Frame]] = {}
        self._exit: Exit | None = None
        self._done = 0.0  # when the last job was
        self._is_term_asked = False
        self._heart = _Heart(machine, beats)

    def run(self, computing: _Computing) -> None:
        """Go on until the machine says that it is over."""
        self._heart.worker = computing.worker
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
        self._heart.start()
        try:
            self._perform(self._machine.start(time.monotonic()))
            while self._exit is None:
                self._step(computing)
        finally:
            self._heart.stop()
        if self._exit.code:
            raise ClusterError(self._exit.reason)
        self._say(self._exit.reason)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._is_term_asked:
            raise KeyboardInterrupt
        self._is_term_asked = True

    def _step(self, computing: _Computing) -> None:
        self._listen(computing)
        if self._exit is not None:
            return
        job = self._machine.begin()
        if job is not None:
            self._compute(job, computing)
            return
        now = time.monotonic()
        deadline = self._machine.deadline
        if deadline is not None and now >= deadline:
            self._perform(self._machine.handle(Tick(), now))
        self._wait()

    def _wait(self) -> None:
        """Wait for a message: awake for a moment after a job, for the next is often near.

        To be woken takes 0.2 ms, as long as a small job; whoever else wants the core gets it.
        """
        until = self._done + _AWAKE
        while time.monotonic() < until:
            for _ in range(8):
                if self._connection.wait(0):
                    return
                os.sched_yield()
        self._connection.wait(_GLANCE)

    def _listen(self, computing: _Computing) -> None:
        """Handle all that has arrived."""
        if self._is_term_asked and self._machine.state not in (State.DRAINING, State.DONE):
            self._perform(self._machine.handle(TermAsked(), time.monotonic()))
        while self._exit is None and (frames := self._connection.receive()) is not None:
            try:
                message, arrays = decode_from_master(frames)
            except WireError as error:
                raise ClusterError(f"the master sent what is no message: {error}") from None
            if isinstance(message, Job):
                self._frames[message.lease] = list(arrays)
            self._hear(message, computing)
        while self._exit is None:
            try:
                message = self._heart.heard.get_nowait()
            except queue.Empty:
                return
            self._hear(message, computing)

    def _hear(self, message: FromMaster, computing: _Computing) -> None:
        if isinstance(message, Introduce) and self._machine.is_stranger(time.monotonic()):
            computing.move(self._ask())  # its shared memory is another
            self._machine.memory = computing.memory.name
        self._perform(self._machine.handle(Said(message), time.monotonic()))

    def _compute(self, job: Job, computing: _Computing) -> None:
        frames = self._frames.pop(job.lease, [])
        try:
            done = computing.do(job, frames)
        except VeloflowError as error:
            unit = getattr(error, "unit", "") or type(error).__name__
            failure = Failure(job.lease, str(unit)[:200], str(error)[:4000])
            self._perform(self._machine.handle(Failed(failure), time.monotonic()))
            return
        if done is None:
            self._perform(self._machine.handle(Skipped(job.lease), time.monotonic()))
            return
        self._done = time.monotonic()
        update, out = done
        self._perform(self._machine.handle(Computed(update), time.monotonic()), out, computing)

    def _perform(
        self,
        actions: list[SlaveAction],
        update: list[Frame] | None = None,
        computing: _Computing | None = None,
    ) -> None:
        for action in actions:
            if isinstance(action, Tell):
                if update and computing is not None and isinstance(action.message, Update):
                    computing.mischief.send(self._connection.send, update)
                else:
                    self._connection.send([encode(action.message)])
            elif isinstance(action, Say):
                self._say(action.text)
            else:
                self._exit = action


class _Heart:
    """Beats from a thread and over a connection of its own, so that work does not hide life."""

    def __init__(self, machine: Slave, connection: Connection) -> None:
        self.worker: Worker | None = None
        self.heard: queue.SimpleQueue[FromMaster] = queue.SimpleQueue()
        self._machine = machine
        self._connection = connection
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def start(self) -> None:
        """Begin to beat when the slave is taken in."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopping.set()
        self._thread.join()

    def _beat(self) -> None:
        every = 0.05
        while not self._stopping.wait(every):
            if not self._machine.id:
                continue
            every = self._machine.beat_every
            progress = 0 if self.worker is None else self.worker.steps
            beat: FromSlave = Beat(self._machine.id, progress)
            with contextlib.suppress(ClusterError):  # the computing thread will find out too
                self._connection.send([encode(beat)])
                self._listen()
        self._connection.close()

    def _listen(self) -> None:
        while (frames := self._connection.receive()) is not None:
            with contextlib.suppress(WireError):
                message, _ = decode_from_master(frames)
                if isinstance(message, Beat | Introduce):
                    self.heard.put(message)


def join(
    address: str,
    device: str,
    *,
    name: str = "",
    patience: float = 1.0,
    key: Path | None = None,
    master_key: Path | None = None,
    accept_definition: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Open a device by name and join the master at ``address``; see :func:`run_slave`."""
    keys = _keys(key, master_key)
    check_address(address, has_keys=keys is not None)
    if accept_definition and keys is None:
        raise InputError(
            "--accept-definition runs code of the master, which must prove who it is: give --key "
            "and --master-key"
        )
    place, why = choose_device() if device == "auto" else (open_device(device), "")
    if why:
        say(why)
    with contextlib.closing(place):
        run_slave(
            address,
            place,
            name=name,
            patience=patience,
            keys=keys,
            accept_definition=accept_definition,
            say=say,
        )


def _keys(key: Path | None, master_key: Path | None) -> ClientKeys | None:
    if key is None and master_key is None:
        return None
    if key is None or master_key is None:
        raise InputError("a slave needs two keys: give both --key and --master-key")
    return ClientKeys.load(key, master_key)
