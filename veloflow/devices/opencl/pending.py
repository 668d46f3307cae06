"""Launches that wait for each other, so that those of a minibatch become few.

A driver for processors wakes its threads for each launch and waits for them at its end, which
costs about as much as a small kernel. So launches are gathered until somebody wants to see their
results. A sequence that comes again and again is made a plan: launches that may be one (see
:mod:`grouping`) are compiled as one kernel (see :mod:`merging`), whose arguments are set once. A
plan is trusted after it has given the same bits as the launches that it is made of, on the user's
own numbers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from veloflow.devices.opencl.grouping import Access, Work, grouped
from veloflow.devices.opencl.platforms import cl
from veloflow.errors import KernelError

if TYPE_CHECKING:
    from veloflow.devices.opencl.buffers import Block
    from veloflow.devices.opencl.recipes import Call

__all__ = ["Bound", "Given", "Pending", "Step"]

#: the numbers of a launch, None where it takes none
Given: TypeAlias = Mapping[str, float] | None

#: how often a sequence must have come before it is made a plan: compiling takes a second
_OFTEN = 12
#: sequences for each time that it came: what comes more seldom, as the end of an epoch does, never
#: gains what compiling costs
_SELDOM = 16
#: launches that are gathered at most, and sequences that are remembered
_LONGEST, _REMEMBERED = 64, 64


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel with its arguments set, and all that a plan must know of it.

    ``blocks`` are the arrays among its arguments, ``written`` the names of those that it writes.
    """

    call: Call
    kernel: Any
    source: str
    blocks: Mapping[str, Block]
    written: frozenset[str]

    def work(self) -> Work:
        """Return what it touches."""
        share = self.call.share
        ours = frozenset() if share is None else share.arrays
        accesses = tuple(
            Access(id(block.root), block.start, block.start + block.nbytes,
                   name in self.written, name in ours)
            for name, block in self.blocks.items()
        )  # fmt: skip
        is_plain = self.call.local == (1,) and not self.call.is_alone
        return Work(accesses, 0 if share is None else share.rows, not is_plain)


@dataclass(frozen=True, eq=False)
class Bound:
    """The steps of one operation, and what sets the numbers of a launch."""

    steps: Sequence[Step]
    set_scalars: Callable[[Mapping[str, float]], None]
    roots: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        roots = frozenset(id(one.root) for step in self.steps for one in step.blocks.values())
        object.__setattr__(self, "roots", roots)


@dataclass(frozen=True, eq=False)
class Plan:
    """How a sequence is given to the driver.

    ``run`` takes the numbers of each launch and returns the events of what it enqueued, in order.
    ``ends`` tells for each buffer which of these is the last that uses it.
    """

    run: Callable[[Sequence[Given]], Sequence[Any]]
    ends: Mapping[int, int]


class Pending:
    """Launches that were asked for and are not with the driver yet.

    Args:
        queue: where they go.
        merge: makes a plan of steps that are to be one launch; see :class:`Engine`.
        note: is told of plans that cannot be used.
    """

    def __init__(
        self,
        queue: Any,
        merge: Callable[[Sequence[Step]], Callable[[Sequence[Given]], Any]],
        note: Callable[[str], None],
    ) -> None:
        self._merge, self._note = merge, note
        self._bound: list[Bound] = []
        self._given: list[Given] = []
        #: what may still be running, the newest last: where buffers end, and the events
        self._running: dict[tuple[Bound, ...], tuple[Mapping[int, int], Sequence[Any]]] = {}
        #: how often each sequence came, and since which of all sequences
        self._seen: OrderedDict[tuple[Bound, ...], tuple[int, int]] = OrderedDict()
        self._count = 0  #: of all sequences
        self._plans: OrderedDict[tuple[Bound, ...], Plan] = OrderedDict()
        self._last: set[Bound] = set()  #: with which plans end
        self._lock = threading.RLock()
        self.use(queue, queue.finish, None)

    def use(
        self, queue: Any, finish: Callable[[], object], enqueue: Callable[..., object] | None
    ) -> None:
        """Give launches to this queue; with ``enqueue``, each at once and by this function."""
        self.queue, self._finish = queue, finish
        self._plans.clear()
        self._last.clear()
        self._is_watched = enqueue is not None
        self._enqueue = enqueue or cl.enqueue_nd_range_kernel

    def add(self, bound: Bound, given: Given = None) -> None:
        """Take in a launch."""
        self._bound.append(bound)
        self._given.append(given)
        is_long = self._is_watched or len(self._bound) >= _LONGEST
        if is_long or (bound in self._last and tuple(self._bound) in self._plans):
            self.flush()  # a plan is complete: there is nothing to wait for

    def flush(self) -> None:
        """Give all launches to the driver; nothing waits."""
        if not self._bound:
            return
        with self._lock:
            sequence, given = tuple(self._bound), self._given
            self._bound, self._given = [], []
            self._count += 1
            plan = None if self._is_watched else self._plans.get(sequence)
            if plan is None and not self._is_watched and self._is_often(sequence):
                self._remember(sequence, given)
                return
            plan = plan or self._plain(sequence)
            # the queue is in order: what the same launches did before is done before
            self._running.pop(sequence, None)
            self._running[sequence] = plan.ends, plan.run(given)
            if len(self._running) > _REMEMBERED:
                _, events = self._running.pop(next(iter(self._running)))
                events[-1].wait()

    def finish(self) -> None:
        """Wait for all launches."""
        self.flush()
        self._finish()
        self._running.clear()

    def settle(self, block: Block, *, is_written: bool) -> None:
        """Wait until no launch uses the memory of a block; others may still run.

        Who writes is told about the past alone: what was asked for before begins now.
        """
        root = id(block.root)
        if is_written or any(root in bound.roots for bound in self._bound):
            self.flush()
        event = self._last_use(root)
        if event is None:
            return
        if self._is_watched:
            self.finish()  # which tells of the wait
        else:
            event.wait()

    def _last_use(self, root: int) -> Any:
        """Return the event of the last launch that uses the buffer; None where there is none."""
        with self._lock:
            for ends, events in reversed(self._running.values()):
                place = ends.get(root)
                if place is not None:
                    return events[place]
        return None

    def _is_often(self, sequence: tuple[Bound, ...]) -> bool:
        count, since = self._seen.pop(sequence, (0, self._count))
        count += 1
        if sum(len(bound.steps) for bound in sequence) == 1:
            return False
        if self._count - since >= _SELDOM * count:
            count, since = 1, self._count
        self._seen[sequence] = count, since
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return count >= _OFTEN

    def _plain(self, sequence: Sequence[Bound]) -> Plan:
        """Return the plan of launches as they are; all their memory is in use until the last."""
        roots = frozenset[int]().union(*(bound.roots for bound in sequence))
        return Plan(partial(self._run, sequence), dict.fromkeys(roots, 0))

    def _run(self, sequence: Sequence[Bound], given: Sequence[Given]) -> Sequence[Any]:
        event = None
        for bound, numbers in zip(sequence, given, strict=True):
            if numbers is not None:
                bound.set_scalars(numbers)
            for step in bound.steps:
                event = self._enqueue(self.queue, step.kernel, step.call.size, step.call.local)
        return (event,)

    # -- plans --------------------------------------------------------------------------------

    def _remember(self, sequence: tuple[Bound, ...], given: Sequence[Given]) -> None:
        """Run a sequence, and make a plan of it that gives the same bits."""
        del self._seen[sequence]
        plain = self._plain(sequence)
        try:
            plan = self._planned(sequence)
        except (KernelError, cl.Error) as error:
            self._note(f"launches stay apart: {error}")
            plan = plain
            plain.run(given)
            self.queue.finish()
        else:
            if not self._agree(sequence, plain, plan, given):
                names = ", ".join(step.call.kernel for bound in sequence for step in bound.steps)
                self._note(f"launches stay apart: as one they give other numbers ({names})")
                plan = plain
        self._running.clear()  # both ways end with a wait for all
        self._plans[sequence] = plan
        if len(self._plans) > _REMEMBERED:
            self._plans.popitem(last=False)
        self._last = {known[-1] for known in self._plans}

    def _planned(self, sequence: tuple[Bound, ...]) -> Plan:
        steps = [(step, place) for place, bound in enumerate(sequence) for step in bound.steps]
        launches: list[tuple[Callable[[Sequence[Given]], Any], list[int]]] = []
        ends: dict[int, int] = {}
        for group in grouped([step.work() for step, _ in steps]):
            members = [steps[number] for number in group]
            for step, _ in members:
                ends.update((id(block.root), len(launches)) for block in step.blocks.values())
            if len(group) > 1:
                run = self._merge([step for step, _ in members])
            else:
                step, place = members[0]
                run = partial(self._alone, sequence[place], step)
            launches.append((run, [place for _, place in members]))

        def run_all(given: Sequence[Given]) -> Sequence[Any]:
            return [run([given[place] for place in places]) for run, places in launches]

        return Plan(run_all, ends)

    def _alone(self, bound: Bound, step: Step, given: Sequence[Given]) -> Any:
        if given[0] is not None:
            bound.set_scalars(given[0])
        return self._enqueue(self.queue, step.kernel, step.call.size, step.call.local)

    def _agree(
        self,
        sequence: Sequence[Bound],
        plain: Plan,
        plan: Plan,
        given: Sequence[Given],
    ) -> bool:
        """Run both from the same numbers; whatever comes out, the plain one's results stay."""
        blocks = {
            (id(block.root), block.start, block.nbytes): block.host
            for bound in sequence
            for step in bound.steps
            for name, block in step.blocks.items()
            if name in step.written
        }
        hosts = [host for host in blocks.values() if host is not None]
        self.queue.finish()
        before = [host.copy() for host in hosts]
        plain.run(given)
        self.queue.finish()
        wanted = [host.copy() for host in hosts]
        for host, values in zip(hosts, before, strict=True):
            host[...] = values
        plan.run(given)
        self.queue.finish()
        is_one = all(_same_bits(a, b) for a, b in zip(hosts, wanted, strict=True))
        for host, values in zip(hosts, wanted, strict=True):
            host[...] = values
        return is_one


def _same_bits(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    a, b = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return a.tobytes() == b.tobytes()
