"""The life of units and workflows: names, initialization, services, results, closing."""

from __future__ import annotations

import time

import pytest
from actors import Actor, cast, chain, play, played, stage

from veloflow.core import (
    Bool,
    EndPoint,
    EpochDone,
    Events,
    Input,
    Message,
    Repeater,
    Settings,
    StartPoint,
    Unit,
    Workflow,
)
from veloflow.core.checks import control_order, initialization_order
from veloflow.errors import GraphError, LinkError, UnitError


class Diary(list[str]):
    """What became of units; a service."""


class Living(Actor):
    """Writes down what becomes of it; has an output once it is initialized."""

    input = Input[str](optional=True)
    second = Input[str](optional=True)

    def initialize(self) -> None:
        """Make the output."""
        self.service(Diary).append(f"initialize {self.path}")
        self.output = f"output of {self.path}"

    def prepare(self) -> None:
        """Write down."""
        self.service(Diary).append(f"prepare {self.path}")

    def close(self) -> None:
        """Write down."""
        self.service(Diary).append(f"close {self.path}")


@pytest.fixture
def wf() -> Workflow:
    """An empty workflow with a diary."""
    return stage().provide(Diary, Diary())


def told(wf, what) -> str:
    """Return to whom it happened, in order, as one line."""
    words = [line.split() for line in wf.find_service(Diary)]
    return " ".join(path for event, path in words if event == what)


# -- names --------------------------------------------------------------------------------------


def test_units_are_called_by_their_class_and_numbered_from_the_second_on(wf):
    assert [Actor(wf).name for _ in range(3)] == ["Actor", "Actor_2", "Actor_3"]
    assert Repeater(wf).name == "Repeater"


def test_a_number_that_is_taken_is_left_out(wf):
    Actor(wf, "Actor_2")
    assert [Actor(wf).name for _ in range(2)] == ["Actor", "Actor_3"]


def test_names_are_unique_in_their_own_workflow_only(wf):
    inner = Workflow(wf, name="inner")
    assert [Actor(wf, "a").path, Actor(inner, "a").path] == ["a", "inner/a"]
    innermost = Workflow(inner)
    assert Actor(innermost, "a").path == "inner/Workflow/a"
    assert repr(innermost["a"]) == "<Actor 'inner/Workflow/a'>"


def test_a_workflow_is_a_container_of_its_units(wf):
    a, inner = Actor(wf, "a"), Workflow(wf, name="inner")
    x = Actor(inner, "x")
    assert wf["a"] is a
    assert list(wf) == [wf.start, wf.end, a, inner]
    assert list(wf.all_units()) == [wf.start, wf.end, a, inner, inner.start, inner.end, x]
    assert len(wf) == 4
    assert Workflow()  # though it is almost empty
    assert (inner.root, wf.root) == (wf, wf)
    assert wf.is_root
    assert not inner.is_root


def test_every_workflow_has_a_start_and_an_end(wf):
    assert isinstance(wf.start, StartPoint)
    assert isinstance(wf.end, EndPoint)
    assert Workflow().name == "workflow"
    assert Workflow(name="mine").path == "mine"


def test_an_outline_cannot_be_made(wf):
    with pytest.raises(TypeError, match="abstract"):
        Unit(wf)


# -- initialization -----------------------------------------------------------------------------


def test_the_source_of_data_is_initialized_first_wherever_control_passes_it(wf):
    a, b, c = cast(wf, "a b c", Living)
    chain(wf.start, a, b, c, wf.end)
    a.link_data(c, input="output")
    c.link_data(b, input="output")
    wf.set_up()
    assert told(wf, "initialize") == "b c a"
    assert told(wf, "prepare") == "b c a"


def test_without_data_links_the_order_is_that_of_control_and_not_that_of_making(wf):
    c, b, a = cast(wf, "c b a", Living)
    chain(wf.start, a, b, wf.end)
    chain(a, c, b)
    wf.set_up()
    assert told(wf, "initialize") == "a b c"
    assert [unit.name for unit in control_order(wf)] == ["start", "a", "b", "c", "end"]


def test_units_of_a_data_loop_come_in_the_order_of_control_between_the_others(wf):
    before, first, second, after_them = cast(wf, "before first second after", Living)
    chain(wf.start, first, second, after_them, before, wf.end)
    second.output = "known from the start"
    first.link_data(second, input="output").link_data(before, second="output")
    second.link_data(first, input="output")
    after_them.link_data(second, input="output")
    wf.set_up()
    assert told(wf, "initialize") == "before first second after"


def test_units_that_nothing_leads_to_come_last(wf):
    """check() would refuse them, but a drawing of a wrong graph is wanted too."""
    lost, a = cast(wf, "lost a")
    wf.start >> a
    assert [unit.name for unit in control_order(wf)] == ["start", "a", "end", "lost"]
    assert [unit.name for unit in initialization_order(wf)] == ["start", "a", "end", "lost"]
    assert lost in initialization_order(wf)


def test_a_nested_workflow_is_initialized_as_one_and_counts_for_its_units(wf):
    inner = Workflow(wf, name="inner")
    x, y = cast(inner, "x y", Living)
    last, source = cast(wf, "last source", Living)
    chain(inner.start, x, y, inner.end)
    chain(wf.start, last, inner, source, wf.end)
    x.link_data(y, input="output")
    y.link_data(source, input="output")
    last.link_data(x, input="output")
    wf.set_up()
    assert told(wf, "initialize") == "source inner/y inner/x last"


def test_inputs_are_checked_just_before_their_unit_is_initialized(wf):
    """So an output may be made by initialize()."""
    a, b = cast(wf, "a b", Living)
    chain(wf.start, a, b, wf.end)
    a.link_data(b, input="outptu")
    with pytest.raises(LinkError, match="did you mean 'output'"):
        wf.set_up()
    assert told(wf, "initialize") == "b"


def test_memory_is_allocated_between_initialization_and_preparation(wf):
    inner = Workflow(wf, name="inner")
    chain(wf.start, Living(wf, "a"), inner, wf.end)
    chain(inner.start, Living(inner, "x"), inner.end)
    diary = wf.find_service(Diary)
    wf.add_allocator(lambda: diary.append("first -")).add_allocator(lambda: diary.append("then -"))
    wf.set_up()
    assert diary == [
        *("initialize a", "initialize inner/x"),
        *("first -", "then -"),
        *("prepare a", "prepare inner/x"),
    ]


@pytest.mark.parametrize("when", ["initialize", "prepare"])
def test_an_exception_before_the_run_names_the_unit_by_path(wf, when):
    inner = Workflow(wf, name="inner")
    a, x = Actor(wf, "a"), Actor(inner, "x")
    chain(wf.start, a, inner, wf.end)
    chain(inner.start, x, inner.end)
    setattr(x, when, lambda: {}["missing"])
    with pytest.raises(UnitError, match=r"^unit 'inner/x': KeyError: 'missing'$") as caught:
        wf.set_up()
    assert isinstance(caught.value.__cause__, KeyError)


def test_our_own_errors_before_the_run_pass_unchanged(wf):
    error = GraphError("no")

    def fail() -> None:
        raise error

    a = Actor(wf, "a")
    a.initialize = fail
    chain(wf.start, a, wf.end)
    with pytest.raises(GraphError) as caught:
        wf.set_up()
    assert caught.value is error


# -- services -----------------------------------------------------------------------------------


def test_a_service_is_found_through_the_workflows_around(wf):
    inner = Workflow(Workflow(wf, name="middle"), name="inner")
    x = Actor(inner, "x")
    wf.provide(Settings, outer := Settings(seed=1))
    assert x.service(Settings) is outer
    inner.provide(Settings, own := Settings(seed=2))
    assert x.service(Settings) is own
    assert Actor(wf, "a").service(Settings) is outer


def test_a_service_that_nobody_provides(wf):
    inner = Workflow(wf, name="inner")
    with pytest.raises(GraphError) as caught:
        Actor(inner, "x").service(Settings)
    assert str(caught.value) == (
        "workflow 'inner' has no Settings; provide one before initialize()"
    )


def test_events_go_to_those_who_asked_for_their_kind(wf):
    events, texts = Events(), []
    events.subscribe(Message, lambda message: texts.append(message.text))
    events.subscribe(Message, lambda message: texts.append(message.text.upper()))
    events.publish(Message("hello"))
    events.publish(EpochDone({}, improved=True))
    assert texts == ["hello", "HELLO"]


# -- results, state, progress ---------------------------------------------------------------------


def test_results_are_merged_and_the_later_unit_wins(wf):
    inner = Workflow(wf, name="inner")
    for unit, results in (
        (Actor(wf, "a"), {"best": 1, "a": 1}),
        (Actor(inner, "x"), {"x": 1}),
        (Actor(wf, "b"), {"best": 2}),
    ):
        unit.results = lambda results=results: results
    assert wf.results() == {"best": 2, "a": 1, "x": 1}


def test_a_unit_has_no_state_unless_it_says_so(wf):
    a = Actor(wf, "a")
    assert (a.state(), a.results(), a.progress()) == ({}, {}, None)
    a.restore({})
    with pytest.raises(TypeError, match="Actor keeps no state"):
        a.restore({"runs": 1})


# -- closing ------------------------------------------------------------------------------------


def test_units_are_closed_the_last_first(wf):
    inner = Workflow(wf, name="inner")
    cast(inner, "x y", Living)
    cast(wf, "a b", Living)
    wf.close()
    assert told(wf, "close") == "b a inner/y inner/x"


def test_all_are_closed_though_one_fails_and_the_first_failure_is_told(wf):
    class Stuck(Living):
        def close(self) -> None:
            super().close()
            raise OSError(f"{self.name} is stuck")

    inner = Workflow(wf, name="inner")
    Living(wf, "a"), Stuck(inner, "x"), Stuck(wf, "b"), Living(wf, "c")
    with pytest.raises(UnitError) as caught:
        wf.close()
    assert told(wf, "close") == "c b a inner/x"
    assert str(caught.value) == "unit 'b': OSError: b is stuck"
    assert isinstance(caught.value.__cause__, OSError)


# -- gates of units -------------------------------------------------------------------------------


def test_gates_are_open_at_first_and_a_bool_or_a_truth_may_be_given(wf):
    a = Actor(wf, "a")
    assert not a.gate_block
    assert not a.gate_skip
    a.gate_block, a.gate_skip = gate = Bool(True), True
    assert a.gate_block is gate[0]
    assert isinstance(a.gate_skip, Bool)
    assert a.gate_skip


# -- drawing ------------------------------------------------------------------------------------


def test_a_workflow_draws_itself_if_anybody_can_draw(wf, monkeypatch):
    monkeypatch.setattr(Workflow, "_drawer", None)
    assert wf._repr_svg_() is None
    monkeypatch.setattr(Workflow, "_drawer", lambda workflow: f"<svg>{len(workflow)}</svg>")
    assert wf._repr_svg_() == "<svg>2</svg>"


# -- size ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_units_are_built_checked_and_started_in_two_seconds():
    """A chain with data links along it and every tenth unit joining a side branch."""
    began = time.perf_counter()
    wf = stage().provide(Diary, Diary())
    units: list[Unit] = [wf.start]
    for number in range(10_000):
        unit = Living(wf)
        units[-1] >> unit
        if number > 10:
            unit.link_data(units[-5], input="output")
        if number > 10 and number % 10 == 0:
            units[-9] >> unit
        units.append(unit)
    units[-1] >> wf.end
    wf.check()
    wf.set_up()
    wf.flow.start()
    assert time.perf_counter() - began < 2
    wf.flow.run()
    assert len(played(wf).split()) == 10_000


def test_playing_twice_is_the_same(wf):
    chain(wf.start, *cast(wf, "a b"), wf.end)
    assert play(wf) == play(wf) == "a b"
