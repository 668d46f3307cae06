"""The shell around the pure slave: carries messages between it, the master and the computing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from veloflow.errors import ClusterError, VeloflowError, WireError
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
    Cancel,
    Failure,
    FromMaster,
    Introduce,
    Job,
    LeaseId,
    Plan,
    Refusal,
    Residual,
    Stop,
    Update,
)
from veloflow.protocol.slave import Slave, State
from veloflow.runtime.slaves.heart import Heart

if TYPE_CHECKING:
    from veloflow.runtime.slaves.computing import Computing
    from veloflow.runtime.transport.connections import Connection, Frame

__all__ = ["GLANCE", "Shell"]

#: the longest that a slave looks at nothing but its connection, in seconds
GLANCE = 0.25
#: seconds for which a slave stays awake after a job
_AWAKE = 0.001


class Shell:
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
        self._unread: deque[list[Frame]] = deque()
        self._cancelled: set[LeaseId] = set()
        self._is_over = False
        self._exit: Exit | None = None
        self._done = 0.0  # when the last job was
        self._is_term_asked = False
        self._heart = Heart(machine, beats)

    def run(self, computing: Computing) -> None:
        """Go on until the machine says that it is over."""
        self._heart.worker = computing.worker
        self._machine.tells_residual = computing.tells_residual
        computing.hurry(self._connection.send)
        computing.is_void = self._is_void
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

    def _step(self, computing: Computing) -> None:
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
        self._connection.wait(GLANCE)

    def _listen(self, computing: Computing) -> None:
        """Handle all that has arrived."""
        if self._is_term_asked and self._machine.state not in (State.DRAINING, State.DONE):
            actions = self._machine.handle(TermAsked(), time.monotonic())
            self._perform(actions, computing=computing)
        while self._exit is None and (frames := self._receive()) is not None:
            try:
                message, arrays = decode_from_master(frames)
            except WireError as error:
                raise ClusterError(f"the master sent what is no message: {error}") from None
            if isinstance(message, Job):
                self._frames[message.lease] = list(arrays)
            elif isinstance(message, Residual):
                computing.inherit(message, list(arrays))
            self._hear(message, computing)
        heard = self._heart.heard
        while self._exit is None and not heard.empty():  # nobody else takes from it
            self._hear(heard.get_nowait(), computing)

    def _receive(self) -> list[Frame] | None:
        """Return what has arrived next; first of that which was looked into already."""
        return self._unread.popleft() if self._unread else self._connection.receive()

    def _is_void(self, lease: LeaseId) -> bool:
        """Whether the master has said something after which a lease need not be computed.

        It is looked into only, while the lease is computed, and heard when that has ended.
        """
        while (frames := self._connection.receive()) is not None:
            self._unread.append(frames)
            try:
                message, _ = decode_from_master(frames)
            except WireError:
                continue  # it is told when it is heard
            if isinstance(message, Stop | Refusal | Introduce):
                self._is_over = True
            elif isinstance(message, Cancel):
                self._cancelled.add(message.lease)
        return self._is_over or self._is_term_asked or lease in self._cancelled

    def _hear(self, message: FromMaster, computing: Computing) -> None:
        if isinstance(message, Introduce) and self._machine.is_stranger(message, time.monotonic()):
            computing.move(self._ask())  # its shared memory is another
            self._machine.memory, self._machine.peer = computing.memory.name, computing.peer
            self._machine.tells_residual = computing.tells_residual
        actions = self._machine.handle(Said(message), time.monotonic())
        self._perform(actions, computing=computing)

    def _compute(self, job: Job, computing: Computing) -> None:
        frames = self._frames.pop(job.lease, [])
        self._cancelled.clear()
        self._is_over = False
        try:
            done = computing.do(job, frames)
            self._machine.tells_residual = computing.tells_residual  # jobs of another form
        except VeloflowError as error:
            unit = getattr(error, "unit", "") or type(error).__name__
            failure = Failure(job.lease, str(unit)[:200], str(error)[:4000])
            actions = self._machine.handle(Failed(failure), time.monotonic())
            self._perform(actions, computing=computing)
            return
        if done is None:
            actions = self._machine.handle(Skipped(job.lease), time.monotonic())
            self._perform(actions, computing=computing)
            return
        self._done = time.monotonic()
        update, out = done
        self._perform(self._machine.handle(Computed(update), time.monotonic()), out, computing)

    def _perform(
        self,
        actions: list[SlaveAction],
        update: list[Frame] | None = None,
        computing: Computing | None = None,
    ) -> None:
        for action in actions:
            if isinstance(action, Tell):
                if update and computing is not None and isinstance(action.message, Update):
                    computing.mischief.send(self._connection.send, update)
                elif computing is not None and isinstance(action.message, Residual):
                    self._connection.send(computing.residual())
                else:
                    self._connection.send([encode(action.message)])
            elif isinstance(action, Say):
                self._say(action.text)
            else:
                self._exit = action
