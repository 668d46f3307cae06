"""Rounds: a slave's loop goes round once for each job, and rests at the repeater between."""

from __future__ import annotations

import pytest
from actors import Actor, Gathering, Loop, after, cast, chain, played, stage

from veloflow.core import Bool, Outcome
from veloflow.errors import StalledError, UnitError


def looping(body="a b", *, role="alone"):
    """Return start >> first >> loop >> body … >> loop, resting at the loop."""
    wf = stage()
    wf.role = role
    first, loop = Actor(wf, "first"), Loop(wf, "loop")
    actors = cast(wf, body)
    chain(wf.start, first, loop, *actors, loop)
    actors[-1] >> wf.end
    wf.end.gate_block = Bool(True)
    wf.set_up()
    rest(wf)
    return wf


def rest(wf):
    """Start a workflow and let it come to rest."""
    wf.flow.start()
    wf.flow.request_pause()
    assert wf.flow.run() is Outcome.PAUSED


def test_a_round_goes_from_the_repeater_to_the_repeater():
    wf = looping()
    assert played(wf) == "first"
    for _ in range(3):
        assert wf.flow.run_round() is Outcome.PAUSED
        assert played(wf) == "loop a b"
        assert wf.flow.state() == {"queue": ["loop"], "arrived": {}}


def test_rounds_are_a_run_cut_into_pieces():
    wf = looping()
    after(wf["b"], 5, lambda: wf.end.gate_block.set(False))
    for _ in range(3):
        wf.flow.run_round()
    assert wf.flow.run() is Outcome.FINISHED
    assert played(wf) == "first" + " loop a b" * 5


def test_a_round_may_reach_the_end():
    wf = looping()
    after(wf["b"], 2, lambda: wf.end.gate_block.set(False))
    assert [wf.flow.run_round(), wf.flow.run_round()] == [Outcome.PAUSED, Outcome.FINISHED]
    with pytest.raises(StalledError, match="rests at no repeater"):
        wf.flow.run_round()
    wf.end.gate_block.set(True)
    rest(wf)
    assert wf.flow.run_round() is Outcome.PAUSED
    assert played(wf) == "first loop a b loop a b first loop a b"


def test_side_branches_are_done_before_a_round_ends():
    wf = looping()
    side, far = cast(wf, "side far")
    chain(wf["a"], side, far)
    for _ in range(2):
        wf.flow.run_round()
    assert played(wf) == "first" + " loop a b side far" * 2


def test_a_skipped_repeater_is_passed():
    wf = looping()
    wf["loop"].gate_skip = Bool(True)
    wf.flow.run_round()
    assert played(wf) == "first a b"


def test_gates_are_read_in_a_round():
    wf = looping()
    wf["a"].gate_skip = skip = Bool(True)
    wf.flow.run_round()
    skip.set(False)
    wf.flow.run_round()
    assert played(wf) == "first loop b loop a b"


def test_units_are_counted_in_rounds():
    wf = looping()
    for _ in range(3):
        wf.flow.run_round()
    assert {name: spent.runs for name, spent in wf.times().items()} == {
        "start": 1, "first": 1, "loop": 3, "a": 3, "b": 3, "end": 0,
    }  # fmt: skip


def test_a_changed_graph_is_seen_by_the_next_round():
    wf = looping()
    wf.flow.run_round()
    Actor(wf, "new").insert_after(wf["a"])
    wf.flow.run_round()
    assert played(wf) == "first loop a b loop a new b"


def test_of_several_repeaters_one_is_left_in_a_round():
    wf = stage()
    loops = cast(wf, "x y", Loop)
    a, b = cast(wf, "a b")
    for loop, body in zip(loops, (a, b), strict=True):
        chain(wf.start, loop, body, loop)
    wf.end.link_from(a)
    wf.end.gate_block = Bool(True)
    wf.set_up()
    rest(wf)
    for _ in range(4):
        wf.flow.run_round()
    assert played(wf) == "x a y b x a y b"


def test_nothing_runs_without_a_start():
    wf = looping()
    wf.flow.start()
    with pytest.raises(StalledError, match="rests at no repeater"):
        wf.flow.run_round()


def test_a_unit_that_raises_is_named_and_a_new_start_cures_it():
    wf = looping()
    after(wf["b"], 2, lambda: 1 / 0)
    wf.flow.run_round()
    with pytest.raises(UnitError, match=r"b.*ZeroDivisionError"):
        wf.flow.run_round()
    with pytest.raises(StalledError):
        wf.flow.run_round()
    rest(wf)
    assert wf.flow.run_round() is Outcome.PAUSED
    assert played(wf) == "first loop a b loop a b first loop a b"


def test_a_boundary_that_gathers_waits_for_all():
    wf = stage()
    gather = Gathering(wf, "gather")
    loop = Loop(wf, "loop")
    a, b = cast(wf, "a b")
    chain(wf.start, loop)
    chain(loop, a, gather)
    chain(loop, b, gather)
    gather >> loop
    gather >> wf.end
    wf.end.gate_block = Bool(True)
    wf.set_up()
    rest(wf)
    stories = []
    for _ in range(4):
        wf.flow.run_round()
        stories.append(played(wf))
    assert stories == ["loop a b", "gather", "loop a b", "gather"]
