"""Stories of the slave: these events, exactly these actions."""

from __future__ import annotations

import pytest

from veloflow.protocol.events import (
    Computed,
    Exit,
    Failed,
    Said,
    Say,
    Skipped,
    Tell,
    TermAsked,
    Tick,
)
from veloflow.protocol.messages import (
    PROTOCOL,
    Bye,
    Cancel,
    Collect,
    Failure,
    GiveBack,
    Hello,
    Introduce,
    Job,
    LeaseId,
    Piece,
    Refusal,
    Residual,
    Stop,
    Update,
    Welcome,
)
from veloflow.protocol.slave import Slave, State

HELLO = Hello(PROTOCOL, "same", "n", "null", "cpu", "host", 1)


class Stage:
    """A slave and a hand on the clock."""

    def __init__(self, *, welcomed=True, patience=1.0):
        self.slave = Slave(HELLO, patience=patience)
        self.now = 0.0
        self.first = self.slave.start(0.0)
        if welcomed:
            self.hears(Welcome("s1", "run", 0.25))

    def __call__(self, event, at=None):
        self.now = self.now if at is None else at
        actions = self.slave.handle(event, self.now)
        self.slave.validate()
        return [one for one in actions if not isinstance(one, Say)]

    def hears(self, message, at=None):
        return self(Said(message), at)

    def gets(self, *numbers: int):
        for number in numbers:
            assert self.hears(job(number)) == []


def job(number):
    return Job(LeaseId(number, 0), Piece(number, 0, 2, 0, 10), {})


def update(number):
    return Update(LeaseId(number, 0), {}, (), 0.1)


@pytest.mark.parametrize("patience", [1, 2])
def test_it_says_hello_again_and_again_and_more_slowly(patience):
    stage = Stage(welcomed=False, patience=patience)
    assert stage.first == [Tell(HELLO)]
    times = []
    while stage.now < 100 * patience:
        stage.now = stage.slave.deadline
        if stage(Tick()) == [Tell(HELLO)]:
            times.append(stage.now / patience)
    assert times == [1, 3, 7, 15, 31, 61, 91, 121]


@pytest.mark.parametrize("patience", [1, 2])
def test_it_gives_up_when_nobody_answers(patience):
    stage = Stage(welcomed=False, patience=patience)
    stage(Tick(), 599.0 * patience)
    assert stage.slave.state is State.GREETING
    actions = stage(Tick(), 600.0 * patience)
    assert actions == [Exit(1, f"no word from the master for {600 * patience} s")]
    assert stage.slave.deadline is None


def test_each_word_of_the_master_gives_it_time_again():
    stage = Stage()
    assert stage.slave.deadline == 600.0
    assert stage.hears(Residual(), at=10.0) == []  # that is for the shell
    assert stage.slave.deadline == 610.0


def test_it_belongs_to_no_run_before_it_is_taken_in():
    stage = Stage(welcomed=False)
    assert (stage.slave.id, stage.slave.run, stage.slave.beat_every) == ("", "", 0.0)
    assert stage.slave.handle(Said(Welcome("s1", "run", 0.25)), 1.0) == [
        Say("info", "taken in as s1")
    ]
    assert (stage.slave.id, stage.slave.run, stage.slave.beat_every) == ("s1", "run", 0.25)


def test_a_job_of_a_master_that_does_not_know_it_is_not_kept():
    stage = Stage(welcomed=False)
    stage.gets(0)
    assert stage.hears(Cancel(LeaseId(0, 0))) == [], "there is nothing to give back"


def test_the_next_hello_tells_what_has_changed_since():
    stage = Stage()
    stage.slave.memory, stage.slave.peer = "file", "tcp://host:1"
    [tell] = stage.hears(Introduce(), at=1.0)
    told = tell.message
    assert (told.former, told.memory, told.peer) == ("s1", "file", "tcp://host:1")


def test_jobs_are_computed_one_at_a_time_and_in_order():
    stage = Stage()
    stage.gets(0, 1)
    assert stage.slave.begin() == job(0)
    assert stage.slave.begin() is None
    assert stage(Computed(update(0))) == [Tell(update(0))]
    assert stage.slave.begin() == job(1)


def test_a_cancelled_job_is_given_back_if_it_is_not_begun():
    stage = Stage()
    stage.gets(0, 1)
    stage.slave.begin()
    assert stage.hears(Cancel(LeaseId(1, 0))) == [Tell(GiveBack(LeaseId(1, 0)))]
    assert stage.hears(Cancel(LeaseId(0, 0))) == []  # its answer comes all the same
    assert stage(Computed(update(0))) == [Tell(update(0))]
    assert stage.slave.begin() is None


def test_a_failure_and_a_job_that_came_too_late_are_told():
    stage = Stage()
    stage.gets(0, 1)
    failure = Failure(LeaseId(0, 0), "unit", "boom")
    stage.slave.begin()
    assert stage(Failed(failure)) == [Tell(failure)]
    stage.slave.begin()
    assert stage(Skipped(LeaseId(1, 0))) == [Tell(GiveBack(LeaseId(1, 0)))]


def test_it_ends_its_job_before_it_leaves():
    stage = Stage()
    stage.gets(0, 1)
    stage.slave.begin()
    assert stage(TermAsked()) == [Tell(GiveBack(LeaseId(1, 0)))]
    assert stage.hears(job(2)) == [Tell(GiveBack(LeaseId(2, 0)))]
    actions = stage(Computed(update(0)))
    assert actions[0] == Tell(update(0))
    assert isinstance(actions[1].message, Bye)
    assert actions[2] == Exit(0, "left in good order")


def test_an_idle_slave_leaves_at_once():
    stage = Stage()
    assert stage(TermAsked()) == [
        Tell(Bye("it leaves in good order")),
        Exit(0, "left in good order"),
    ]
    assert stage.slave.state is State.DONE
    assert Stage(welcomed=False)(TermAsked("enough")) == [Exit(0, "enough")]


def test_who_is_leaving_when_the_master_is_another_just_goes():
    stage = Stage()
    stage.gets(0)
    stage.slave.begin()
    stage(TermAsked())
    assert stage.hears(Introduce()) == [Exit(0, "the master it worked for is gone")]


def test_a_slave_that_is_not_known_any_more_says_so_and_greets_as_at_first():
    slave = Slave(HELLO, patience=2.0)
    slave.start(0.0)
    assert slave.handle(Said(Introduce()), 0.5) == [], "it is greeting already"
    assert slave.handle(Tick(), 1.5) == []
    slave.handle(Said(Welcome("s1", "run", 0.25)), 2.0)
    assert slave.handle(Tick(), 3.0) == []
    said, hello = slave.handle(Said(Introduce()), 4.0)
    text = "the master does not know this slave any more: saying hello again"
    assert said == Say("info", text)
    assert hello.message.former == "s1"
    assert slave.deadline == 6.0


def test_it_waits_a_second_unless_it_is_told_to_be_patient():
    slave = Slave(HELLO)
    slave.start(0.0)
    assert slave.deadline == 1.0


def test_to_be_asked_to_leave_twice_is_to_be_asked_once():
    stage = Stage()
    stage.gets(0)
    stage.slave.begin()
    assert stage(TermAsked()) == []
    assert stage(TermAsked()) == []
    assert stage(Computed(update(0)))[-1] == Exit(0, "left in good order")


def test_a_new_master_that_asks_is_told_and_old_work_is_forgotten():
    stage = Stage()
    stage.gets(0, 1)
    stage.slave.begin()
    stage.now += 1.0
    [tell] = stage.hears(Introduce())
    assert tell.message.former == "s1"
    assert stage(Computed(update(0))) == []  # nobody knows of that lease any more
    stage.hears(Welcome("s5", "another run", 0.25))
    assert stage.slave.begin() is None
    stage.gets(0)
    assert stage.slave.begin() == job(0)


def test_a_question_that_is_older_than_the_welcome_is_not_answered():
    """A beat of before asks for a welcome too; to answer both would be to come twice."""
    stage = Stage()
    stage.gets(0)
    stage.now += 0.49  # two beats
    assert stage.hears(Introduce()) == []
    assert stage.slave.begin() == job(0)
    stage.now += 0.01
    [tell] = stage.hears(Introduce())
    assert tell.message.former == "s1"


def test_a_question_about_a_run_of_before_is_not_answered_however_late_it_comes():
    stage = Stage()
    stage.gets(0)
    stage.now += 1000.0
    assert stage.hears(Introduce("an earlier run")) == []
    assert stage.slave.begin() == job(0)
    [tell] = stage.hears(Introduce("run"))
    assert tell.message.former == "s1"


def test_what_is_computed_for_an_old_run_is_not_told_to_the_new_one():
    stage = Stage()
    stage.gets(0)
    stage.slave.begin()
    stage.now += 1.0
    stage.hears(Introduce())
    stage.hears(Welcome("s1", "another run", 0.25))
    assert stage(Computed(update(0))) == []


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (Refusal("no"), Exit(2, "the master refuses this slave: no")),
        (Stop("over"), Exit(0, "over")),
    ],
)
def test_it_goes_when_it_is_told_to(message, end):
    for welcomed in (True, False):
        stage = Stage(welcomed=welcomed)
        assert stage.hears(message) == [end]
        assert stage.slave.state is State.DONE
        assert stage(Tick(), 1e6) == []


def test_it_tells_what_its_codec_left_out_when_it_is_asked_and_before_it_leaves():
    stage = Stage()
    assert stage.hears(Collect()) == []  # the master sees it in shared memory
    stage.slave.tells_residual = True
    assert stage.hears(Collect()) == [Tell(Residual())]
    residual, bye, end = stage(TermAsked())
    assert residual == Tell(Residual())
    assert isinstance(bye.message, Bye)
    assert isinstance(end, Exit)
