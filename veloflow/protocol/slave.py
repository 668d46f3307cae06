"""The slave, pure: greeting, the queue of jobs, leaving in good order, a master that comes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from veloflow.protocol.events import (
    Computed,
    Exit,
    Failed,
    Said,
    Say,
    Skipped,
    SlaveAction,
    SlaveEvent,
    Tell,
    TermAsked,
)  # fmt: skip
from veloflow.protocol.messages import (
    Bye,
    Cancel,
    Collect,
    GiveBack,
    Hello,
    Introduce,
    Job,
    LeaseId,
    Refusal,
    Residual,
    Stop,
    Welcome,
)  # fmt: skip

__all__ = ["TRANSITIONS", "Slave", "State"]


class State(Enum):
    """Where a slave is in the conversation."""

    GREETING = "greeting"  #: it has said hello and waits for an answer
    READY = "ready"  #: it is taken in, and computes what it is given
    DRAINING = "draining"  #: it ends its job and leaves
    DONE = "done"


#: state -> event -> state; what is not here leaves the state as it is
TRANSITIONS: dict[State, dict[str, State]] = {
    State.GREETING: {
        "Welcome": State.READY,
        "Refusal": State.DONE,
        "Stop": State.DONE,
        "asked to leave": State.DONE,
        "no answer for long": State.DONE,
    },
    State.READY: {
        "Introduce": State.GREETING,
        "Refusal": State.DONE,
        "Stop": State.DONE,
        "asked to leave": State.DRAINING,
        "no answer for long": State.DONE,
    },
    State.DRAINING: {
        "job ended": State.DONE,
        "Introduce": State.DONE,
        "Refusal": State.DONE,
        "Stop": State.DONE,
    },
    State.DONE: {},
}

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
#: for so many beats after a welcome, who asks who this is has asked before it
_STALE = 2


class Slave:
    """The state of a slave. Events and the time go in, actions come out.

    The shell asks :meth:`begin` for the next job when it has handled all that had arrived.

    Args:
        hello: what it says of itself.
        patience: scales every wait.
        give_up: seconds without a word from the master until it leaves.
    """

    def __init__(self, hello: Hello, *, patience: float = 1.0, give_up: float = 600.0) -> None:
        self.state = State.GREETING
        self.id = ""
        self.run = ""
        self.beat_every = 0.0
        self._hello = hello
        self.memory = hello.memory  #: what the next hello says of shared memory
        self.peer = hello.peer  #: and of the way to it from other slaves
        self.tells_residual = False  #: whether the master must be told what the codec leaves out
        self._patience = patience
        self._give_up = give_up * patience
        self._queue: dict[LeaseId, Job] = {}
        self._computing: LeaseId | None = None
        self._is_void = False  # what is computed is of a run that is over
        self._wait = _FIRST_WAIT * patience
        self._next_hello: float | None = None
        self._heard: float | None = None
        self._welcomed = -math.inf
        self._handlers: dict[type[object], Callable[[Any, float], list[SlaveAction]]] = {
            Welcome: self._on_welcome,
            Introduce: self._on_introduce,
            Refusal: self._on_refusal,
            Stop: self._on_stop,
            Job: self._on_job,
            Cancel: self._on_cancel,
            Collect: self._on_collect,
        }

    @property
    def deadline(self) -> float | None:
        """When to call with Tick at the latest."""
        if self.state is State.DONE or self._heard is None:
            return None
        give_up = self._heard + self._give_up
        return give_up if self._next_hello is None else min(give_up, self._next_hello)

    def start(self, now: float) -> list[SlaveAction]:
        """Say hello."""
        self._heard = now
        return self._greet(now)

    def _greet(self, now: float) -> list[SlaveAction]:
        self._next_hello = now + self._wait
        self._wait = min(2 * self._wait, _LONGEST_WAIT * self._patience)
        hello = msgspec.structs.replace(
            self._hello, former=self.id, memory=self.memory, peer=self.peer
        )
        return [Tell(hello)]

    def is_stranger(self, question: Introduce, now: float) -> bool:
        """Whether the master, which asks who this is, does not know it.

        One that has just taken it in may have asked before, of an earlier beat or answer.
        """
        if self.state is not State.READY:
            return False
        if question.run:
            return question.run == self.run
        return now >= self._welcomed + _STALE * self.beat_every

    def begin(self) -> Job | None:
        """Return the job to compute now; None when there is none."""
        if self._computing is not None or not self._queue or self.state is not State.READY:
            return None
        lease, job = next(iter(self._queue.items()))
        del self._queue[lease]
        self._computing, self._is_void = lease, False
        return job

    def handle(self, event: SlaveEvent, now: float) -> list[SlaveAction]:
        """Take in an event; return what is to be done, in order."""
        if self.state is State.DONE:
            return []
        if isinstance(event, Said):
            self._heard = now
            handler = self._handlers.get(type(event.message))
            return handler(event.message, now) if handler else []
        if isinstance(event, Computed):
            return self._on_answer(Tell(event.update))
        if isinstance(event, Failed):
            return self._on_answer(Tell(event.failure))
        if isinstance(event, Skipped):
            return self._on_answer(Tell(GiveBack(event.lease)))
        if isinstance(event, TermAsked):
            return self._on_term(event)
        return self._on_tick(now)

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state].get(event, self.state)

    # -- what the master says -----------------------------------------------------------------

    def _on_welcome(self, welcome: Welcome, now: float) -> list[SlaveAction]:
        if self.state is not State.GREETING:
            return []
        self._queue.clear()  # a master that welcomes anew has taken all leases back
        self._is_void = True
        self.id, self.run, self.beat_every = welcome.slave, welcome.run, welcome.beat_every
        self._welcomed = now
        self._next_hello = None
        self._move("Welcome")
        return [Say("info", f"taken in as {self.id}")]

    def _on_introduce(self, message: Introduce, now: float) -> list[SlaveAction]:
        if self.state is not State.DRAINING and not self.is_stranger(message, now):
            return []
        self._move("Introduce")
        if self.state is State.DONE:
            return [Exit(0, "the master it worked for is gone")]
        self._wait = _FIRST_WAIT * self._patience
        return [Say("info", "the master does not know this slave any more: saying hello again"),
                *self._greet(now)]  # fmt: skip

    def _on_refusal(self, refusal: Refusal, now: float) -> list[SlaveAction]:
        self._move("Refusal")
        return [Exit(2, f"the master refuses this slave: {refusal.reason}")]

    def _on_stop(self, stop: Stop, now: float) -> list[SlaveAction]:
        self._move("Stop")
        return [Exit(0, stop.reason)]

    def _on_job(self, job: Job, now: float) -> list[SlaveAction]:
        if self.state is State.DRAINING:
            return [Tell(GiveBack(job.lease))]
        if self.state is State.READY and job.lease not in self._queue:
            self._queue[job.lease] = job
        return []

    def _on_cancel(self, cancel: Cancel, now: float) -> list[SlaveAction]:
        if self._queue.pop(cancel.lease, None) is None:
            return []  # it is begun: its answer comes all the same
        return [Tell(GiveBack(cancel.lease))]

    def _on_collect(self, collect: Collect, now: float) -> list[SlaveAction]:
        return [Tell(Residual())] if self.tells_residual else []

    # -- its own doing ------------------------------------------------------------------------

    def _on_answer(self, answer: Tell) -> list[SlaveAction]:
        self._computing = None
        actions: list[SlaveAction] = []
        if not self._is_void:
            if self.state is State.GREETING:
                return []  # nobody knows of this lease any more
            actions.append(answer)
        return actions + self._leave() if self.state is State.DRAINING else actions

    def _on_term(self, event: TermAsked) -> list[SlaveAction]:
        self._move("asked to leave")
        if self.state is State.DONE:
            return [Exit(0, event.reason)]
        back: list[SlaveAction] = [Tell(GiveBack(lease)) for lease in self._queue]
        self._queue.clear()
        return back if self._computing is not None else back + self._leave()

    def _leave(self) -> list[SlaveAction]:
        self._move("job ended")
        last: list[SlaveAction] = [Tell(Residual())] if self.tells_residual else []
        return [*last, Tell(Bye("it leaves in good order")), Exit(0, "left in good order")]

    def _on_tick(self, now: float) -> list[SlaveAction]:
        if self._heard is not None and now >= self._heard + self._give_up:
            self._move("no answer for long")
            if self.state is State.DONE:
                return [Exit(1, f"no word from the master for {self._give_up:.0f} s")]
        if self._next_hello is not None and now >= self._next_hello:
            return self._greet(now)
        return []

    # -- invariants ---------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all that must hold between two events.

        Raises:
            AssertionError: the state is broken.
        """
        # leases of another run may have the same numbers
        assert self._is_void or self._computing not in self._queue, "a job computed waits too"
        assert self.state is not State.DRAINING or not self._queue, "it leaves and keeps jobs"
        assert (self.state is State.GREETING) == (self._next_hello is not None) or (
            self.state is State.DONE
        ), f"{self.state} and hello at {self._next_hello}"
