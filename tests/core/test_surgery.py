"""Links, gates and units that change, above all while the workflow runs."""

from __future__ import annotations

import itertools

import pytest
from actors import Actor, Loop, after, cast, chain, play, played, stage

from veloflow.core import Bool, Input, Outcome, Workflow
from veloflow.errors import ControlError, LinkError, ShapeError, StalledError, UnitError


@pytest.fixture
def wf() -> Workflow:
    """A workflow start >> a >> b >> c >> end."""
    wf = stage()
    chain(wf.start, *cast(wf, "a b c"), wf.end)
    return wf


@pytest.fixture
def joined() -> Workflow:
    """A workflow in which a and c come to the join, a first, and b stands before c.

    start >> a >> join >> end, start >> b >> c >> join.
    """
    wf = stage()
    a, b, c, join = cast(wf, "a b c join")
    chain(wf.start, a, join, wf.end)
    chain(wf.start, b, c, join)
    return wf


def names(units) -> str:
    """Return the names of units as one line."""
    return " ".join(unit.name for unit in units)


# -- before the run -----------------------------------------------------------------------------


def test_unlinking(wf):
    a, b, c = wf["a"], wf["b"], wf["c"]
    assert b.unlink_from(a) is b
    assert wf.predecessors(b) == []
    assert c.unlink_before() is c
    assert wf.successors(b) == []
    assert a.unlink_all() is a
    assert list(wf.graph.edges) == [(c, wf.end)]


def test_inserting_goes_between_a_unit_and_all_that_follow(wf):
    a, x = wf["a"], Actor(wf, "x")
    a >> Actor(wf, "side")
    assert x.insert_after(a) is x
    assert names(wf.successors(a)) == "x"
    assert names(wf.successors(x)) == "b side"
    assert play(wf) == "a x b side c"


def test_inserting_at_the_end_of_a_branch_just_links(wf):
    tail = Actor(wf, "tail")
    wf["a"] >> tail
    Actor(wf, "x").insert_after(tail)
    assert play(wf) == "a b tail c x"


def test_inserting_what_is_linked_there_already_makes_no_loop(wf):
    wf["a"] >> Actor(wf, "x")
    wf["x"].insert_after(wf["a"])
    assert play(wf) == "a x b c"


def test_there_must_be_a_link_to_unlink(wf):
    with pytest.raises(ControlError, match="no control link from 'a' to 'c'"):
        wf["c"].unlink_from(wf["a"])


@pytest.mark.parametrize("other", ["stranger", "end"])
def test_inserting_where_it_cannot_be_changes_nothing(wf, other):
    x = Actor(wf, "x")
    unit = wf.end if other == "end" else Actor(stage(), "stranger")
    before = list(wf.graph.edges)
    with pytest.raises(ControlError, match=other):
        x.insert_after(unit)
    assert list(wf.graph.edges) == before


def test_changing_a_unit_keeps_its_place_among_its_neighbours():
    wf = stage()
    a, b, c, d = cast(wf, "a b c d")
    chain(wf.start, a, b, wf.end)
    a >> c
    a >> d
    b.gate_skip = gate = Bool()
    new = Actor(wf, "new")
    wf.change_unit(b, new)
    assert play(wf) == "a new c d"
    assert new.gate_skip is gate
    assert names(wf) == "start end a c d new"
    with pytest.raises(ControlError, match="unit 'b' is not part of a workflow any more"):
        _ = b.workflow


def test_changing_a_unit_for_its_neighbour(wf):
    wf.change_unit(wf["b"], wf["c"])
    assert play(wf) == "a c"


def test_changing_a_unit_for_the_one_before_it(wf):
    wf.change_unit(wf["b"], wf["a"])
    assert play(wf) == "a c"


class Source(Actor):
    """Gives data."""

    def __init__(self, workflow, name=None, value=1):
        super().__init__(workflow, name)
        self.value = value


class Reader(Actor):
    """Reads data, and remembers it."""

    value = Input[int]()
    more = Input[int](optional=True)

    def run(self) -> None:
        """Read."""
        super().run()
        self.seen = self.value


def test_a_changed_unit_gives_its_data_and_takes_the_links_of_the_old():
    wf = stage()
    first, second, reader = Source(wf, "first", 1), Source(wf, "second", 2), Reader(wf, "reader")
    inner = Workflow(wf, name="inner")
    nested = Reader(inner, "nested").link_data(first, "value")
    chain(inner.start, nested, inner.end)
    chain(wf.start, first, reader, inner, wf.end)
    reader.link_data(first, "value")
    wf.change_unit(first, second)
    play(wf)
    assert (reader.seen, nested.seen) == (2, 2)

    new = Reader(wf, "new").link_data(second, more="runs")
    reader.link_data(second, more="value")
    wf.change_unit(reader, new)
    assert new.value == 2
    assert new.more == 1  # what it had been linked to already
    assert reader.data_links == {}


def test_a_unit_that_read_its_own_data_is_followed_by_one_that_does():
    wf = stage()

    class Counter(Reader):
        count = 0

    old, new = Counter(wf, "old"), Counter(wf, "new")
    old.link_data(old, value="count")
    chain(wf.start, old, wf.end)
    wf.change_unit(old, new)
    new.count = 5
    play(wf)
    assert new.seen == 5


@pytest.mark.parametrize("which", ["start", "end"])
def test_start_and_end_stay(wf, which):
    x = Actor(wf, "x")
    before = list(wf.graph.edges)
    with pytest.raises(ControlError, match=f"unit '{which}' cannot leave"):
        wf.change_unit(wf[which], x)
    with pytest.raises(ControlError, match=f"unit '{which}' cannot leave"):
        wf.remove(wf[which])
    assert list(wf.graph.edges) == before


def test_only_units_of_this_workflow_are_changed_or_removed(wf):
    stranger = Actor(stage(), "stranger")
    for call in (
        lambda: wf.change_unit(wf["a"], stranger),
        lambda: wf.change_unit(stranger, wf["a"]),
        lambda: wf.remove(stranger),
        lambda: wf.predecessors(stranger),
        lambda: wf.successors(stranger),
    ):
        with pytest.raises(ControlError, match="'stranger' is not a unit of workflow 'workflow'"):
            call()
    assert play(wf) == "a b c"


def test_what_others_read_from_cannot_be_removed():
    wf = stage()
    source, reader = Source(wf, "source"), Reader(wf, "reader")
    inner = Workflow(wf, name="inner")
    nested = Reader(inner, "nested").link_data(source, "value")
    reader.link_data(source, "value")
    with pytest.raises(LinkError, match="unit 'source' still gives data to reader, inner/nested"):
        wf.remove(source)
    wf.remove(reader)
    with pytest.raises(LinkError, match="to inner/nested"):
        wf.remove(source)
    inner.remove(nested)
    wf.remove(source)
    assert names(wf) == "start end inner"


def test_a_nested_workflow_others_read_from_the_inside_of_cannot_be_changed(wf):
    inner = Workflow(wf, name="inner")
    source = Source(inner, "source")
    wf["a"] >> inner
    Reader(wf, "reader").link_data(source, "value")
    with pytest.raises(LinkError, match="units inside 'inner' still give data to reader"):
        wf.change_unit(inner, Actor(wf, "x"))
    assert names(wf.successors(wf["a"])) == "b inner"
    with pytest.raises(LinkError, match="unit 'inner' still gives data to reader"):
        wf.remove(inner)


def test_a_nested_workflow_that_reads_itself_may_leave(wf):
    inner = Workflow(wf, name="inner")
    Reader(inner, "reader").link_data(Source(inner, "source"), "value")
    wf["a"] >> inner
    wf.remove(inner)
    assert play(wf) == "a b c"


# -- while it runs: links -----------------------------------------------------------------------

WHO = pytest.mark.parametrize("who", ["a", "b", "c"])


@WHO
def test_inserting_behind_oneself_ahead_and_behind(wf, who):
    """By a: just behind itself, so it runs next. By b or c: for the next time."""
    after(wf[who], 1, lambda: Actor(wf, "x").insert_after(wf["a"]))
    assert play(wf) == ("a x b c" if who == "a" else "a b c")
    wf.run()
    assert played(wf) == "a x b c"


@WHO
def test_inserting_ahead(wf, who):
    after(wf[who], 1, lambda: Actor(wf, "x").insert_after(wf["c"]))
    assert play(wf) == "a b c x"


def test_taking_out_the_unit_ahead(wf):
    def act() -> None:
        wf["b"].unlink_all()
        wf["a"] >> wf["c"]

    after(wf["a"], 1, act)
    assert play(wf) == "a c"


def test_the_unit_that_runs_unlinks_itself_and_its_links_when_it_is_done_count(wf):
    def act() -> None:
        wf["b"].unlink_all()
        wf["a"] >> wf["c"]

    after(wf["b"], 1, act)
    with pytest.raises(StalledError, match="control stopped at unit 'b'"):
        play(wf)
    wf.run()
    assert played(wf) == "a b a c"


def test_a_link_made_from_a_unit_that_has_fired_carries_nothing_before_it_fires_again(wf):
    after(wf["b"], 1, lambda: wf["a"] >> wf["c"])
    with pytest.raises(StalledError, match=r"waiting: c \(for a\)"):
        play(wf)


def test_a_unit_that_removes_itself_ends_its_signal(wf):
    after(wf["b"], 1, lambda: wf.remove(wf["b"]))
    with pytest.raises(StalledError, match="control stopped at unit 'b'"):
        play(wf)
    assert played(wf) == "a b"


def test_a_signal_to_a_removed_unit_is_gone():
    wf = stage()
    a, b, c = cast(wf, "a b c")
    wf.start >> a >> wf.end
    wf.start >> b >> c
    after(a, 1, lambda: wf.remove(b))
    wf.end.gate_block = True
    with pytest.raises(StalledError):
        play(wf)
    assert played(wf) == "a"


def test_a_link_made_by_the_unit_that_runs_is_followed_at_once(wf):
    after(wf["b"], 1, lambda: wf["b"] >> Actor(wf, "x"))
    assert play(wf) == "a b c x"


def test_a_gate_replaced_by_the_unit_before_is_read_at_once(wf):
    after(wf["a"], 1, lambda: setattr(wf["b"], "gate_skip", True))
    after(wf["a"], 2, lambda: setattr(wf["b"], "gate_skip", Bool(False)))
    assert play(wf) == "a c"
    wf.run()
    assert played(wf) == "a b c"


def test_changes_while_signals_wait_keep_their_order():
    wf = stage()
    a, b, c, d = cast(wf, "a b c d")
    for unit in (a, b, c):
        wf.start >> unit >> d
    d >> wf.end
    after(a, 1, lambda: Actor(wf, "x").insert_after(c))
    assert play(wf) == "a b c x d"


# -- while it runs: half a join -------------------------------------------------------------------


def test_a_join_keeps_what_came_when_another_link_is_added(joined):
    after(joined["b"], 1, lambda: Actor(joined, "x") >> joined["join"])
    with pytest.raises(StalledError, match=r"waiting: join \(for x\)"):
        play(joined)
    assert played(joined) == "a b c"


def test_a_join_keeps_what_came_when_another_link_goes(joined):
    """What it waited for is gone, so it waits for nothing, and runs."""
    after(joined["b"], 1, lambda: joined["c"].unlink_after())
    assert play(joined) == "a b join c"


def test_a_join_of_three_that_loses_two():
    wf = stage()
    a, b, c, d, join = cast(wf, "a b c d join")
    for unit in (a, b, c):
        wf.start >> unit >> join
    wf.start >> d
    join >> wf.end
    b.gate_block = c.gate_block = True
    after(a, 1, lambda: join.unlink_from(b))
    after(d, 1, lambda: join.unlink_from(c))
    assert play(wf) == "a d join"


def test_a_join_forgets_what_came_over_a_link_that_is_gone(joined):
    after(joined["b"], 1, lambda: joined["a"].unlink_after())
    assert play(joined) == "a b c join"  # c alone is enough now
    joined["a"] >> joined["join"]
    joined["c"].gate_block = True
    joined.flow.start()
    with pytest.raises(StalledError, match=r"join \(for c\)"):
        joined.flow.run()


def test_a_join_that_loses_all_its_links_waits_for_ever(joined):
    after(joined["b"], 1, lambda: joined["join"].unlink_before())
    with pytest.raises(StalledError):
        play(joined)


def test_inserting_before_a_join_does_not_undo_what_came(joined):
    """a has fired already: the new unit runs from the next time on."""
    after(joined["b"], 1, lambda: Actor(joined, "x").insert_after(joined["a"]))
    assert play(joined) == "a b c join"
    joined.run()
    assert played(joined) == "a b x c join"


def test_inserting_before_a_join_by_the_unit_just_running(joined):
    after(joined["a"], 1, lambda: Actor(joined, "x").insert_after(joined["a"]))
    assert play(joined) == "a b x c join"


# -- while it runs: change_unit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "whom", "runs", "next_runs"),
    [
        ("a", "a", "a b c", "new b c"),  # just running: its signal goes on from the new one
        ("a", "b", "a new c", "a new c"),  # the next: gets the signal
        ("a", "c", "a b new", "a b new"),  # ahead
        ("c", "a", "a b c", "new b c"),  # behind
        ("c", "b", "a b c", "a new c"),
    ],
)
def test_changing_a_unit(wf, who, whom, runs, next_runs):
    after(wf[who], 1, lambda: wf.change_unit(wf[whom], Actor(wf, "new")))
    assert play(wf) == runs
    wf.run()
    assert played(wf) == next_runs


def test_changing_a_unit_whose_signal_waits_in_the_queue():
    wf = stage()
    a, b, c = cast(wf, "a b c")
    wf.start >> a >> c
    wf.start >> b >> c
    c >> wf.end
    after(a, 1, lambda: wf.change_unit(b, Actor(wf, "new")))
    assert play(wf) == "a new c"


def test_changing_a_unit_that_has_come_to_a_join(joined):
    after(joined["b"], 1, lambda: joined.change_unit(joined["a"], Actor(joined, "new")))
    assert play(joined) == "a b c join"


def test_changing_the_join_itself_keeps_what_came(joined):
    after(joined["b"], 1, lambda: joined.change_unit(joined["join"], Actor(joined, "new")))
    assert play(joined) == "a b c new"


def test_changing_for_a_unit_that_the_plan_knows_already(joined):
    spare = Actor(joined, "spare")
    joined["join"] >> spare
    after(joined["b"], 1, lambda: joined.change_unit(joined["join"], spare))
    assert play(joined) == "a b c spare"


def test_the_unit_that_runs_takes_the_place_of_the_next(wf):
    after(wf["a"], 1, lambda: wf.change_unit(wf["b"], wf["a"]))
    assert play(wf) == "a c"
    wf.run()
    assert played(wf) == "a c"


def test_changing_the_repeater_of_a_running_loop():
    wf = stage()
    loop, a = Loop(wf, "loop"), Actor(wf, "a")
    chain(wf.start, loop, a, loop)
    a >> wf.end
    wf.end.gate_block = ~(done := Bool())
    after(a, 1, lambda: wf.change_unit(loop, Loop(wf, "new")))
    after(a, 2, wf.flow.request_pause)
    after(a, 3, lambda: done.set(True))
    wf.set_up()
    wf.flow.start()
    assert wf.flow.run() is Outcome.PAUSED
    assert wf.flow.state()["queue"] == ["new"]
    assert wf.flow.run() is Outcome.FINISHED
    assert played(wf) == "loop a new a new a"


def test_the_new_unit_goes_on_counting_where_the_old_one_stopped(wf):
    play(wf)
    wf.change_unit(wf["b"], Actor(wf, "new"))
    wf.run()
    assert wf.times()["new"].runs == 2
    assert "b" not in wf.times()


def test_changing_before_a_flow_exists_and_after_a_unit_came(wf):
    _ = wf.flow
    late = Actor(wf, "late")
    late.insert_after(wf["a"])
    wf.change_unit(late, Actor(wf, "later"))
    assert play(wf) == "a later b c"


# -- the life of units that come and go -----------------------------------------------------------


class Living(Actor):
    """Writes down what becomes of it."""

    def initialize(self) -> None:
        """Write down."""
        self.service(list).append(f"initialize {self.name}")

    def prepare(self) -> None:
        """Write down."""
        self.service(list).append(f"prepare {self.name}")

    def run(self) -> None:
        """Write down, and act."""
        self.service(list).append(f"run {self.name}")
        super().run()

    def close(self) -> None:
        """Write down."""
        self.diary.append(f"close {self.name}")

    @property
    def diary(self) -> list[str]:
        """What became of all of them; known also after leaving."""
        return self._diary

    def __init__(self, workflow, name):
        super().__init__(workflow, name)
        self._diary = self.service(list)


@pytest.fixture
def living() -> Workflow:
    """A workflow start >> a >> b >> end of units that keep a diary."""
    wf = stage().provide(list, [])
    chain(wf.start, Living(wf, "a"), Living(wf, "b"), wf.end)
    wf.add_allocator(lambda: wf.find_service(list).append("allocate"))
    return wf


def test_a_unit_that_comes_while_running_is_initialized_and_prepared_before_it_runs(living):
    after(living["a"], 1, lambda: Living(living, "x").insert_after(living["a"]))
    play(living)
    diary = living.find_service(list)
    assert diary[5:] == ["run a", "initialize x", "allocate", "prepare x", "run x", "run b"]


def test_units_that_come_together_are_initialized_in_the_order_of_their_data(living):
    class Reading(Living):
        value = Input[int]()

    def act() -> None:
        units = [Reading(living, f"x{number}") for number in range(5)]
        for reader, source in itertools.pairwise(units):
            reader.link_data(source, value="runs")
        units[-1].link_data(living["b"], value="runs")
        for unit in reversed(units):
            unit.insert_after(living["a"])

    after(living["a"], 1, act)
    play(living)
    diary = living.find_service(list)
    order = [f"x{number}" for number in (4, 3, 2, 1, 0)]
    assert [line for line in diary if "initialize x" in line] == [f"initialize {x}" for x in order]
    assert diary.index("initialize x0") < diary.index("prepare x4")


def test_the_time_that_a_new_unit_takes_to_come_is_not_that_of_the_next(living):
    now = [0]
    living.clock = lambda: now[0]

    class Slow(Living):
        def initialize(self) -> None:
            now[0] += 10**9

    after(living["a"], 1, lambda: Slow(living, "x").insert_after(living["a"]))
    play(living)
    assert sum(time.seconds for time in living.times().values()) == 0


def test_a_unit_that_leaves_is_closed_once_when_it_has_run(living):
    after(living["a"], 1, lambda: living.change_unit(living["a"], Living(living, "x")))
    play(living)
    living.close()
    diary = living.find_service(list)
    assert diary[5:] == [
        *("run a", "initialize x", "allocate", "prepare x", "close a", "run b"),
        *("close x", "close b"),
    ]


def test_a_unit_that_leaves_after_the_run_is_closed_with_the_others(living):
    play(living)
    living.remove(living["b"])
    living.close()
    assert living.find_service(list)[-2:] == ["close a", "close b"]


def test_a_unit_that_comes_and_goes_unseen_is_neither_initialized_nor_closed(living):
    def act() -> None:
        living.remove(Living(living, "x").insert_after(living["b"]))
        living["b"] >> living.end

    after(living["a"], 1, act)
    play(living)
    assert "x" not in " ".join(living.find_service(list))


def test_what_is_wrong_with_a_unit_that_comes_is_said_by_its_name(living):
    class Wrong(Living):
        value = Input[int]()

    after(living["a"], 1, lambda: Wrong(living, "x").insert_after(living["a"]))
    with pytest.raises(LinkError, match=r"unit 'x' .*input 'value' is not linked"):
        play(living)
    living.close()
    assert "close x" in living.find_service(list)


def test_an_exception_in_closing_what_left_names_it(living):
    class Bad(Living):
        def close(self) -> None:
            raise OSError("stuck")

    Bad(living, "bad").insert_after(living["a"])
    after(living["b"], 1, lambda: living.remove(living["bad"]))
    with pytest.raises(UnitError, match="unit 'bad': OSError: stuck"):
        play(living)


def test_what_comes_is_checked_against_what_it_reads(living):
    class Picky(Living):
        value = Input[int]("batch")

    def act() -> None:
        Picky(living, "x").link_data(living["b"], value="runs").insert_after(living["a"])

    after(living["a"], 1, act)
    with pytest.raises(
        ShapeError, match=r"wants an array of shape \(batch\), but 'b'.runs is int 0"
    ):
        play(living)
