"""A slave's computing: a worker whose parameters come from shared memory or from frames."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import ClusterError
from veloflow.protocol.codec import encode
from veloflow.protocol.messages import Job, Plan, Update
from veloflow.runtime.payloads import pack, unpack, view
from veloflow.runtime.shared_memory import Board, Outbox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.protocol.messages import FrameHeader
    from veloflow.runtime.mischief import Mischief
    from veloflow.runtime.transport import Frame
    from veloflow.runtime.worker import Worker

__all__ = ["CAPACITY", "Computing"]

#: how many jobs a slave takes: one to compute, the other in advance
CAPACITY = 2


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
                folder / self.name, plan.parameters, dtype, CAPACITY + 2, create=True
            )

    def close(self) -> None:
        """Let go of it; the folder is the master's."""
        self.board = self.outbox = None


class Computing:
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
        start = None
        for header, frame in zip(job.frames, frames, strict=True):
            if header.name == "start":
                start = view(header, frame)
        updates = self.worker.work(kind, unpack(job.data, job.frames, frames), start)
        data, headers, arrays = pack(updates)
        if not self.worker.has_gradients(kind):
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

    def _load(self, job: Job, frames: list[Frame]) -> bool:
        for header, frame in zip(job.frames, frames, strict=True):
            if header.name == "parameters":
                self.worker.load(view(header, frame))
                self._version = job.parameters
            elif header.name == "start":
                self._version = 0  # what is here afterwards is no version of the master's
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
                if board.holds(version):
                    self._version = version
                    return True
                self._version = 0
            if job.parameters:
                return False
        return False
