"""Random graphs of scripted units, and a naive interpreter to compare the run loop with.

Everything in a world follows from its seed: units, links, gates, and a script that opens and
closes gates (and links and unlinks, if wanted) while the world runs.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from actors import Actor, Either, Gathering, Loop, Trace, stage

from veloflow.core import Bool, Outcome, Unit, Workflow
from veloflow.errors import StalledError, VeloflowError


class EnoughError(VeloflowError):
    """The world has run long enough."""


@dataclass
class World:
    """A workflow whose units act out a script."""

    workflow: Workflow
    bools: list[Bool]
    actors: list[Actor]
    most_runs: int = 120
    before_run: Callable[[int], object] = lambda number: None

    @property
    def trace(self) -> list[str]:
        """The names of the units that ran, in order."""
        return self.workflow.find_service(Trace)

    def count(self) -> None:
        """Be called in every run."""
        if len(self.trace) > self.most_runs:
            raise EnoughError
        self.before_run(len(self.trace))

    def copy_from(self, other: World) -> None:
        """Take over what another world from the same seed remembers, but not where control is."""
        for mine, theirs in zip(self.bools, other.bools, strict=True):
            mine.set(theirs.value)
        for actor, their in zip(self.actors, other.actors, strict=True):
            actor.runs = their.runs
        self.trace[:] = other.trace


def make_world(seed: int, *, surgery: bool = False) -> World:
    """Return the world of this seed; with ``surgery`` its links and gates change as it runs."""
    rng = random.Random(seed)
    wf = stage()
    bools = [Bool(rng.random() < 0.3) for _ in range(3)]
    kinds = rng.choices((Actor, Either, Loop, Gathering), (6, 1, 2, 1), k=rng.randint(2, 8))
    kinds[0] = rng.choice((Loop, Loop, Either, kinds[0]))
    actors = [kind(wf, chr(ord("a") + number)) for number, kind in enumerate(kinds)]
    world = World(wf, bools, actors)
    wf.start >> actors[0]
    rng.choice(actors) >> actors[0]
    for _ in range(rng.randint(len(actors), 3 * len(actors))):
        rng.choice(actors) >> rng.choice(actors)
    rng.choice(actors) >> wf.end
    wf.end.gate_block = random_gate(rng, bools)
    for actor in actors:
        if rng.random() < 0.2:
            actor.gate_block = random_gate(rng, bools)
        if rng.random() < 0.2:
            actor.gate_skip = random_gate(rng, bools)
        script = [random_act(rng, world, surgery) for _ in range(rng.randint(1, 4))]
        actor.act = acting(world, actor, script)
    return world


def acting(world: World, actor: Actor, script: list[Callable[[], object]]) -> Callable[[], object]:
    """Return what makes an actor act out its script, over and over again."""

    def act() -> None:
        world.count()
        script[actor.runs % len(script)]()

    return act


def random_gate(rng: random.Random, bools: list[Bool]) -> Bool:
    """Return one of the Bools, or one composed of them."""
    left, right = rng.choice(bools), rng.choice(bools)
    return rng.choice([left, ~left, left & right, left | ~right, left ^ right])


def random_act(rng: random.Random, world: World, surgery: bool) -> Callable[[], object]:
    """Return something to do to the world."""
    wf = world.workflow
    gate, value = rng.choice(world.bools), rng.random() < 0.4
    first, second = rng.choice(world.actors), rng.choice([*world.actors, wf.end])
    new_gate, number = random_gate(rng, world.bools), rng.randrange(1000)
    match rng.randint(0, 5 if surgery else 2):
        case 3:
            return lambda: first >> second
        case 4:
            return lambda: unlink_some(wf, number)
        case 5:
            return lambda: setattr(first, "gate_block", new_gate)
        case 2:
            return lambda: None
        case _:
            return lambda: gate.set(value)


def unlink_some(wf: Workflow, number: int) -> None:
    """Remove the control link of this number, counted round and round."""
    links = list(wf.graph.edges)
    if links:
        wf.unlink(*links[number % len(links)])


def interpret(wf: Workflow, most_hops: int = 2000) -> str:
    """Run a workflow as the rules say, naively; return how it ended.

    This is the judge of the run loop: slow, without a plan, reading the graph anew for each hop.
    """
    graph = wf.graph
    under_way: list[Unit] = [wf.start]
    resting: list[Unit] = []
    came: defaultdict[Unit, set[Unit]] = defaultdict(set)

    def send(unit: Unit) -> None:
        (resting if unit.is_boundary else under_way).append(unit)

    def pass_gates(unit: Unit) -> bool:
        if unit.gate_block:
            return False
        if not unit.gate_skip:
            unit.run()
        return True

    def forget_unlinked() -> None:
        for unit in graph:
            needed = set(graph.predecessors(unit))
            came[unit] &= needed
            if came[unit] and came[unit] == needed and not unit.ignores_gate:
                came[unit].clear()
                send(unit)

    for _ in range(most_hops):
        if not under_way and not resting:
            return "stalled"
        unit = (under_way or resting).pop(0)
        if not pass_gates(unit):
            continue
        if unit is wf.end:
            return "finished"
        forget_unlinked()
        for follower in graph.successors(unit):
            came[follower].add(unit)
            if follower.ignores_gate or came[follower] == set(graph.predecessors(follower)):
                came[follower].clear()
                send(follower)
    return "endless"


def ending(run: Callable[[], object]) -> str:
    """Call ``run`` and say how it ended."""
    try:
        outcome = run()
    except StalledError:
        return "stalled"
    except EnoughError:
        return "enough"
    return outcome.value if isinstance(outcome, Outcome) else str(outcome)
