"""The run loop: the graph compiled to steps, and control moving from step to step.

Rules, which are those of Veles: a unit runs when all its predecessors have fired since its last
run (when any has, if it ignores its gate); ``gate_block`` is read when the signal arrives and
stops it; ``gate_skip`` passes it without running. Signals are served in the order in which they
were sent, so that a run is deterministic. Reaching the end point finishes the run.

Nothing here reads a clock: one is passed in, and counts nanoseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from veloflow.core.bools import Bool
from veloflow.core.plumbing import EndPoint
from veloflow.errors import CheckpointError, StalledError, UnitError, VeloflowError

if TYPE_CHECKING:
    from veloflow.core.unit import Unit
    from veloflow.core.workflow import Workflow

__all__ = ["Flow", "Outcome", "UnitTime"]


class Outcome(Enum):
    """Why the loop returned."""

    FINISHED = "finished"  #: the end point was reached
    PAUSED = "paused"  #: asked to; :meth:`Flow.run` goes on from the same place


@dataclass(frozen=True)
class UnitTime:
    """What a unit has cost so far."""

    runs: int
    seconds: float


class _Step:
    """A unit in the compiled plan."""

    __slots__ = (
        "arrived", "block", "follower", "followers", "nanoseconds", "run", "runs", "skip",
        "slots", "unit",
    )  # fmt: skip

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.run = unit.run
        self.block = unit.gate_block
        self.skip = unit.gate_skip
        self.runs = 0
        self.nanoseconds = 0
        #: the only follower, if it needs no join: the signal goes straight there
        self.follower: _Step | None = None
        self.followers: tuple[_Step, ...] = ()
        #: predecessors that must all fire, for a unit that joins; else None
        self.slots: frozenset[_Step] | None = None
        self.arrived: set[_Step] = set()


_CLOSED = Bool(True)


class Flow:
    """A workflow being run. Events are calls of units; the only state is where control is.

    Args:
        workflow: what to run; it may change while running, by the hand of its own units.
        clock: returns nanoseconds, for the units' times.
    """

    def __init__(self, workflow: Workflow, clock: Callable[[], int]) -> None:
        self._workflow = workflow
        self._clock = clock
        self._steps: dict[Unit, _Step] = {}
        self._queue: deque[_Step] = deque()
        self._is_stale = False
        self._pausing = False
        self._compile()

    # -- compiling ----------------------------------------------------------------------------

    def _compile(self) -> None:
        """(Re)build the steps from the graph, keeping times, arrivals and pending signals."""
        workflow, old = self._workflow, self._steps
        graph = workflow.graph
        self._steps = new = {unit: _Step(unit) for unit in graph}
        for unit, step in new.items():
            before = old.get(unit)
            if before is not None:
                step.runs, step.nanoseconds = before.runs, before.nanoseconds
            if not isinstance(unit, EndPoint):
                step.followers = tuple(new[follower] for follower in graph.successors(unit))
            if graph.in_degree(unit) > 1 and not unit.ignores_gate:
                step.slots = frozenset(new[one] for one in graph.predecessors(unit))
                if before is not None:
                    came = {new[one.unit] for one in before.arrived if one.unit in new}
                    step.arrived = came & step.slots
        for step in new.values():
            if len(step.followers) == 1 and step.followers[0].slots is None:
                step.follower = step.followers[0]
        self._queue = deque(new[step.unit] for step in self._queue if step.unit in new)
        self._is_stale = False
        if self._pausing:
            self.request_pause()

    def invalidate(self) -> None:
        """Take note that links or gates changed: the plan is rebuilt before the next hop."""
        self._is_stale = True
        for step in self._steps.values():
            step.follower = None  # the slow path looks whether the plan is stale

    # -- pausing ------------------------------------------------------------------------------

    def request_pause(self) -> None:
        """Let :meth:`run` return as soon as all control rests at boundaries (repeaters)."""
        self._pausing = True
        for unit, step in self._steps.items():
            if unit.is_boundary:
                step.block = _CLOSED

    def _end_pause(self) -> None:
        self._pausing = False
        for unit, step in self._steps.items():
            step.block = unit.gate_block

    def state(self) -> dict[str, object]:
        """Return where control is, as JSON values; meant for a paused flow."""
        return {
            "queue": [step.unit.path for step in self._queue],
            "arrived": {
                unit.path: sorted(one.unit.path for one in step.arrived)
                for unit, step in self._steps.items()
                if step.arrived
            },
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Put control where :meth:`state` said it was.

        Raises:
            CheckpointError: the state names units that this workflow does not have.
        """
        by_path = {unit.path: step for unit, step in self._steps.items()}
        queue = cast("Iterable[str]", state["queue"])
        arrived = cast("Mapping[str, Iterable[str]]", state["arrived"])
        try:
            self._queue = deque(by_path[path] for path in queue)
            for path, came in arrived.items():
                by_path[path].arrived = {by_path[one] for one in came}
        except KeyError as error:
            raise CheckpointError(f"the checkpoint names a unit {error} that is not here") from None

    # -- running ------------------------------------------------------------------------------

    def start(self) -> None:
        """Put the one first signal on the start point, forgetting any other."""
        for step in self._steps.values():
            step.arrived.clear()
        self._queue = deque([self._steps[self._workflow.start]])

    def run(self) -> Outcome:
        """Move control until the end is reached or a requested pause is possible.

        Raises:
            UnitError: a unit raised; the cause is kept.
            StalledError: no signal is left and the end was not reached.
        """
        clock = self._clock
        if self._is_stale:
            self._compile()
        queue = self._queue
        if not queue:
            raise StalledError(f"workflow {self._workflow.path!r} was not started")
        step = queue.popleft()
        now = clock()
        try:
            while True:
                if not step.block.value:
                    if not step.skip.value:
                        step.run()
                        then = clock()
                        step.runs += 1
                        step.nanoseconds += then - now
                        now = then
                    follower = step.follower
                    if follower is not None:
                        if queue:
                            queue.append(follower)
                            step = queue.popleft()
                        else:
                            step = follower
                        continue
                    if isinstance(step.unit, EndPoint):
                        return Outcome.FINISHED
                    if self._is_stale:
                        self._compile()
                        queue = self._queue
                    self._deliver(step.unit)
                elif self._is_held(step):
                    queue.append(step)
                    if all(self._is_held(one) for one in queue):
                        self._end_pause()
                        return Outcome.PAUSED
                if not queue:
                    raise self._stalled(step.unit)
                step = queue.popleft()
        except VeloflowError:
            raise
        except Exception as error:
            text = str(error) or "no message"
            raise UnitError(step.unit.path, f"{type(error).__name__}: {text}") from error

    def _deliver(self, unit: Unit) -> None:
        """Send the signal of ``unit`` to its followers whose gates let it in."""
        step = self._steps.get(unit)
        if step is None:  # it has removed itself from the workflow
            return
        for follower in step.followers:
            if follower.slots is not None:
                follower.arrived.add(step)
                if len(follower.arrived) < len(follower.slots):
                    continue
                follower.arrived.clear()
            if not follower.block.value or self._is_held(follower):
                self._queue.append(follower)

    def _is_held(self, step: _Step) -> bool:
        """Return whether only the requested pause stops a signal here."""
        return self._pausing and step.unit.is_boundary and not step.unit.gate_block.value

    def _stalled(self, last: Unit) -> StalledError:
        closed = [s.unit.path for s in self._steps.values() if s.block.value]
        waiting = []
        for one in self._steps.values():
            if one.slots is not None and one.arrived:
                missing = ", ".join(sorted(w.unit.path for w in one.slots - one.arrived))
                waiting.append(f"{one.unit.path} (for {missing})")
        story = f"closed by gate_block: {', '.join(closed) or 'none'}"
        if waiting:
            story += f"; waiting: {', '.join(waiting)}"
        return StalledError(
            f"control stopped after unit {last.path!r} and the end was not reached; {story}"
        )

    def times(self) -> dict[str, UnitTime]:
        """Return runs and seconds of each unit by path, nested workflows as one unit."""
        return {
            unit.path: UnitTime(step.runs, step.nanoseconds / 1e9)
            for unit, step in self._steps.items()
        }
