"""What is said about a wrong graph before anything runs: one line, naming the unit and the cure."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from actors import Actor, Either, Loop, cast, chain, stage

from veloflow.core import Input, Repeater, Unit, Workflow
from veloflow.core.checks import data_graph, listed
from veloflow.errors import ControlError, GraphError, LinkError, ShapeError, UnitError


class Array:
    """As much of an array as checks look at."""

    def __init__(self, *shape: int, dtype="float32"):
        self.shape, self.dtype = shape, dtype


class Source(Actor):
    """Gives an array."""

    def __init__(self, workflow, *shape: int, name=None, dtype="float32"):
        super().__init__(workflow, name)
        self.output = Array(*shape, dtype=dtype)


class Layer(Actor):
    """Reads an array, and labels if there are any."""

    input = Input[Array]("batch features")
    labels = Input[Array]("batch", dtype="int32", optional=True)


@pytest.fixture
def wf() -> Workflow:
    """An empty workflow."""
    return stage()


def complaint(act: Callable[[], object], kind: type[GraphError]) -> str:
    """Return the one line in which an error of exactly this kind says what is wrong."""
    with pytest.raises(kind) as caught:
        act()
    assert type(caught.value) is kind
    assert caught.value.exit_code == 2
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- control ------------------------------------------------------------------------------------


def test_a_unit_that_nothing_leads_to(wf):
    a, b, _ = cast(wf, "a b c")
    chain(wf.start, a, wf.end)
    b >> a
    assert complaint(wf.check, ControlError) == (
        "no control link leads to 'b', 'c'; link them after another unit (a >> b) or take the "
        "unit out"
    )
    a.unlink_from(b)
    wf.remove(b)
    assert complaint(wf.check, ControlError).startswith("no control link leads to 'c'; link it ")


def test_many_lost_units_are_not_all_named(wf):
    cast(wf, "a b c d e f g")
    wf.start >> wf.end
    assert "to 'a', 'b', 'c', 'd', 'e', …; link them" in complaint(wf.check, ControlError)


def test_an_end_that_is_never_reached(wf):
    wf.start >> Actor(wf, "a")
    assert complaint(wf.check, ControlError) == (
        "the end of workflow 'workflow' is never reached; link the unit that decides when the "
        "work is done to it: decision >> wf.end"
    )


def test_an_empty_workflow_does_not_reach_its_end(wf):
    assert "is never reached" in complaint(wf.check, ControlError)


def test_a_loop_without_a_repeater(wf):
    a, b, c = cast(wf, "a b c")
    chain(wf.start, a, b, c, wf.end)
    c >> b
    assert complaint(wf.check, ControlError) == (
        "the loop b >> c >> b has no repeater, so each of its units waits for another; put a "
        "Repeater at its entry: start >> repeater >> … >> repeater"
    )
    wf.unlink(c, b)
    wf.check()


def test_a_unit_linked_to_itself(wf):
    a = Actor(wf, "a")
    chain(wf.start, a, a, wf.end)
    assert "the loop a >> a has no repeater" in complaint(wf.check, ControlError)


def test_a_long_loop_is_not_spelled_out(wf):
    units = cast(wf, " ".join(f"u{number}" for number in range(1000)))
    chain(wf.start, *units, units[0])
    units[0] >> wf.end
    assert "the loop u0 >> u1 >> u2 >> u3 >> u4 >> … >> u0 has" in complaint(wf.check, ControlError)


@pytest.mark.parametrize("kind", [Loop, Either])
def test_a_loop_with_a_unit_that_ignores_its_gate_is_fine(wf, kind):
    a = Actor(wf, "a")
    loop = kind(wf, "loop")
    chain(wf.start, loop, a, loop)
    a >> wf.end
    wf.check()


def test_a_loop_beside_a_good_one_is_found(wf):
    a, b, c = cast(wf, "a b c")
    chain(wf.start, Repeater(wf), a, wf["Repeater"])
    chain(a, b, c, b)
    c >> wf.end
    assert "the loop b >> c >> b has" in complaint(wf.check, ControlError)


def test_back_to_the_start_is_a_loop_too(wf):
    a = Actor(wf, "a")
    chain(wf.start, a, wf.end)
    a >> wf.start
    assert "the loop start >> a >> start has" in complaint(wf.check, ControlError)


def test_nothing_comes_after_the_end(wf):
    assert complaint(lambda: wf.end >> Actor(wf, "a"), ControlError) == (
        "cannot link 'end' to 'a': nothing runs after the end; link it after a unit that runs "
        "before the end"
    )


def test_a_unit_of_another_workflow(wf):
    a, stranger = Actor(wf, "a"), Actor(stage(), "stranger")
    for act in (lambda: a >> stranger, lambda: stranger >> a, lambda: wf.link(a, stranger)):
        assert re.fullmatch(
            r"cannot link '(a|stranger)' to '(a|stranger)': '(a|stranger)' is not a unit of "
            r"workflow 'workflow'",
            complaint(act, ControlError),
        )


def test_a_unit_of_a_nested_workflow_is_of_another(wf):
    inner = Workflow(wf, name="inner")
    line = complaint(lambda: wf.start >> Actor(inner, "x"), ControlError)
    assert line == "cannot link 'start' to 'inner/x': 'start' is not a unit of workflow 'inner'"


def test_a_unit_that_has_left(wf):
    a = Actor(wf, "a")
    wf.remove(a)
    assert complaint(lambda: wf.start >> a, ControlError) == (
        "unit 'a' is not part of a workflow any more"
    )


def test_nested_workflows_are_checked_and_named_by_path(wf):
    inner = Workflow(wf, name="inner")
    chain(wf.start, inner, wf.end)
    Actor(inner, "x")
    assert "leads to 'inner/x'" in complaint(wf.check, ControlError)
    inner.start >> inner["x"]
    assert "the end of workflow 'inner' is" in complaint(wf.check, ControlError)
    inner["x"] >> inner.end
    wf.check()


# -- names --------------------------------------------------------------------------------------


def test_a_name_is_given_once(wf):
    Actor(wf, "a")
    assert complaint(lambda: Actor(wf, "a"), GraphError) == (
        "workflow 'workflow' has a unit named 'a' already; give another name"
    )
    assert complaint(lambda: Actor(wf, "start"), GraphError).endswith("give another name")
    assert len(wf) == 3


def test_a_name_with_a_slash_would_look_nested(wf):
    inner = Workflow(wf, name="inner")
    assert Actor(inner, "x").path == "inner/x"
    assert complaint(lambda: Actor(wf, "inner/x"), GraphError) == (
        "a unit cannot be named 'inner/x': '/' stands between nested names"
    )


def test_the_nearest_name_is_offered(wf):
    Actor(wf, "decision")
    assert complaint(lambda: wf["decison"], GraphError) == (
        "workflow 'workflow' has no unit 'decison' (did you mean 'decision'?)"
    )


# -- data links ---------------------------------------------------------------------------------


def wired(wf, *units: Unit) -> Callable[[], object]:
    """Chain the units by control; return what sets the workflow up."""
    chain(wf.start, *units, wf.end)
    return wf.set_up


def test_an_input_that_is_not_linked(wf):
    check = wired(wf, Layer(wf, "fc1")).__self__.check
    assert complaint(check, LinkError) == (
        "unit 'fc1' (Layer): input 'input' is not linked; link it with "
        '.link_data(source, input="attribute of source")'
    )


def test_an_input_that_is_not_there(wf):
    source, layer = Source(wf, 2, 3, name="source"), Layer(wf, "fc1")
    assert complaint(lambda: layer.link_data(source, imput="output"), LinkError) == (
        "unit 'fc1' (Layer) has no input 'imput' (did you mean 'input'?); its inputs: input, labels"
    )
    assert complaint(lambda: source.link_data(layer, "output"), LinkError).endswith("inputs: none")


def test_an_attribute_that_is_not_there(wf):
    source = Source(wf, 2, 3, name="loader")
    layer = Layer(wf, "fc1").link_data(source, input="ouput")
    assert complaint(wired(wf, source, layer), LinkError) == (
        "unit 'loader' (Source) has no attribute 'ouput' to link to (did you mean 'output'?)"
    )


def test_an_attribute_that_nothing_is_like(wf):
    source = Source(wf, 2, 3, name="loader")
    layer = Layer(wf, "fc1").link_data(source, input="xyzzy")
    assert complaint(wired(wf, source, layer), LinkError).endswith("'xyzzy' to link to")


def test_a_property_that_fails_tells_its_own_story(wf):
    class Broken(Actor):
        @property
        def output(self) -> Array:
            return self.not_there_yet

    layer = Layer(wf, "fc1").link_data(Broken(wf, "broken"), input="output")
    with pytest.raises(UnitError, match=r"^unit 'fc1': AttributeError: .*'not_there_yet'"):
        wired(wf, wf["broken"], layer)()


def test_an_input_is_not_assigned(wf):
    layer = Layer(wf, "fc1")
    assert complaint(lambda: setattr(layer, "input", Array(1, 2)), LinkError) == (
        "unit 'fc1': input 'input' is linked, not assigned; use .link_data(source, input=...)"
    )


def test_data_of_another_workflow(wf):
    stranger = Source(stage(), 2, 3, name="stranger")
    layer = Layer(wf, "fc1").link_data(stranger, input="output")
    wired(wf, layer)
    assert complaint(wf.check, LinkError) == (
        "unit 'fc1': input 'input' is linked to 'stranger', which is not part of this workflow; "
        "link it to a unit that is"
    )


def test_data_of_a_unit_that_has_left(wf):
    source = Source(wf, 2, 3, name="source")
    wf.remove(source)
    layer = Layer(wf, "fc1").link_data(source, input="output")
    wired(wf, layer)
    assert "linked to 'source', which is not part" in complaint(wf.check, LinkError)


def test_data_of_the_workflow_itself_and_across_nesting(wf):
    """Inner units may read outer ones, outer ones inner ones, and any the root itself."""
    wf.output = Array(2, 3)
    inner = Workflow(wf, name="inner")
    outer_source, inner_source = Source(wf, 2, 3), Source(inner, 2, 3)
    layers = [
        Layer(inner, "x").link_data(outer_source, input="output"),
        Layer(inner, "y").link_data(wf, input="output"),
    ]
    chain(inner.start, inner_source, *layers, inner.end)
    reader = Layer(wf, "z").link_data(inner_source, input="output")
    wired(wf, outer_source, inner, reader)()
    assert set(data_graph(wf).edges()) == {(outer_source, inner), (inner, reader)}


def test_an_optional_input_may_stay_unlinked_but_reading_it_is_an_error(wf):
    layer = Layer(wf, "fc1").link_data(source := Source(wf, 2, 3), input="output")
    wired(wf, source, layer)()
    assert not layer.has_input("labels")
    assert "input 'labels' is not linked" in complaint(lambda: layer.labels, LinkError)
    layer.link_data(source, labels="output")
    assert layer.has_input("labels")
    assert layer.labels is source.output


# -- shapes and dtypes --------------------------------------------------------------------------


def test_a_shape_that_does_not_fit_names_both_ends(wf):
    source = Source(wf, 60, 8, 8, name="loader")
    layer = Layer(wf, "fc1").link_data(source, input="output")
    assert complaint(wired(wf, source, layer), ShapeError) == (
        "unit 'fc1': input 'input' wants shape (batch features), but 'loader'.output has shape "
        "(60, 8, 8): it has 3 dimensions"
    )


def test_inputs_that_do_not_fit_each_other_name_both_sources(wf):
    loader, labels = Source(wf, 60, 8, name="loader"), Source(wf, 50, name="labels", dtype="int32")
    layer = Layer(wf, "fc1").link_data(loader, input="output").link_data(labels, labels="output")
    assert complaint(wired(wf, loader, labels, layer), ShapeError) == (
        "unit 'fc1': input 'labels' wants shape (batch), but 'labels'.output has shape (50,): "
        "'batch' is 50 here and 60 in 'loader'.output"
    )


def test_an_input_that_does_not_fit_what_the_unit_was_told(wf):
    source = Source(wf, 60, 8, name="loader")
    layer = Layer(wf, "fc1").link_data(source, input="output")
    layer.dims["features"] = 9
    assert complaint(wired(wf, source, layer), ShapeError).endswith(
        "'features' is 8 here and 9 in 'fc1' itself"
    )


def test_a_dtype_that_does_not_fit(wf):
    loader, labels = Source(wf, 60, 8, name="loader"), Source(wf, 60, name="labels")
    layer = Layer(wf, "fc1").link_data(loader, input="output").link_data(labels, labels="output")
    assert complaint(wired(wf, loader, labels, layer), ShapeError) == (
        "unit 'fc1': input 'labels' wants dtype int32, but 'labels'.output is float32"
    )


def test_what_is_no_array(wf):
    source = Source(wf, 60, 8, name="loader")
    layer = Layer(wf, "fc1").link_data(source, input="runs")
    assert complaint(wired(wf, source, layer), ShapeError) == (
        "unit 'fc1': input 'input' wants an array of shape (batch features), but 'loader'.runs is "
        "int 0"
    )


def test_shapes_are_remembered_by_name(wf):
    loader, labels = Source(wf, 60, 8), Source(wf, 60, dtype="int32")
    layer = Layer(wf, "fc1").link_data(loader, input="output").link_data(labels, labels="output")
    wired(wf, loader, labels, layer)()
    assert layer.dims == {"batch": 60, "features": 8}


# -- odds and ends ------------------------------------------------------------------------------


def test_a_subclass_may_replace_an_input_or_take_it_away():
    class Loose(Layer):
        input = Input[Array]("...")

    class Fixed(Layer):
        input = Array(1, 2)

    assert Loose.inputs()["input"].shape == "..."
    assert list(Fixed.inputs()) == ["labels"]
    assert Layer.input is Layer.inputs()["input"]
    assert list(Unit.inputs()) == []


def test_names_in_messages_are_few():
    assert listed([]) == ""
    assert listed("abcde") == "a, b, c, d, e"
    assert listed("abcdef") == "a, b, c, d, e, …"
    assert listed(iter("abc"), " >> ", most=2) == "a >> b >> …"
