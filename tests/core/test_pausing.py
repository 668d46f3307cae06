"""Pausing, saving and restoring: where control may rest, and that it goes on as if it never had."""

from __future__ import annotations

import json
import signal
import threading

import pytest
from actors import Actor, Loop, after, cast, chain, played, stage
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import ending, interpret, make_world

from veloflow.core import Bool, Flow, Outcome, Repeater, Workflow
from veloflow.errors import CheckpointError


def spinning(*, rounds: int, body: str = "a b") -> Workflow:
    """Return start >> loop >> body … >> loop, ready to run; the end after so many rounds."""
    wf = stage()
    actors = cast(wf, body)
    loop = Loop(wf, "loop")
    chain(wf.start, loop, *actors, loop)
    actors[-1] >> wf.end
    done = Bool()
    loop.gate_block, wf.end.gate_block = done, ~done
    after(actors[-1], rounds, lambda: done.set(True))
    wf.set_up()
    wf.flow.start()
    return wf


def test_a_pause_waits_for_the_boundary_and_running_goes_on_behind_it():
    wf = spinning(rounds=3)
    after(wf["a"], 2, wf.flow.request_pause)
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == "loop a b loop a b"
    assert wf.flow.state() == {"queue": ["loop"], "arrived": {}}
    assert wf.flow.run() is Outcome.FINISHED
    assert played(wf) == "loop a b"


def test_a_pause_asked_for_before_the_run_comes_at_the_first_boundary():
    wf = spinning(rounds=1)
    wf.flow.request_pause()
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == ""
    assert wf.flow.run() is Outcome.FINISHED
    assert played(wf) == "loop a b"


def test_asking_twice_is_asking_once():
    wf = spinning(rounds=2)
    after(wf["a"], 1, wf.flow.request_pause)
    after(wf["b"], 1, wf.flow.request_pause)
    assert wf.flow.run() is Outcome.PAUSED
    assert wf.flow.run() is Outcome.FINISHED


def test_each_pause_needs_asking_and_each_round_can_be_paused():
    wf = spinning(rounds=4)
    wf["a"].act = wf.flow.request_pause
    outcomes = [wf.flow.run() for _ in range(4)]
    assert outcomes == [Outcome.PAUSED] * 3 + [Outcome.FINISHED]
    assert played(wf) == "loop a b " * 3 + "loop a b"


def test_a_run_that_ends_first_is_finished_and_leaves_no_pause_behind():
    wf = spinning(rounds=1)
    after(wf["a"], 1, wf.flow.request_pause)
    assert wf.flow.run() is Outcome.FINISHED
    wf.flow.start()
    wf["loop"].gate_block = False
    after(wf["b"], 2, lambda: wf.end.gate_block.operands[0].set(True))
    assert wf.flow.run() is Outcome.FINISHED


def test_a_graph_without_boundaries_runs_to_its_end():
    wf = stage()
    chain(wf.start, *cast(wf, "a b"), wf.end)
    wf.set_up()
    wf.flow.start()
    wf.flow.request_pause()
    assert wf.flow.run() is Outcome.FINISHED


def test_run_of_a_workflow_goes_on_by_itself():
    wf = spinning(rounds=3)
    wf["a"].act = wf.flow.request_pause
    wf.run()
    assert played(wf) == "loop a b loop a b loop a b"


def test_all_side_branches_are_done_when_a_pause_comes():
    wf = stage()
    loop = Loop(wf, "loop")
    a, x, y, z = cast(wf, "a x y z")
    chain(wf.start, loop, a, loop)
    chain(a, x, y, z)
    a >> wf.end
    wf.end.gate_block = True
    after(a, 1, wf.flow.request_pause)
    wf.flow.start()
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == "loop a x y z"


def test_two_loops_pause_when_both_rest():
    wf = stage()
    left, right = Loop(wf, "left"), Loop(wf, "right")
    a, b, c = cast(wf, "a b c")
    wf.start >> left >> a >> left
    wf.start >> right >> b >> c >> right
    c >> wf.end
    wf.end.gate_block = True
    after(b, 2, wf.flow.request_pause)
    wf.flow.start()
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == "left a right b c left a right b c"
    assert wf.flow.state() == {"queue": ["left", "right"], "arrived": {}}


def test_a_closed_repeater_is_no_hindrance_to_a_pause():
    """The gate is read when control goes on; then it stops the signal, as it would have."""
    wf = spinning(rounds=5)
    wf.flow.request_pause()
    assert wf.flow.run() is Outcome.PAUSED
    wf["loop"].gate_block = Bool(True)
    wf.flow.request_pause()
    assert wf.flow.run() is Outcome.PAUSED
    wf["loop"].gate_block = Bool(False)
    after(wf["a"], 1, wf.flow.request_pause)
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == "loop a b"


def test_a_gate_that_is_replaced_while_a_pause_is_awaited():
    """The plan is made anew, and the request is not forgotten."""
    wf = spinning(rounds=3)

    def act() -> None:
        wf.flow.request_pause()
        wf["loop"].gate_skip = Bool(True)

    after(wf["a"], 1, act)
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == "loop a b"


# -- asked for from elsewhere ---------------------------------------------------------------------


def test_a_pause_from_another_thread():
    wf = spinning(rounds=1_000_000)
    started = threading.Event()
    after(wf["a"], 10, started.set)

    def ask() -> None:
        started.wait()
        wf.flow.request_pause()

    thread = threading.Thread(target=ask)
    thread.start()
    assert wf.flow.run() is Outcome.PAUSED
    thread.join()
    assert wf.flow.state()["queue"] == ["loop"]
    assert wf["b"].runs < 1_000_000


def test_a_pause_from_a_signal_handler():
    wf = spinning(rounds=1000)
    before = signal.signal(signal.SIGUSR1, lambda *_: wf.flow.request_pause())
    try:
        after(wf["a"], 5, lambda: signal.raise_signal(signal.SIGUSR1))
        assert wf.flow.run() is Outcome.PAUSED
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert wf["b"].runs == 5


def test_requests_that_rain_down_lose_no_signal():
    """Asked at any moment, also while a pause ends or the plan is rebuilt: control goes on."""
    wf = spinning(rounds=3000)
    wf["b"].act = lambda: wf.changed()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            wf.flow.request_pause()

    thread = threading.Thread(target=ask)
    thread.start()
    pauses = 0
    try:
        while wf.flow.run() is Outcome.PAUSED:
            pauses += 1
            assert wf.flow.state()["queue"] == ["loop"]
    finally:
        stop.set()
        thread.join()
    assert pauses > 0
    assert played(wf) == "loop a b " * 2999 + "loop a b"


class _AskedMeanwhile(dict):
    """The steps of a flow; asks for a pause while somebody goes over them."""

    def __init__(self, steps, flow):
        super().__init__(steps)
        self.flow, self.asking = flow, True

    def items(self):
        """Yield the first step, then ask, then the others."""
        for number, pair in enumerate(super().items()):
            if number == len(self) // 2 and self.asking:
                self.asking = False
                self.flow.request_pause()
            yield pair


def test_a_request_in_the_middle_of_the_end_of_a_pause():
    """A signal handler may strike between any two lines: then there is one more pause at most."""
    wf = spinning(rounds=2)
    after(wf["a"], 1, wf.flow.request_pause)
    wf.flow._steps = _AskedMeanwhile(wf.flow._steps, wf.flow)
    outcomes = [wf.flow.run()]
    while outcomes[-1] is Outcome.PAUSED:
        outcomes.append(wf.flow.run())
    assert outcomes == [Outcome.PAUSED, Outcome.PAUSED, Outcome.FINISHED]
    assert played(wf) == "loop a b loop a b"


# -- state and restore ----------------------------------------------------------------------------


def half_joined() -> Workflow:
    """Return a workflow whose join has got one of its two signals when the loop comes round."""
    wf = stage()
    loop = Loop(wf, "loop")
    a, b, join = cast(wf, "a b join")
    chain(wf.start, loop, a, loop)
    a >> join
    chain(a, b, join, wf.end)
    b.gate_block = once = Bool(True)
    after(a, 2, lambda: once.set(False))
    wf.set_up()
    wf.flow.start()
    return wf


def test_the_state_tells_who_has_come_to_a_join():
    wf = half_joined()
    after(wf["loop"], 1, wf.flow.request_pause)
    wf.flow.run()
    assert wf.flow.state() == {"queue": ["loop"], "arrived": {"join": ["a"]}}


def test_a_restored_flow_goes_on_with_half_a_join():
    wf = half_joined()
    after(wf["loop"], 1, wf.flow.request_pause)
    wf.flow.run()
    saved = json.dumps(wf.flow.state())

    fresh = half_joined()
    fresh["a"].runs = 1
    fresh.flow.restore(json.loads(saved))
    for unit in fresh["a"], fresh["b"]:  # a never fires again, and need not
        unit.unlink_before()
    fresh["loop"] >> fresh["b"]
    fresh["b"].gate_block = False
    assert fresh.flow.run() is Outcome.FINISHED
    assert played(fresh) == "loop b join"


def test_restoring_forgets_what_was_before():
    wf = half_joined()
    after(wf["loop"], 1, wf.flow.request_pause)
    wf.flow.run()
    wf.flow.restore({"queue": ["loop"], "arrived": {}})
    assert wf.flow.state() == {"queue": ["loop"], "arrived": {}}


def test_restoring_knows_units_that_came_after_the_plan_was_made():
    wf = spinning(rounds=1)
    late = Actor(wf, "late").insert_after(wf["a"])
    wf.flow.restore({"queue": ["late"], "arrived": {}})
    wf.flow.run()
    assert played(wf).startswith(late.name)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"queue": ["lop"], "arrived": {}}, "names a unit 'lop' that is not here"),
        ({"queue": [], "arrived": {"joint": ["a"]}}, "names a unit 'joint' that is not here"),
        ({"queue": [], "arrived": {"join": ["c"]}}, "names a unit 'c' that is not here"),
        ({"queue": [], "arrived": {"join": ["loop"]}}, "'join' waits after loop, but the links"),
        ({"queue": [], "arrived": {"join": ["a", "b"]}}, "'join' waits after .*, but the links"),
        ({"queue": [], "arrived": {"a": ["loop"]}}, "'a' waits after loop, but the links"),
    ],
)
def test_the_state_of_another_workflow_is_refused_and_changes_nothing(state, message):
    wf = half_joined()
    before = wf.flow.state()
    with pytest.raises(CheckpointError, match=message) as caught:
        wf.flow.restore(state)
    assert "\n" not in str(caught.value)
    assert wf.flow.state() == before


# -- the same as never interrupted ----------------------------------------------------------------

WORLDS = st.integers(0, 2**32)
MOMENTS = st.sets(st.integers(1, 100), min_size=1, max_size=6)


def uninterrupted(seed: int, *, surgery: bool = False) -> tuple[str, list[str]]:
    """Return how the world of a seed ends and what runs in it when nobody interrupts it."""
    world = make_world(seed, surgery=surgery)
    end = ending(lambda: interpret(world.workflow))
    assume(end != "endless")
    return end, world.trace


def boundaries_only(flow: Flow, wf: Workflow) -> bool:
    """Return whether all control rests at boundaries."""
    return all(wf[name].is_boundary for name in flow.state()["queue"])


@pytest.mark.slow
@given(WORLDS, MOMENTS)
@settings(max_examples=300, deadline=None)
def test_pausing_and_going_on_changes_nothing(seed, moments):
    expected = uninterrupted(seed, surgery=True)
    world = make_world(seed, surgery=True)
    flow = world.workflow.flow
    world.before_run = lambda number: number in moments and flow.request_pause()
    flow.start()
    while (end := ending(flow.run)) == "paused":
        assert boundaries_only(flow, world.workflow)
    assert (end, world.trace) == expected


@pytest.mark.slow
@given(WORLDS, MOMENTS)
@settings(max_examples=300, deadline=None)
def test_saving_and_restoring_into_a_new_workflow_changes_nothing(seed, moments):
    expected = uninterrupted(seed)
    world = make_world(seed)
    world.workflow.flow.start()
    for moment in (*sorted(moments), None):
        flow = world.workflow.flow
        world.before_run = lambda number, at=moment, flow=flow: (
            number == at and flow.request_pause()
        )
        end = ending(flow.run)
        if end != "paused":
            break
        assert boundaries_only(flow, world.workflow)
        fresh = make_world(seed)
        fresh.copy_from(world)
        fresh.workflow.flow.restore(json.loads(json.dumps(flow.state())))
        world = fresh
    assert (end, world.trace) == expected


def test_the_random_worlds_do_get_paused():
    """Else the two tests above would say nothing."""
    paused = 0
    for seed in range(100):
        judge, world = make_world(seed), make_world(seed)
        flow = world.workflow.flow
        world.before_run = lambda number, flow=flow: flow.request_pause()
        flow.start()
        is_endless = ending(lambda wf=judge.workflow: interpret(wf)) == "endless"
        paused += not is_endless and ending(flow.run) == "paused"
    assert paused > 20


def test_a_repeater_is_where_a_pause_may_come():
    assert Repeater.is_boundary
    assert Repeater.ignores_gate
    assert not Actor.is_boundary
