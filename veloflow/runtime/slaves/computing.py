"""A slave's computing: a worker whose parameters come from shared memory or from frames."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from veloflow.errors import ClusterError, StorageError
from veloflow.protocol.codec import encode
from veloflow.protocol.messages import Job, LeaseId, Plan, Residual, Update
from veloflow.runtime.jobs import peer_order
from veloflow.runtime.jobs.peer_order import PeerOrder
from veloflow.runtime.jobs.round_order import ORDER, Order
from veloflow.runtime.slaves.early import Early, is_worth_it
from veloflow.runtime.slaves.exchange import Exchange
from veloflow.runtime.slaves.rounds import Rounds
from veloflow.runtime.transport.left_out import name_of
from veloflow.runtime.transport.payloads import header_of, pack, unpack, view
from veloflow.runtime.transport.published import BOARD, STATE, STEPS
from veloflow.runtime.transport.shared_memory import Board, Outbox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.protocol.messages import FrameHeader
    from veloflow.runtime.slaves.job_form import Workers
    from veloflow.runtime.slaves.mischief import Mischief
    from veloflow.runtime.slaves.replica import Replica
    from veloflow.runtime.transport.connections import Frame
    from veloflow.runtime.transport.found_vector import FoundVector

__all__ = ["CAPACITY", "Computing"]

#: seconds to wait for the state before a block, times patience; and between two looks
_STATE_WAIT, _NAP = 2.0, 5e-4
#: how many jobs a slave takes: one to compute, the other in advance
CAPACITY = 2


class _Memory:
    """The shared memory of the run, where this process can reach it."""

    def __init__(self, plan: Plan, dtype: np.dtype[np.generic], worker: Workers) -> None:
        self.name = ""
        self.board: Board | None = None
        self.outbox: Outbox | None = None
        self.rounds: Rounds | None = None
        self._state: tuple[Board, Board] | None = None
        self._dtype = dtype
        self._residuals: dict[str, Outbox] = {}
        self.shows_residual = False
        self._folder = folder = Path(plan.folder)
        try:
            is_here = (folder / "token").read_text() == plan.token
            is_here = is_here and not os.environ.get("VELOFLOW_NO_SHARED_MEMORY")
        except OSError:
            return  # another machine, or another user
        if is_here:
            self.board = Board(folder / BOARD, plan.parameters, dtype)
            self.name = secrets.token_hex(8)
            self.outbox = Outbox(
                folder / self.name, plan.parameters, dtype, CAPACITY + 2, create=True
            )
            self.rounds = Rounds(worker, folder, self.name)
        # what it had left out before is its former master's to hand out
        self.keep_residual(worker.vector)

    def keep_residual(self, way: FoundVector) -> None:
        """Begin with an empty residual, which the master can see if memory is shared."""
        self.shows_residual = way.has_feedback and bool(self.name)
        if not self.shows_residual:
            way.keep_residual()
            return
        ending = name_of(way)
        if ending not in self._residuals:
            path = self._folder / f"{self.name}.{ending}"
            self._residuals[ending] = Outbox(path, way.size, way.dtype, 1, create=True)
        way.keep_residual(self._residuals[ending][0])

    def state_boards(self, size: int) -> tuple[Board, Board] | None:
        """Return where the master shows steps and its state, (size,); None before it does."""
        if self._state is None:
            with contextlib.suppress(FileNotFoundError):
                state = Board(self._folder / STATE, size, self._dtype)
                self._state = Board(self._folder / STEPS, None, np.uint8), state
        return self._state

    def close(self) -> None:
        """Let go of it; the folder is the master's."""
        self.board = self.outbox = self.rounds = self._state = None
        self._residuals.clear()


class Computing:
    """A worker whose parameters come from shared memory or from frames."""

    def __init__(
        self,
        worker: Workers,
        plan: Plan,
        dtype: np.dtype[np.generic],
        mischief: Mischief,
        master: str = "",
    ) -> None:
        self.worker = worker
        self.mischief = mischief
        self._plan = plan
        self._dtype = dtype
        self.memory = _Memory(plan, dtype, worker)
        self._version = 0  # of the worker's parameters
        self._state = 0  # the same, while it has what solvers keep as well
        #: exchanges gradients with other slaves, where the run is no star
        self.exchange = Exchange.of(worker, plan, master)
        self._master = master
        #: whether the master has withdrawn the job of a lease, which is computed
        self.is_void: Callable[[LeaseId], bool] = lambda lease: False
        self._early: Early | None = None
        #: what others have left out, by the name of its form
        self._legacy: list[tuple[str, NDArray[Any]]] = []

    def hurry(self, send: Callable[[list[Frame]], object]) -> None:
        """Send what is complete of a gradient while the rest is computed."""
        if is_worth_it(self.worker) and not self.mischief.touches_numbers:
            self._early = Early(self.worker, send)

    def move(self, plan: Plan) -> None:
        """Work for another master of the same run.

        Raises:
            ClusterError: it runs something else.
        """
        if plan.checksum != self._plan.checksum:
            raise ClusterError("another master is there, and it runs something else; start anew")
        self.memory.close()
        self._plan = plan
        self.memory = _Memory(plan, self._dtype, self.worker)
        if self.exchange is not None:
            self.exchange.close()
        self.exchange = Exchange.of(self.worker, plan, self._master)
        self._version = self._state = 0

    @property
    def peer(self) -> str:
        """Where other slaves reach this one; '' where it exchanges nothing with them."""
        return "" if self.exchange is None else self.exchange.address

    def close(self) -> None:
        """Let go of shared memory and of connections to other slaves."""
        self.memory.close()
        if self.exchange is not None:
            self.exchange.close()

    @property
    def tells_residual(self) -> bool:
        """Whether there is a residual that the master cannot see."""
        return self.worker.vector.has_feedback and not self.memory.shows_residual

    def residual(self) -> list[Frame]:
        """Return the message that tells the residual."""
        self._take_legacy()
        residual = self.worker.vector.residual
        assert residual is not None
        frame = residual.copy()
        name = name_of(self.worker.vector)
        return [encode(Residual((header_of(name, frame),))), frame.data]

    def inherit(self, message: Residual, frames: list[Frame]) -> None:
        """Send what another slave has left out as well, beginning with the next job.

        That one may be the first of another form.
        """
        sent = zip(message.frames, frames, strict=True)
        self._legacy += [(one.name, view(one, frame).copy()) for one, frame in sent]

    def _take_legacy(self) -> None:
        """Add to the residual what others have left out of such updates; the rest is out of date.

        Raises:
            ClusterError: it is no residual of this run.
        """
        way = self.worker.vector
        for name, one in self._legacy:
            if not way.has_feedback or name != name_of(way):
                continue
            if not way.is_residual(one):
                raise ClusterError("the master sent a residual that is none of this run")
            way.inherit(one)
        self._legacy.clear()

    def do(self, job: Job, frames: list[Frame]) -> tuple[Update, list[Frame]] | None:
        """Compute a job; None when its parameters are not there any more."""
        jobs: dict[str, Payload] = {**unpack(job.data, job.frames, frames)}
        if self.worker.turn_to(jobs):
            self._state = 0
            self.memory.keep_residual(self.worker.vector)
        self._take_legacy()
        if peer_order.ORDER in jobs:
            return self._do_exchange(job, jobs, frames)
        if ORDER in jobs:
            return self._do_rounds(job, jobs)
        if not self._load(job, frames):
            return None
        self.mischief.before()
        began = time.perf_counter()
        kind = job.piece.kind
        start = None
        for header, frame in zip(job.frames, frames, strict=True):
            if header.name == "start":
                start = view(header, frame)
        is_plain = self.memory.outbox is None and self.worker.vector.is_shared
        early = self._early if is_plain else None
        if early is not None and self.worker.has_gradients(kind):
            updates = early.work(job.lease, partial(self.worker.work, kind, jobs, start))
        else:
            early, updates = None, self.worker.work(kind, jobs, start)
        data, headers, arrays = pack(updates)
        if early is not None:
            self.mischief.after(time.perf_counter() - began, [])
            more, rest = early.rest()
            headers = (*headers, *more)
            arrays += rest
        elif not self.worker.has_gradients(kind):
            self.mischief.after(time.perf_counter() - began, [])
        elif self.memory.outbox is not None and self.worker.vector.is_shared:
            slot = self.memory.outbox[job.slot]
            np.copyto(slot, self.worker.found)
            self.mischief.after(time.perf_counter() - began, [slot])
        else:
            more, coded = self._code(job.piece.count, began)
            headers = (*headers, *more)
            arrays += coded
        seconds = time.perf_counter() - began
        update = Update(job.lease, data, headers, seconds, self._version)
        return update, [encode(update), *(array.data for array in arrays)]

    def _code(self, count: int, began: float) -> tuple[tuple[FrameHeader, ...], list[NDArray[Any]]]:
        """Return the frames of what was found in a piece of so many samples."""
        way = self.worker.vector
        factors = self.worker.factors(count) if way.needs_factors else None
        found = self.worker.found.copy()
        self.mischief.after(time.perf_counter() - began, [found])
        return way.write(found, factors)

    def _do_rounds(self, job: Job, jobs: dict[str, Payload]) -> tuple[Update, list[Frame]] | None:
        """Compute a part of a block of rounds; None if the state that it begins with is not here.

        From one block to the next the state is the worker's own; otherwise it is on the board.
        """
        order = Order.of(jobs.pop(ORDER))
        replica = self.worker.replica
        if replica is None or self.memory.rounds is None or not self._has_state(order, replica):
            return None
        self.mischief.before()
        began = time.perf_counter()
        self._version = self._state = 0  # whatever happens in the middle
        try:
            found = self.memory.rounds.compute(order, jobs, replica, self.mischief)
        except StorageError:  # no memory for a log here: others can do it
            return None
        self._version = self._state = order.state + 1
        data, headers, arrays = pack(found)
        seconds = time.perf_counter() - began
        update = Update(job.lease, data, headers, seconds, order.state)
        return update, [encode(update), *(array.data for array in arrays)]

    def _do_exchange(
        self, job: Job, jobs: dict[str, Payload], frames: list[Frame]
    ) -> tuple[Update, list[Frame]] | None:
        """Compute a part of a block with other slaves; None if that is given up."""
        said = jobs.pop(peer_order.ORDER)
        replica = self.worker.replica
        if peer_order.VOID in said or self.exchange is None or replica is None:
            return None
        order = PeerOrder.of(said)
        for header, frame in zip(job.frames, frames, strict=True):
            if header.name == peer_order.STATE:
                replica.load(view(header, frame), msgspec.json.decode(str(said[peer_order.STEPS])))
                self._state = order.state
        if self._state != order.state:
            return None
        self.mischief.before()
        began = time.perf_counter()
        self._version = self._state = 0  # whatever happens in the middle
        found = self.exchange.compute(
            order, said, jobs, replica, self.mischief, lambda: self.is_void(job.lease)
        )
        if found is None:
            return None
        self._version = self._state = order.state + 1
        data, headers, arrays = pack(found)
        update = Update(job.lease, data, headers, time.perf_counter() - began, order.state)
        return update, [encode(update), *(array.data for array in arrays)]

    def _has_state(self, order: Order, replica: Replica) -> bool:
        """Have the replica in the state that a block begins with, if that can be."""
        if self._state == order.state:
            return True
        until = time.monotonic() + _STATE_WAIT * order.patience
        boards = self.memory.state_boards(replica.size)
        while boards is None or boards[1].latest < order.state:  # others compute the block before
            if time.monotonic() > until:
                return False
            time.sleep(_NAP)
            boards = boards or self.memory.state_boards(replica.size)
        views = [board.look(order.state) for board in boards]
        if views[0] is None or views[1] is None:
            return False
        steps: dict[str, Payload] = msgspec.json.decode(views[0].tobytes())
        replica.load(views[1], steps)
        is_there = all(board.holds(order.state) for board in boards)
        self._version = self._state = order.state if is_there else 0
        return is_there

    def _load(self, job: Job, frames: list[Frame]) -> bool:
        for header, frame in zip(job.frames, frames, strict=True):
            if header.name == "parameters":
                self.worker.load(view(header, frame))
                self._version, self._state = job.parameters, 0
            elif header.name == "start":
                # what is here afterwards is no version of the master's
                self._version = self._state = 0
                return True
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
                self._state = 0
                if board.holds(version):
                    self._version = version
                    return True
                self._version = 0
            if job.parameters:
                return False
        return False
