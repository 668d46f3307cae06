"""What is drawn downwards, upwards and abreast."""

from __future__ import annotations

from pictures import Part, training

from veloflow.core import Repeater, Workflow
from veloflow.views.arrangement import Arrangement


def names(links):
    return {(a.name, b.name) for a, b in links}


def test_backward_pass_runs_up_beside_the_forward_pass():
    wf = training(2)
    found = Arrangement(wf)
    assert names(found.upward) == {
        ("decision", "gd layer 1"),
        ("gd layer 1", "gd layer 0"),
        ("gd layer 0", "Repeater"),
    }
    assert names(found.abreast) == {("layer 0", "gd layer 0"), ("layer 1", "gd layer 1")}
    for number in range(2):
        assert found.row(wf[f"layer {number}"]) == found.row(wf[f"gd layer {number}"])
    rows = [found.row(wf[name]) for name in ("start", "Repeater", "loader", "layer 0", "evaluator")]
    assert rows == sorted(set(rows))


def test_loop_without_trainers_runs_down_and_closes_upwards():
    wf = Workflow(name="loop")
    repeater, a, b = Repeater(wf), Part(wf, name="a"), Part(wf, name="b")
    wf.start >> repeater >> a >> b >> repeater
    b >> wf.end
    found = Arrangement(wf)
    assert names(found.upward) == {("b", "Repeater")}
    assert found.abreast == []
    assert found.row(a) < found.row(b)


def test_what_runs_after_the_trainers_runs_up_too():
    wf = training(1)
    saver = Part(wf, name="saver").insert_after(wf["gd layer 0"])
    found = Arrangement(wf)
    assert (wf["gd layer 0"], saver) in found.upward
    assert (saver, wf["Repeater"]) in found.upward


def test_trainers_that_run_in_the_order_of_the_layers_are_not_abreast():
    wf = training(2)
    first, second = wf["gd layer 1"], wf["gd layer 0"]
    wf.unlink(wf["decision"], first)
    wf.unlink(first, second)
    wf.unlink(second, wf["Repeater"])
    wf["decision"] >> second >> first >> wf["Repeater"]
    found = Arrangement(wf)
    assert found.abreast == []
    assert found.row(first) < found.row(second) < found.row(wf["decision"])


def test_unfinished_workflow_has_an_arrangement():
    wf = Workflow(name="unfinished")
    a, b = Part(wf, name="a"), Part(wf, name="b")
    a >> b >> a
    found = Arrangement(wf)
    assert isinstance(found.row(a), int)
    assert isinstance(found.row(wf.end), int)
