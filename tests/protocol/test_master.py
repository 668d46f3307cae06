"""Stories of the master: these events, exactly these actions."""

from __future__ import annotations

import sys

import pytest

from veloflow.protocol.events import (
    Apply,
    Away,
    Garbage,
    GiveUp,
    Grant,
    Heard,
    Inherit,
    Lost,
    PauseAsked,
    PutOut,
    Rejected,
    ResumeAsked,
    Say,
    Send,
    StopAsked,
    Tick,
    Withdrawn,
    WorkAdded,
)
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import (
    PROTOCOL,
    Beat,
    Bye,
    Cancel,
    Failure,
    GiveBack,
    Hello,
    Introduce,
    LeaseId,
    Pause,
    Piece,
    Refusal,
    Resume,
    Stop,
    Update,
    Welcome,
)
from veloflow.protocol.slaves import State


def hello(name="n", *, checksum="same", protocol=PROTOCOL, capacity=2, former=""):
    return Hello(
        protocol, checksum, name, "null", "cpu", "host", 1, capacity=capacity, former=former
    )


def pieces(count, first=0):
    return WorkAdded(tuple(Piece(first + n, 0, 2, 10 * n, 10) for n in range(count)))


class Stage:
    """A master and a hand on the clock; it checks the invariants after each event."""

    def __init__(self, *slaves: bytes, prefetch=2, **settings):
        self.master = Master(MasterSettings("run", "same", prefetch=prefetch, **settings))
        self.now = 0.0
        for name in slaves:
            self(Heard(name, hello(name.decode()), is_local=True))

    def __call__(self, event, at=None):
        self.now = self.now if at is None else at
        actions = self.master.handle(event, self.now)
        self.master.validate()
        return [one for one in actions if not isinstance(one, Say)]

    def says(self, client, message, at=None):
        return self(Heard(client, message, is_local=True), at)

    def answer(self, client, grant, at=None):
        return self.says(client, update(grant.lease), at)

    def beat(self, client, progress=0):
        slave = self.master.crowd.by_client[client]
        return self.says(b"beat of " + client, Beat(slave.id, progress))


def update(lease):
    return Update(lease, {}, (), 0.01)


def granted(actions):
    return [(one.client, one.lease.number) for one in actions if isinstance(one, Grant)]


def test_a_slave_is_welcomed():
    stage = Stage()
    assert stage.says(b"a", hello()) == [Send(b"a", Welcome("s1", "run", 0.25))]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [(hello(checksum="other"), "definition"), (hello(protocol=PROTOCOL + 1), "protocol")],
)
def test_a_slave_that_does_not_fit_is_refused_with_a_reason(wrong, word):
    [action] = Stage().says(b"a", wrong)
    assert isinstance(action.message, Refusal)
    assert word in action.message.reason


def test_work_goes_to_the_least_loaded():
    stage = Stage(b"a", b"b")
    assert granted(stage(pieces(5))) == [(b"a", 0), (b"b", 1), (b"a", 2), (b"b", 3)]


def test_an_answer_is_applied_and_brings_the_next_piece():
    stage = Stage(b"a")
    grants = stage(pieces(4))
    actions = stage.answer(b"a", grants[0])
    assert isinstance(actions[0], Apply)
    assert actions[0].piece.number == 0
    assert granted(actions) == [(b"a", 2)]


def test_what_a_lost_slave_held_goes_to_others_at_once_and_first():
    stage = Stage(b"a", b"b", prefetch=3)
    stage(pieces(9))
    stage.answer(b"b", Grant(b"b", LeaseId(1, 0), Piece(1, 0, 2, 10, 10)))
    actions = stage(Lost(b"a", "killed"))
    assert granted(actions) == []  # b is full
    actions = stage.says(b"b", update(LeaseId(3, 0)))
    assert granted(actions) == [(b"b", 0)]


def test_a_goodbye_returns_what_was_held():
    stage = Stage(b"a")
    stage(pieces(2))
    stage.says(b"b", hello("b"))
    stage.says(b"a", GiveBack(LeaseId(1, 0)))
    actions = stage.says(b"a", Bye("enough"))
    assert granted(actions) == [(b"b", 0)]
    assert stage.master.ledger.load_of("s1") == 0


def test_a_late_piece_is_given_to_an_idle_slave_and_the_first_answer_wins():
    stage = Stage(b"a", b"b", prefetch=1)
    for number in range(4):  # the master learns how long pieces take
        for grant in stage(pieces(2, 2 * number)):
            stage.answer(grant.client, grant, stage.now + 0.1)
    one, two = stage(pieces(2, 8))
    stage.answer(two.client, two, stage.now + 0.1)
    again = []
    while not again and stage.now < 2:
        again = stage(Tick(), stage.master.deadline)
    assert stage.now == pytest.approx(0.9 + 0.35)
    assert granted(again) == [(two.client, one.lease.number)]
    [apply, cancel] = stage.answer(two.client, again[0])
    assert isinstance(apply, Apply)
    assert cancel == Send(one.client, Cancel(one.lease))
    assert stage.answer(one.client, one) == []
    assert stage.master.ledger.late == 1


def test_an_idle_slave_takes_what_another_has_not_begun():
    stage = Stage(b"a", b"b")
    first = stage(pieces(3))
    assert granted(first) == [(b"a", 0), (b"b", 1), (b"a", 2)]
    actions = stage.answer(b"b", first[1])
    assert granted(actions) == [(b"b", 2)]
    [apply, cancel] = stage.answer(b"b", next(a for a in actions if isinstance(a, Grant)))
    assert apply.piece.number == 2
    assert cancel == Send(b"a", Cancel(LeaseId(2, 0)))
    assert stage.says(b"a", GiveBack(LeaseId(2, 0))) == []


def test_a_silent_slave_loses_its_work_and_is_well_again_when_heard():
    stage = Stage(b"a", b"b", prefetch=1)
    stage(pieces(2))
    for _ in range(8):
        stage.now += 0.25
        stage.beat(b"b")
    assert stage(Tick()) == []  # b is busy, so nobody takes it yet
    assert stage.master.crowd.by_id["s1"].state is State.SUSPECT
    assert granted(stage.says(b"b", update(LeaseId(1, 0)))) == [(b"b", 0)]
    assert stage.says(b"a", update(LeaseId(0, 0))) == []
    assert stage.master.ledger.late == 1
    assert stage.master.crowd.by_id["s1"].state is State.WELL


def test_a_slave_that_is_silent_for_long_is_put_out_and_killed():
    stage = Stage(b"a")
    actions = stage(Tick(), 1.5)
    assert actions == []
    actions = stage(Tick(), 11.5)
    assert [one for one in actions if isinstance(one, PutOut)] == [
        PutOut(b"a", "s1", "silent for 11.5 s", kill=True)
    ]


def test_a_master_that_was_away_blames_nobody():
    stage = Stage(b"a")
    stage(Away(), 100.0)
    stage(Tick(), 100.1)
    assert stage.master.crowd.by_id["s1"].state is State.WELL
    stage(Tick(), 101.6)
    assert stage.master.crowd.by_id["s1"].state is State.SUSPECT


def test_a_slave_that_beats_and_does_not_advance_is_put_out():
    stage = Stage(b"a")
    stage(pieces(1))
    actions = []
    while not actions and stage.now < 1000:
        stage.now += 0.25
        actions = [one for one in stage.beat(b"a", progress=7) if isinstance(one, PutOut)]
    assert "does not advance" in actions[0].reason
    assert 600 <= stage.now <= 610  # nothing is known of such pieces: 20 x 30 s


def test_strangers_are_asked_who_they_are_but_not_at_every_word():
    stage = Stage()
    assert stage.says(b"x", update(LeaseId(0, 0))) == [Send(b"x", Introduce())]
    assert stage.says(b"x", update(LeaseId(0, 0))) == []
    assert stage.says(b"x", Beat("s9", 1), at=1.0) == [Send(b"x", Introduce())]


@pytest.mark.parametrize("lease", [LeaseId(0, 7), LeaseId(99, 0)])
def test_an_answer_to_a_job_that_it_never_had_puts_a_slave_out(lease):
    stage = Stage(b"a", b"b", prefetch=1)
    stage(pieces(2))
    actions = stage.says(b"b", update(lease))
    assert any(isinstance(one, PutOut) and one.client == b"b" for one in actions)
    assert not any(isinstance(one, Apply) for one in actions)


def test_an_answer_that_comes_twice_counts_once():
    stage = Stage(b"a")
    grants = stage(pieces(1))
    assert isinstance(stage.answer(b"a", grants[0])[0], Apply)
    assert stage.answer(b"a", grants[0]) == []
    assert stage.master.counters["doubled"] == 1


def test_garbage_puts_a_slave_out_and_its_work_goes_on():
    stage = Stage(b"a", b"b", prefetch=1)
    stage(pieces(1))
    actions = stage(Garbage(b"a", "no message"))
    assert granted(actions) == [(b"b", 0)]
    assert stage(Garbage(b"nobody", "no message")) == []


def test_a_piece_that_fails_goes_to_another_slave_and_then_ends_the_run():
    stage = Stage(b"a", b"b", prefetch=1)
    [grant] = stage(pieces(1))
    failure = Failure(grant.lease, "fc1", "boom")
    [again] = stage.says(b"a", failure)
    assert granted([again]) == [(b"b", 0)]
    actions = stage.says(b"b", Failure(again.lease, "fc1", "boom"))
    assert any(isinstance(one, GiveUp) and one.failure.unit == "fc1" for one in actions)


def test_a_piece_that_fails_twice_on_the_only_slave_ends_the_run():
    stage = Stage(b"a")
    [grant] = stage(pieces(1))
    [again] = stage.says(b"a", Failure(grant.lease, "fc1", "boom"))
    actions = stage.says(b"a", Failure(again.lease, "fc1", "boom"))
    assert any(isinstance(one, GiveUp) for one in actions)


def test_nan_is_tried_elsewhere_before_it_is_believed():
    stage = Stage(b"a", b"b", prefetch=1)
    [grant] = stage(pieces(1))
    assert not stage.master.is_last_word(b"a", grant.lease)
    actions = stage(Rejected(b"a", grant.lease, "NaN", is_lie=False))
    assert granted(actions) == [(b"b", 0)]
    assert stage.master.is_last_word(b"b", actions[0].lease)
    assert stage.master.crowd.by_id["s1"].state is State.WELL


def test_a_lie_puts_a_slave_out_at_once():
    stage = Stage(b"a", b"b", prefetch=1)
    [grant] = stage(pieces(1))
    actions = stage(Rejected(b"a", grant.lease, "wrong shape", is_lie=True))
    assert granted(actions) == [(b"b", 0)]
    assert any(isinstance(one, PutOut) for one in actions)


def test_a_slave_that_is_lost_again_and_again_is_refused():
    stage = Stage()
    for number in range(6):
        client = f"c{number}".encode()
        actions = stage(Heard(client, hello("flap")))
        stage(Lost(client, "gone"))
    assert isinstance(actions[0].message, Refusal)
    assert "lost 5 times" in actions[0].message.reason
    stage.now = 100.0
    assert isinstance(stage(Heard(b"z", hello("flap")))[0].message, Welcome)


def test_pausing_and_resuming():
    stage = Stage(b"a")
    assert stage(PauseAsked()) == [Send(b"a", Pause())]
    assert stage(pieces(1)) == []
    assert stage.says(b"b", hello("b"))[-1] == Send(b"b", Pause())
    actions = stage(ResumeAsked())
    assert actions[:2] == [Send(b"a", Resume()), Send(b"b", Resume())]
    assert granted(actions) == [(b"a", 0)]


def test_after_the_end_nobody_is_taken_in():
    stage = Stage(b"a")
    assert stage(StopAsked("done")) == [Send(b"a", Stop("done"))]
    assert isinstance(stage.says(b"b", hello())[0].message, Refusal)
    assert granted(stage(pieces(1))) == []


def test_a_slave_that_says_hello_again_starts_anew():
    stage = Stage(b"a")
    stage(pieces(1))
    actions = stage.says(b"a", hello("a", former="s1"))
    assert Send(b"a", Welcome("s2", "run", 0.25)) in actions
    assert granted(actions) == [(b"a", 0)]


def test_a_slave_that_said_hello_twice_before_it_was_heard_is_one_slave():
    """As after Ctrl-Z and fg of a master, whose slaves greet on meanwhile."""
    stage = Stage()
    stage(pieces(1))
    (lease,) = [one.lease for one in stage.says(b"a", hello("a")) if isinstance(one, Grant)]
    again = stage.says(b"a", hello("a"))
    assert again == [Send(b"a", Welcome("s1", "run", 0.25))]
    assert [one for one in stage.says(b"a", update(lease)) if isinstance(one, Apply)]
    assert stage.master.counters["lost"] == stage.master.counters["put out"] == 0
    anew = stage.says(b"a", hello("a"))  # it has worked for us, so it has begun anew
    assert Send(b"a", Welcome("s2", "run", 0.25)) in anew


def test_hunger_is_said_once():
    stage = Stage()
    said = [one.text for one in stage.master.handle(pieces(1), 0.0) if isinstance(one, Say)]
    assert said == ["no slaves yet; the run waits until one joins"]
    assert not stage.master.handle(Tick(), 1.0)


def test_the_story_of_a_piece_and_of_a_slave():
    stage = Stage(b"a", b"b", prefetch=1)
    [grant] = stage(pieces(1))
    actions = stage(Lost(b"a", "killed"))
    stage.answer(b"b", actions[0])
    assert [line.split(": ")[1] for line in stage.master.story(0)] == [
        f"got {grant.lease.number}.0", "lost 0.0", "got 0.1", "did 0.1",
    ]  # fmt: skip
    assert len(stage.master.story("s1")) == 4


def test_a_slave_that_gives_back_what_it_got_is_not_given_it_again_at_once():
    stage = Stage(b"a")
    grants = stage(pieces(2))
    assert granted(stage.says(b"a", GiveBack(grants[1].lease))) == []
    assert stage.master.crowd.by_id["s1"].state is State.DRAINING
    assert granted(stage(Tick(), 0.2)) == []
    assert granted(stage(Tick(), 0.25)) == [(b"a", 1)]  # it did not leave after all
    assert stage.master.crowd.by_id["s1"].state is State.WELL


def test_another_takes_what_a_leaving_slave_gives_back():
    stage = Stage(b"a", b"b", prefetch=1)
    [grant] = stage(pieces(1))
    assert granted(stage.says(b"a", GiveBack(grant.lease))) == [(b"b", 0)]
    stage.says(b"a", Bye("done here"))
    assert stage.master.crowd.by_id["s1"].state is State.LEFT


def test_a_cancelled_job_that_comes_back_is_no_sign_of_leaving():
    stage = Stage(b"a", b"b")
    first = stage(pieces(3))
    again = [one for one in stage.answer(b"b", first[1]) if isinstance(one, Grant)]
    stage.answer(b"b", again[0])
    stage.says(b"a", GiveBack(first[2].lease))
    assert stage.master.crowd.by_id["s1"].state is State.WELL


def test_a_piece_that_waits_for_another_slave_holds_nobody_up():
    stage = Stage(b"a", b"b", prefetch=1)
    one, two = stage(pieces(3))
    assert granted(stage.says(b"a", Failure(one.lease, "unit", "boom"))) == [(b"a", 2)]
    assert granted(stage.answer(b"b", two)) == [(b"b", 0)]


def test_a_failed_piece_does_not_wait_for_a_slave_that_is_silent():
    stage = Stage(b"a", b"b", prefetch=1)
    one, _ = stage(pieces(2))
    for _ in range(8):
        stage.now += 0.25
        stage.beat(b"a")
    stage(Tick())
    assert stage.master.crowd.by_id["s2"].state is State.SUSPECT
    assert len(granted(stage.says(b"a", Failure(one.lease, "unit", "boom")))) == 1


def test_a_late_piece_does_not_go_to_the_slave_on_which_it_failed():
    stage = Stage(b"a", b"b", prefetch=1)
    [one] = stage(pieces(1))
    again = []
    while not again:
        stage.beat(b"a")
        stage.beat(b"b")
        again = [one for one in stage(Tick(), stage.now + 0.25) if isinstance(one, Grant)]
    assert again[0].client != one.client
    assert stage.says(again[0].client, Failure(again[0].lease, "unit", "boom")) == []
    assert isinstance(stage.answer(one.client, one)[0], Apply)


def test_beats_of_a_stranger_with_the_same_id_do_not_count():
    """After a restart of the master ids are given anew, and old slaves still say theirs."""
    stage = Stage(b"a")
    assert stage.says(b"pulse", Beat("s1", 1)) == [Send(b"pulse", Beat("s1", 1))]
    assert stage.says(b"another", Beat("s1", 1), at=1.0) == [Send(b"another", Introduce())]
    of_before = Beat("s1", 1, run="another run")
    assert stage.says(b"third", of_before, at=1.0) == [Send(b"third", Introduce("another run"))]
    stage(Tick(), 1.4)
    assert stage.master.crowd.by_id["s1"].state is State.WELL
    stage(Tick(), 1.5)
    assert stage.master.crowd.by_id["s1"].state is State.SUSPECT


def test_a_master_that_was_away_for_long_calls_nobody_stuck():
    stage = Stage(b"a", prefetch=1)
    for number in range(4):
        for grant in stage(pieces(1, number)):
            stage.answer(b"a", grant, stage.now + 0.1)
    [grant] = stage(pieces(1, 4))
    stage(Away(), 1000.0)
    assert stage(Tick(), 1000.1) == []
    stage(Tick(), stage.master.deadline)
    assert isinstance(stage.answer(b"a", grant)[0], Apply)


def test_nothing_is_called_late_before_the_answers_are_read():
    stage = Stage(b"a", b"b", prefetch=1)
    for number in range(4):
        for grant in stage(pieces(2, 2 * number)):
            stage.answer(grant.client, grant, stage.now + 0.1)
    one, two = stage(pieces(2, 8))
    assert stage(Away(), stage.now + 60) == []
    assert granted(stage.answer(one.client, one)) == []
    assert granted(stage(Tick(), stage.now + 0.1)) == []
    assert granted(stage(Tick(), stage.master.deadline)) == [(one.client, two.lease.number)]


def test_time_passes_without_ticks_too():
    stage = Stage(b"a", b"b", prefetch=1)
    stage(pieces(1))
    for _ in range(8):  # a master that always has something to handle
        stage.now += 0.25
        stage.beat(b"b")
    assert stage.master.crowd.by_id["s1"].state is State.SUSPECT
    assert stage.master.ledger.load_of("s2") == 1


def test_a_slave_that_comes_and_goes_is_watched_once():
    stage = Stage(b"a")
    for _ in range(20):
        stage(Tick(), stage.now + 1.6)
        stage.beat(b"a")
    ticks = 0
    end = stage.now + 1.4
    while stage.master.deadline < end:
        stage(Tick(), stage.master.deadline)
        ticks += 1
    assert ticks <= 3


def lines_run(crowd: int, work: int, seconds: float) -> float:
    """Return how many lines of code an event costs, so that no clock is needed."""
    master = Master(MasterSettings("run", "same"))
    for number in range(crowd):
        master.handle(Heard(str(number).encode(), hello(str(number)), is_local=True), 0.0)
    grants = [a for a in master.handle(pieces(work), 0.0) if isinstance(a, Grant)]
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        first = max(0, work - crowd) % crowd  # those before may hold two pieces
        for grant in grants[first : first + 8]:
            master.handle(Heard(grant.client, update(grant.lease)), seconds)
            master.handle(Heard(b"x", Beat("s1", 1)), seconds)
            master.handle(Tick(), seconds)
    finally:
        sys.settrace(None)
    return lines / 24


@pytest.mark.parametrize("share", [3.0, 2.0, 1.2, 1.0, 0.8])
def test_the_cost_of_an_event_does_not_grow_with_the_slaves(share):
    """With work that waits, with work to take over, and with idle slaves."""
    few, many = (lines_run(crowd, int(share * crowd), 0.01) for crowd in (10, 1000))
    assert many < 1.5 * few + 10
    assert many < 250


def test_pieces_that_are_withdrawn_are_nobodys_and_late_answers_are_no_lies():
    stage = Stage(b"a", b"b")
    first, second = [one for one in stage(pieces(2)) if isinstance(one, Grant)]
    stage(pieces(2, first=2))
    held = stage.master.ledger.leases_of("s1")
    actions = stage(Withdrawn((0, 1, 2, 3, 77)))
    assert len(stage.master.ledger) == 0
    cancelled = {one.message.lease for one in actions}
    assert {first.lease, second.lease} <= cancelled
    assert len(actions) == len(cancelled) == 4
    assert stage.answer(first.client, first) == []
    assert stage.master.crowd.by_client[first.client].state is State.WELL
    assert stage.master.ledger.late == 1
    later = stage.master.crowd.by_id["s1"]
    for lease in [one for one in held if one.id in later.owed]:
        stage.says(b"a", GiveBack(lease.id))
    assert later.state is State.WELL  # it gives back what was cancelled: it does not leave
    assert granted(stage(pieces(1, first=4))) in ([(b"a", 4)], [(b"b", 4)])


def test_a_piece_that_waits_is_withdrawn_too():
    stage = Stage()
    stage(pieces(3))
    assert stage(Withdrawn((1,))) == []
    assert granted(stage.says(b"a", hello("a"))) == [(b"a", 0), (b"a", 2)]


def test_an_idle_slave_takes_no_unbegun_piece_of_a_team():
    """Those who work on one block together each have their part; a copy of it helps nobody."""
    stage = Stage(b"a", b"b")
    first = stage(WorkAdded(pieces(2).pieces, is_shared=True))
    second = stage(WorkAdded(pieces(2, first=2).pieces, is_shared=True))
    assert sorted(granted([*first, *second])) == [(b"a", 0), (b"a", 2), (b"b", 1), (b"b", 3)]
    mine = [one for one in [*first, *second] if isinstance(one, Grant) and one.client == b"a"]
    assert [granted(stage.answer(b"a", one)) for one in mine] == [[], []]
    # when the first is late it gets that, and the other when b is gone
    found = []
    for second in range(1, 31):
        stage.now = float(second)
        assert granted(found) == []
        found = [*stage.beat(b"a"), *stage.beat(b"b"), *stage(Tick())]
    assert granted(found) == [(b"a", 1)]
    stage(Lost(b"b", "gone"))
    assert 3 in [one.id.number for one in stage.master.ledger.leases_of("s1")]


def test_what_an_honest_slave_leaves_is_inherited_when_it_is_gone():
    stage = Stage(b"a", b"b", b"c", inherits=True)
    assert Inherit(b"a") in stage.says(b"a", Bye("done here"))
    assert Inherit(b"b") in stage(Lost(b"b", "its process ended"))
    assert Inherit(b"c") not in stage(Garbage(b"c", "no message"))
    assert not stage.master.crowd.by_client
    stage = Stage(b"a")
    assert Inherit(b"a") not in stage.says(b"a", Bye("done here"))  # nobody keeps anything
