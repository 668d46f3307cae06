"""Units that write down when they run and act out a script: for tests of the control flow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from veloflow.core import Outcome, Unit, Workflow


class Trace(list[str]):
    """The names of the units that ran, in order; a service of the workflow."""


class Actor(Unit):
    """Writes its name down; then does what it was told to do in this run, if anything.

    Args:
        act: called in every run, after the name was written down.
        acts: called in the runs of these numbers, from 1 on.
    """

    def __init__(
        self,
        workflow: Workflow,
        name: str | None = None,
        *,
        act: Callable[[], object] | None = None,
        acts: dict[int, Callable[[], object]] | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.act = act
        self.acts = acts or {}
        self.runs = 0

    def run(self) -> None:
        """Write the name down and act."""
        self.service(Trace).append(self.name)
        self.runs += 1
        if self.act is not None:
            self.act()
        if self.runs in self.acts:
            self.acts[self.runs]()


class Either(Actor):
    """Runs on any signal, but is no boundary."""

    ignores_gate = True


class Loop(Actor):
    """A repeater that writes its name down."""

    ignores_gate = True
    is_boundary = True


class Gathering(Actor):
    """A boundary that waits for all its predecessors."""

    is_boundary = True


def stage() -> Workflow:
    """Return an empty workflow with a trace."""
    return Workflow().provide(Trace, Trace())


def cast(workflow: Workflow, names: str, kind: type[Actor] = Actor) -> list[Actor]:
    """Return one actor for each of the names, separated by blanks."""
    return [kind(workflow, name) for name in names.split()]


def chain(*units: Unit) -> None:
    """Link each unit to the next."""
    for before, after in itertools.pairwise(units):
        before >> after


def played(workflow: Workflow) -> str:
    """Return the names of what has run so far, as one line, and forget them."""
    trace = workflow.find_service(Trace)
    names = " ".join(trace)
    trace.clear()
    return names


def play(workflow: Workflow) -> str:
    """Check, set up and run a workflow to its end; return what ran."""
    workflow.set_up()
    workflow.flow.start()
    assert workflow.flow.run() is Outcome.FINISHED
    return played(workflow)


def after(actor: Actor, runs: int, act: Callable[[], object]) -> None:
    """Let the actor do something in the run of this number."""
    assert runs not in actor.acts
    actor.acts[runs] = act


def together(*acts: Callable[[], object]) -> Callable[[], Iterable[object]]:
    """Return what does one thing after another."""
    return lambda: [act() for act in acts]
