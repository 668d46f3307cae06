"""The run loop: the graph compiled to steps, and control moving from step to step.

Rules, which are those of Veles made deterministic: a unit is sent a signal when all its
predecessors have fired since the last one (when any has, if it ignores its gate). Signals arrive
one at a time, in the order in which they were sent; but one at a boundary (a repeater) waits until
no other is under way, so side branches are done before a loop comes round again, and a pause
changes nothing in the order. When a signal arrives both gates are read: ``gate_block`` stops it,
``gate_skip`` passes it without running the unit. Reaching the end point finishes the run.

Nothing here reads a clock: one is passed in, and counts nanoseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from veloflow.core.bools import Bool
from veloflow.core.checks import listed
from veloflow.core.plumbing import EndPoint
from veloflow.errors import CheckpointError, StalledError, UnitError, VeloflowError

if TYPE_CHECKING:
    from veloflow.core.settings import Role
    from veloflow.core.unit import Unit
    from veloflow.core.workflow import Tracer, Workflow

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
        "arrived", "block", "follower", "followers", "nanoseconds", "rests", "run", "runs",
        "skip", "slots", "unit",
    )  # fmt: skip

    def __init__(self, unit: Unit, role: Role, tracer: Tracer | None) -> None:
        self.unit = unit
        run = {
            "alone": unit.run, "master": unit.run_as_master, "slave": unit.run_as_slave
        }[role]  # fmt: skip
        #: what to call; without a tracer the unit's own method, so tracing costs nothing when off
        self.run = run if tracer is None else tracer(unit, run)
        self.block = unit.gate_block
        self.skip = unit.gate_skip
        self.rests = unit.is_boundary
        self.runs = 0
        self.nanoseconds = 0
        #: the only follower, if it need not wait there: the signal goes straight to it
        self.follower: _Step | None = None
        self.followers: tuple[_Step, ...] = ()
        #: predecessors that must all fire, for a unit that joins; else None
        self.slots: frozenset[Unit] | None = None
        self.arrived: set[Unit] = set()


#: the gate of a boundary while a pause is asked for
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
        self._queue: deque[_Step] = deque()  #: signals under way
        self._resting: deque[_Step] = deque()  #: signals at boundaries, until none is under way
        self._is_stale = False
        self._pausing = False
        self._compile()

    # -- compiling ----------------------------------------------------------------------------

    def _compile(self) -> None:
        """(Re)build the steps from the graph, keeping times, arrivals and pending signals."""
        self._workflow.settle()
        graph, old = self._workflow.graph, self._steps
        root = self._workflow.root
        self._steps = new = {unit: _Step(unit, root.role, root.tracer) for unit in graph}
        complete = []
        for unit, step in new.items():
            before = old.get(unit)
            if before is not None:
                step.runs, step.nanoseconds = before.runs, before.nanoseconds
                needed = set(graph.predecessors(unit)) if before.arrived else set()
                step.arrived = before.arrived & needed
                if step.arrived and step.arrived == needed:  # all that it lacked was unlinked
                    step.arrived.clear()
                    complete.append(step)
            if not isinstance(unit, EndPoint):
                step.followers = tuple(new[follower] for follower in graph.successors(unit))
            if graph.in_degree(unit) > 1 and not unit.ignores_gate:
                step.slots = frozenset(graph.predecessors(unit))
        has_one_boundary = sum(step.rests for step in new.values()) == 1
        for step in new.values():
            if len(step.followers) == 1 and step.followers[0].slots is None:
                follower = step.followers[0]
                if has_one_boundary or not follower.rests:
                    step.follower = follower
        kept = [new[step.unit] for step in self._signals() if step.unit in new]
        self._put([*kept, *complete])
        self._is_stale = False
        if self._pausing:
            self.request_pause()

    def _signals(self) -> list[_Step]:
        return [*self._queue, *self._resting]

    def _put(self, signals: Iterable[_Step]) -> None:
        """Let these be all signals there are."""
        every = list(signals)
        self._queue.clear()
        self._resting.clear()
        for step in every:
            self._send(step)

    def _send(self, step: _Step) -> None:
        (self._resting if step.rests else self._queue).append(step)

    def invalidate(self) -> None:
        """Take note that links or gates changed: the plan is rebuilt before the next hop."""
        if self._is_stale:
            return
        self._is_stale = True
        for step in self._steps.values():
            step.follower = None  # the slow path looks whether the plan is stale

    def replace(self, old: Unit, new: Unit) -> None:
        """Let ``new`` take over the signals, arrivals and times of ``old``."""
        self.invalidate()
        step = self._steps.get(old)
        if step is not None:
            step.unit = new
            others = {unit: one for unit, one in self._steps.items() if unit is not old}
            self._steps = {**others, new: step}
            self.reroute(old, new, others)

    def reroute(self, old: Unit, new: Unit, joins: Iterable[Unit]) -> None:
        """Let what came to these joins from ``old`` have come from ``new``."""
        for unit in joins:
            step = self._steps.get(unit)
            if step is not None and old in step.arrived:
                step.arrived.remove(old)
                step.arrived.add(new)

    # -- pausing ------------------------------------------------------------------------------

    def request_pause(self) -> None:
        """Let :meth:`run` return as soon as all control rests at boundaries (repeaters).

        May be called at any moment, from a unit, another thread or a signal handler.
        """
        self._pausing = True
        for step in self._steps.values():
            if step.rests:
                step.block = _CLOSED

    def _end_pause(self) -> None:
        self._pausing = False
        for unit, step in self._steps.items():
            step.block = unit.gate_block

    def state(self) -> dict[str, object]:
        """Return where control is, as JSON values; meant for a paused flow."""
        return {
            "queue": [step.unit.path for step in self._signals()],
            "arrived": {
                unit.path: sorted(one.path for one in step.arrived)
                for unit, step in self._steps.items()
                if step.arrived
            },
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Put control where :meth:`state` said it was.

        Raises:
            CheckpointError: the state names units or links that this workflow does not have.
        """
        if self._is_stale:
            self._compile()
        here = {unit.path: unit for unit in self._steps}
        queue = cast("Iterable[str]", state["queue"])
        arrived = cast("Mapping[str, Iterable[str]]", state["arrived"])
        try:
            steps = [self._steps[here[path]] for path in queue]
            joins = {here[path]: {here[one] for one in came} for path, came in arrived.items()}
        except KeyError as error:
            raise CheckpointError(f"the checkpoint names a unit {error} that is not here") from None
        for unit, came in joins.items():
            if not came < (self._steps[unit].slots or frozenset()):
                raise CheckpointError(
                    f"the checkpoint says that {unit.path!r} waits after "
                    f"{listed(one.path for one in came)}, but the links here are others"
                )
        self._put(steps)
        for unit, step in self._steps.items():
            step.arrived = joins.get(unit, set())

    # -- running ------------------------------------------------------------------------------

    def start(self) -> None:
        """Put the one first signal on the start point, forgetting any other."""
        for step in self._steps.values():
            step.arrived.clear()
        self._put([self._steps[self._workflow.start]])

    def run(self) -> Outcome:
        """Move control until the end is reached or a requested pause is possible.

        Raises:
            UnitError: a unit raised; the cause is kept.
            StalledError: no signal is left and the end was not reached.
        """
        clock = self._clock
        if self._is_stale:
            self._compile()
        if self._pausing:  # asked for since the last pause
            self.request_pause()
        queue, resting = self._queue, self._resting
        if not queue and not resting:
            raise StalledError(f"workflow {self._workflow.path!r} was not started")
        step = queue.popleft() if queue else resting.popleft()
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
                        if not queue:
                            step = follower
                            continue
                        (resting if follower.rests else queue).append(follower)
                    elif isinstance(step.unit, EndPoint):
                        self._put([])
                        if self._pausing:
                            self._end_pause()
                        return Outcome.FINISHED
                    else:
                        if self._is_stale:
                            self._compile()
                            now = clock()
                        self._deliver(step.unit)
                elif step.block is _CLOSED:  # and no signal is under way
                    resting.appendleft(step)
                    self._end_pause()
                    return Outcome.PAUSED
                if queue:
                    step = queue.popleft()
                elif resting:
                    step = resting.popleft()
                else:
                    raise self._stalled(step.unit)
        except VeloflowError:
            raise
        except Exception as error:
            text = str(error) or "no message"
            raise UnitError(step.unit.path, f"{type(error).__name__}: {text}") from error

    def run_round(self) -> Outcome:
        """Leave the boundary where control rests, and run until it rests again or has ended.

        Raises:
            StalledError: control rests at no boundary.
        """
        if self._is_stale:
            self._compile()
        if self._queue or not self._resting:
            raise StalledError(f"workflow {self._workflow.path!r} rests at no repeater")
        step = self._resting.popleft()
        if not step.skip.value:
            step.run()
            step.runs += 1
        self._deliver(step.unit)
        self.request_pause()
        return self.run()

    def _deliver(self, unit: Unit) -> None:
        """Send signals to the followers of ``unit`` that wait for nothing else."""
        step = self._steps.get(unit)
        if step is None:  # it has removed itself from the workflow
            return
        for follower in step.followers:
            if follower.slots is not None:
                follower.arrived.add(unit)
                if len(follower.arrived) < len(follower.slots):
                    continue
                follower.arrived.clear()
            self._send(follower)

    def _stalled(self, last: Unit) -> StalledError:
        closed = [unit.path for unit in self._steps if unit.gate_block]
        waiting = []
        for unit, step in self._steps.items():
            if step.slots is not None and step.arrived:
                missing = sorted(one.path for one in step.slots - step.arrived)
                waiting.append(f"{unit.path} (for {listed(missing)})")
        story = f"closed by gate_block: {listed(closed) or 'none'}"
        if waiting:
            story += f"; waiting: {listed(waiting)}"
        return StalledError(
            f"control stopped at unit {last.path!r} and the end was not reached; {story}"
        )

    def times(self) -> dict[str, UnitTime]:
        """Return runs and seconds of each unit by path, nested workflows as one unit."""
        return {
            unit.path: UnitTime(step.runs, step.nanoseconds / 1e9)
            for unit, step in self._steps.items()
        }
