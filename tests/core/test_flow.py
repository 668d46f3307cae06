"""Control links and gates: what runs after what, and what becomes of a unit's exception."""

from __future__ import annotations

import pytest
from actors import Actor, Either, Loop, Trace, after, cast, chain, play, played, stage, together

from veloflow.core import Bool, Flow, Outcome, Repeater, Workflow
from veloflow.errors import NumericsError, StalledError, UnitError


@pytest.fixture
def wf() -> Workflow:
    """An empty workflow whose units write down when they run."""
    return stage()


def looping(wf, body, *, rounds):
    """Link start >> repeater >> body … >> repeater, the end after the last; stop after rounds."""
    done = Bool()
    chain(wf.start, repeater := Repeater(wf), *body, repeater)
    after(body[-1], rounds, lambda: done.set(True))
    repeater.gate_block = done
    body[-1] >> wf.end
    wf.end.gate_block = ~done
    return done


# -- links ----------------------------------------------------------------------------------------


def test_a_chain_runs_in_the_order_of_its_links(wf):
    c, a, b = cast(wf, "c a b")
    wf.start >> a >> b >> c >> wf.end
    assert play(wf) == "a b c"


def test_a_join_waits_for_all_and_a_fan_out_goes_in_the_order_of_linking(wf):
    a, b, c, join = cast(wf, "a b c join")
    wf.start >> b >> join
    wf.start >> a >> c >> join
    join >> wf.end
    assert play(wf) == "b a c join"


def test_link_from_is_the_other_way_to_say_it(wf):
    a, b, join = cast(wf, "a b join")
    a.link_from(wf.start)
    b.link_from(wf.start)
    assert join.link_from(a, b) is join
    wf.end.link_from(join)
    assert play(wf) == "a b join"


def test_linking_twice_is_linking_once(wf):
    a, b = cast(wf, "a b")
    wf.start >> a >> b >> wf.end
    a >> b
    assert play(wf) == "a b"


def test_a_unit_that_ignores_its_gate_runs_for_each_signal(wf):
    a, b, last = cast(wf, "a b last")
    either = Either(wf, "either")
    wf.start >> a >> either
    wf.start >> b >> either
    either >> last >> wf.end
    assert play(wf) == "a b either either last last"


def test_a_join_needs_both_again_in_the_next_round(wf):
    """After it has run, a signal from one side is not enough: the sides take turns."""
    fork, left, right, join = cast(wf, "fork left right join")
    looping(wf, [fork, join], rounds=2)
    wf.unlink(fork, join)
    fork >> left >> join
    fork >> right >> join
    right.gate_block = skipping = Bool()
    after(fork, 2, lambda: skipping.set(True))
    with pytest.raises(StalledError, match=r"waiting: join \(for right\)"):
        play(wf)
    assert played(wf) == "fork left right join fork left"


def test_a_loop_runs_until_the_decision_opens_the_end(wf):
    a, b = cast(wf, "a b")
    looping(wf, [a, b], rounds=3)
    assert play(wf) == "a b a b a b"


def test_a_side_branch_is_done_before_the_loop_comes_round(wf):
    """However long it is, and though the repeater was linked first."""
    a, b = cast(wf, "a b")
    side = cast(wf, "x y z")
    looping(wf, [a, b], rounds=2)
    chain(b, *side)
    wf.end.unlink_before()
    side[-1] >> wf.end
    assert play(wf) == "a b x y z a b x y z"


def test_a_side_branch_that_is_longer_than_the_rest_of_the_loop(wf):
    a, b, x, y, z = cast(wf, "a b x y z")
    repeater = Repeater(wf)
    chain(wf.start, repeater, a, b, repeater)
    chain(a, x, y, z, wf.end)
    wf.end.gate_block = True
    after(z, 2, lambda: wf.end.gate_block.set(False))
    assert play(wf) == "a b x y z a b x y z"


def test_two_loops_take_turns(wf):
    """One rests at its repeater while the other goes round."""
    left, right = Loop(wf, "L"), Loop(wf, "R")
    a, b, c = cast(wf, "a b c")
    wf.start >> left >> a >> left
    wf.start >> right >> b >> c >> right
    c >> wf.end
    after(c, 3, lambda: wf.end.gate_block.set(False))
    wf.end.gate_block = True
    assert play(wf) == "L a R b c L a R b c L a R b c"


def test_the_end_finishes_the_run_whatever_else_is_under_way(wf):
    a, b = cast(wf, "a b")
    wf.start >> a >> wf.end
    a >> b
    assert play(wf) == "a"
    with pytest.raises(StalledError, match="was not started"):
        wf.flow.run()
    wf.flow.start()
    assert wf.flow.run() is Outcome.FINISHED
    assert played(wf) == "a"


def test_starting_again_forgets_half_a_join(wf):
    a, b, join = cast(wf, "a b join")
    chain(wf.start, a, join, wf.end)
    chain(wf.start, b, join)
    b.gate_block = closed = Bool(True)
    with pytest.raises(StalledError):
        play(wf)
    assert played(wf) == "a"
    closed.set(False)
    a.gate_block = True
    wf.flow.start()
    with pytest.raises(StalledError, match=r"join \(for a\)"):
        wf.flow.run()
    assert played(wf) == "b"


# -- gates ----------------------------------------------------------------------------------------


def test_gate_skip_passes_the_signal_and_gate_block_stops_it(wf):
    a, skipped, b, blocked, c = cast(wf, "a skipped b blocked c")
    chain(wf.start, a, skipped, b, wf.end)
    chain(a, blocked, c)
    skipped.gate_skip = True
    blocked.gate_block = True
    assert play(wf) == "a b"


def test_block_wins_over_skip(wf):
    a, b = cast(wf, "a b")
    chain(wf.start, a, b, wf.end)
    b.gate_block = b.gate_skip = True
    with pytest.raises(StalledError):
        play(wf)


def test_one_gate_may_serve_many_units(wf):
    a, b, c = cast(wf, "a b c")
    chain(wf.start, a, b, c, wf.end)
    a.gate_skip = c.gate_skip = gate = Bool(True)
    assert play(wf) == "b"
    gate.set(False)
    assert play(wf) == "a b c"


@pytest.mark.parametrize("side", [False, True], ids=["alone", "with a fan-out"])
@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_gate_is_read_when_the_signal_arrives(wf, hops, side):
    """Not when it is sent: a sibling that runs before may still open the gate.

    So it is whatever the plan looks like: one follower or two, signals waiting or not.
    """
    opener, gated = cast(wf, "opener gated")
    wf.start >> opener
    chain(wf.start, *cast(wf, "p q"[: 2 * hops]), gated, wf.end)
    if side:
        chain(*wf.predecessors(gated), Actor(wf, "side"))
    gated.gate_block = gate = Bool(True)
    after(opener, 1, lambda: gate.set(False))
    assert "gated" in play(wf)


def test_a_gate_may_be_replaced_between_runs(wf):
    a, b = cast(wf, "a b")
    chain(wf.start, a, b, wf.end)
    assert play(wf) == "a b"
    a.gate_skip = Bool(True)
    assert play(wf) == "b"
    a.gate_skip = False
    assert play(wf) == "a b"


def test_a_closed_gate_swallows_the_signals_of_a_join(wf):
    """What came while the gate was closed is gone: the join starts anew."""
    fork, a, b, join = cast(wf, "fork a b join")
    looping(wf, [fork, Actor(wf, "last")], rounds=2)
    chain(fork, a, join)
    chain(fork, b, join)
    join.gate_block, b.gate_block = (closed := Bool(True)), (missing := Bool())
    after(fork, 2, together(lambda: closed.set(False), lambda: missing.set(True)))
    assert play(wf) == "fork last a b fork last a"


def test_a_skipped_unit_does_not_count_as_run(wf):
    a, b = cast(wf, "a b")
    chain(wf.start, a, b, wf.end)
    a.gate_skip = True
    play(wf)
    runs = {path: time.runs for path, time in wf.times().items()}
    assert runs == {"start": 1, "a": 0, "b": 1, "end": 1}


# -- what is the same every time ------------------------------------------------------------------


def test_the_order_is_the_same_in_every_run(wf):
    """Nothing of it hangs on addresses or hashes: a thousand units, joined at random."""

    def build() -> Workflow:
        other = stage()
        units = cast(other, " ".join(f"u{number}" for number in range(100)))
        for number, unit in enumerate(units):
            for step in (1, 7, 31):
                units[number - step if number >= step else 0] >> unit if number else None
        other.start >> units[0]
        units[-1] >> other.end
        return other

    first, *others = [play(build()) for _ in range(5)]
    assert len(first.split()) == 100
    assert others == [first] * 4


# -- times ----------------------------------------------------------------------------------------


class Clock:
    """A clock that the test moves."""

    now = 0

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1e9)


def test_times_tell_runs_and_seconds(wf):
    clock = wf.clock = Clock()
    slow, quick = Actor(wf, "slow", act=lambda: clock.move(2)), Actor(wf, "quick")
    looping(wf, [slow, quick], rounds=3)
    play(wf)
    assert wf.times()["slow"].runs == wf.times()["quick"].runs == 3
    assert wf.times()["slow"].seconds == 6
    assert wf.times()["quick"].seconds == 0


def test_times_of_a_pause_are_nobodys(wf):
    clock = wf.clock = Clock()
    slow, last = Actor(wf, "slow", act=lambda: clock.move(1)), Actor(wf, "last")
    looping(wf, [slow, last], rounds=2)
    wf.set_up()
    wf.flow.start()
    after(slow, 1, wf.flow.request_pause)
    assert wf.flow.run() is Outcome.PAUSED
    clock.move(100)
    assert wf.flow.run() is Outcome.FINISHED
    assert sum(time.seconds for time in wf.times().values()) == 2


# -- nested workflows -----------------------------------------------------------------------------


def test_a_nested_workflow_runs_as_one_unit_again_and_again(wf):
    inner = Workflow(wf, name="inner")
    chain(inner.start, *cast(inner, "x y"), inner.end)
    a, b = cast(wf, "a b")
    chain(wf.start, Repeater(wf), a, inner, b, wf["Repeater"])
    b >> wf.end
    wf.end.gate_block = done = Bool()
    done.set(True)
    after(b, 2, lambda: done.set(False))
    assert play(wf) == "a x y b a x y b"
    runs = {path: time.runs for path, time in wf.times().items()}
    assert runs["inner"] == runs["inner/x"] == runs["inner/start"] == 2


def test_a_nested_workflow_takes_the_time_of_its_units(wf):
    clock = wf.clock = Clock()
    inner = Workflow(wf, name="inner")
    innermost = Workflow(inner, name="innermost")
    chain(wf.start, inner, wf.end)
    chain(inner.start, innermost, Actor(inner, "y", act=lambda: clock.move(1)), inner.end)
    chain(innermost.start, Actor(innermost, "x", act=lambda: clock.move(2)), innermost.end)
    assert play(wf) == "x y"
    seconds = {path: time.seconds for path, time in wf.times().items() if time.seconds}
    assert seconds == {
        "inner": 3,
        "inner/y": 1,
        "inner/innermost": 2,
        "inner/innermost/x": 2,
    }


def test_a_nested_loop_is_not_paused_with_the_outer_one(wf):
    """The outer flow pauses at its own repeater; what is nested runs whole."""
    inner = Workflow(wf, name="inner")
    looping(inner, [Actor(inner, "x")], rounds=3)
    chain(wf.start, Repeater(wf), inner, Actor(wf, "a"), wf["Repeater"])
    wf["a"] >> wf.end
    wf.end.gate_block = True
    after(inner["x"], 1, lambda: wf.flow.request_pause())
    after(inner["x"], 2, lambda: inner.flow.request_pause())
    wf.set_up()
    wf.flow.start()
    assert wf.flow.run() is Outcome.PAUSED
    assert played(wf) == "x x x a"


def test_the_exception_of_a_nested_unit_names_it_by_its_path(wf):
    inner = Workflow(wf, name="inner")
    chain(inner.start, Actor(inner, "x", act=lambda: 1 / 0), inner.end)
    chain(wf.start, inner, wf.end)
    with pytest.raises(UnitError, match=r"^unit 'inner/x': ZeroDivisionError: ") as caught:
        play(wf)
    assert caught.value.unit == "inner/x"


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_units_exception_names_the_unit_and_is_kept_as_the_cause(wf):
    broken = Actor(wf, "broken", act=lambda: [][1])
    chain(wf.start, broken, wf.end)
    with pytest.raises(UnitError) as caught:
        play(wf)
    assert str(caught.value) == "unit 'broken': IndexError: list index out of range"
    assert caught.value.unit == "broken"
    assert isinstance(caught.value.__cause__, IndexError)


def test_an_exception_without_a_message_still_says_something(wf):
    def fail() -> None:
        raise RuntimeError

    chain(wf.start, Actor(wf, "broken", act=fail), wf.end)
    with pytest.raises(UnitError, match=r"^unit 'broken': RuntimeError: no message$"):
        play(wf)


@pytest.mark.parametrize("after_hops", [0, 3])
def test_the_unit_that_failed_is_named_wherever_it_stands(wf, after_hops):
    before, behind = cast(wf, "p q r"[: 2 * after_hops]), cast(wf, "s t")
    broken = Actor(wf, "broken", act=lambda: int("x"))
    chain(wf.start, *before, broken, *behind, wf.end)
    wf.start >> Actor(wf, "side")
    with pytest.raises(UnitError, match="unit 'broken'"):
        play(wf)


def test_our_own_errors_pass_unchanged(wf):
    error = NumericsError("the loss is NaN")

    def fail() -> None:
        raise error

    chain(wf.start, Actor(wf, "a", act=fail), wf.end)
    with pytest.raises(NumericsError) as caught:
        play(wf)
    assert caught.value is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_failure_passes(wf, kind):
    def stop() -> None:
        raise kind

    chain(wf.start, Actor(wf, "a", act=stop), wf.end)
    with pytest.raises(kind):
        play(wf)


def test_a_run_that_stalls_tells_the_whole_story(wf):
    fork, a, b, join = cast(wf, "fork a b join")
    chain(wf.start, fork, a, join, wf.end)
    chain(fork, b, join)
    b.gate_block = True
    with pytest.raises(StalledError) as caught:
        play(wf)
    assert str(caught.value) == (
        "control stopped at unit 'b' and the end was not reached; "
        "closed by gate_block: b; waiting: join (for b)"
    )


def test_the_story_of_a_stall_without_gates(wf):
    a, b = cast(wf, "a b")
    chain(wf.start, a, b, wf.end)
    after(a, 1, lambda: b.unlink_all())
    with pytest.raises(StalledError) as caught:
        play(wf)
    assert str(caught.value) == (
        "control stopped at unit 'a' and the end was not reached; closed by gate_block: none"
    )


def test_the_story_of_a_stall_is_short_however_large_the_graph(wf):
    units = cast(wf, " ".join(f"u{number}" for number in range(1000)))
    chain(wf.start, *units, wf.end)
    for unit in units:
        unit.gate_block = True
    with pytest.raises(StalledError, match=r"closed by gate_block: u0, u1, u2, u3, u4, …$"):
        play(wf)


def test_a_flow_that_was_not_started_says_so(wf):
    chain(wf.start, Actor(wf, "a"), wf.end)
    wf.set_up()
    with pytest.raises(StalledError, match="workflow 'workflow' was not started"):
        wf.flow.run()


def test_running_without_a_clock_counts_runs_only(wf):
    chain(wf.start, Actor(wf, "a"), wf.end)
    wf.set_up()
    wf.run()
    assert wf.times()["a"].runs == 1
    assert wf.times()["a"].seconds == 0


def test_a_flow_can_be_made_by_hand(wf):
    """What the benchmark and the interpreter's tests lean on: a flow needs no set_up()."""
    a = Actor(wf, "a", act=together(lambda: None))
    chain(wf.start, a, wf.end)
    flow = Flow(wf, lambda: 0)
    flow.start()
    assert flow.run() is Outcome.FINISHED
    assert wf.find_service(Trace) == ["a"]
