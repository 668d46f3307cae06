"""A piece that kills is told from pieces on slaves that die anyway."""

from __future__ import annotations

import random

import pytest

from tests.protocol.test_complaints import leases, of
from tests.protocol.test_master import Stage, hello, pieces, update
from veloflow.protocol.deaths import Deaths
from veloflow.protocol.events import GiveUp, Heard, Lost, PutOut, Rejected, Tick


def answered(count):
    deaths = Deaths()
    for _ in range(count):
        deaths.answered()
    return deaths


@pytest.mark.parametrize(("answers", "needed"), [(0, 8), (1, 7), (100, 4), (1000, 3), (10**6, 3)])
def test_the_calmer_the_run_the_fewer_deaths_are_enough(answers, needed):
    deaths = answered(answers)
    assert [deaths.died(7) for _ in range(needed)] == [0] * (needed - 1) + [needed]


@pytest.mark.parametrize(("elsewhere", "needed"), [(0, 4), (1, 5), (2, 6), (3, 6), (5, 7)])
def test_the_more_slaves_die_elsewhere_the_more_deaths_are_needed(elsewhere, needed):
    deaths = answered(50)
    for number in range(elsewhere):
        deaths.died(number)
    assert [deaths.died(99) for _ in range(needed)] == [0] * (needed - 1) + [needed]


def test_a_piece_that_was_computed_in_the_end_begins_anew():
    deaths = answered(1000)
    deaths.died(7)
    deaths.died(7)
    deaths.settle(7)
    deaths.settle(8)  # where nobody died
    assert deaths.died(7) == 0


def test_two_pieces_that_kill_are_both_found():
    deaths = answered(200)
    found = [deaths.died(number) for _ in range(8) for number in (1, 2)]
    assert sum(one > 0 for one in found) > 0


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_no_piece_is_blamed_where_any_job_may_kill(share):
    chance = random.Random(1)
    for _ in range(200):
        deaths = Deaths()
        for number in range(300):
            while chance.random() < share:
                assert deaths.died(number) == 0
            deaths.answered()
            deaths.settle(number)


def test_the_run_fails_and_names_the_piece_at_which_slaves_die():
    stage = Stage(prefetch=1)
    stage(Heard(b"well", hello("well")))
    stage(pieces(400))
    for _ in range(300):
        ((client, lease),) = [
            (one.client, lease) for one in stage.master.crowd for lease in one.owed
        ]  # fmt: skip
        stage.says(client, update(lease))
    gave_up = []
    for life in range(10):
        name = str(life).encode()
        ((client, lease),) = leases(stage(Heard(name, hello(str(life)))))
        gave_up = of(stage(Lost(client, "killed by SIGSEGV")), GiveUp)
        if gave_up:
            break
    ((given),) = gave_up
    assert life == 3
    assert given.is_deadly
    assert given.piece.number == lease.number
    assert "4 slaves died while they computed piece" in given.failure.reason
    assert "SIGSEGV" in given.failure.reason
    assert "run without slaves" in given.failure.reason


def test_a_piece_at_which_slaves_fall_silent_counts_as_well():
    stage = Stage(b"a", prefetch=1)
    ((_, lease),) = leases(stage(pieces(1)))
    put_out = []
    while not put_out:
        put_out = of(stage(Tick(), at=stage.now + 0.25), PutOut)
    assert stage.master._deaths._at[lease.number] == 1


def test_a_slave_that_was_silent_before_it_got_a_piece_says_nothing_about_it():
    stage = Stage(b"a", b"b", prefetch=1)
    ((_, lease),) = leases(stage(pieces(1)))
    holder = next(one for one in stage.master.crowd if one.owed)
    other = next(one for one in stage.master.crowd if not one.owed)
    # both are stopped at once: the piece goes to the other, who never hears of it
    while not holder.is_gone or not other.is_gone:
        stage(Tick(), at=stage.now + 0.25)
    assert stage.master._deaths._at[lease.number] == 1


def test_an_idle_slave_that_dies_says_nothing_about_pieces():
    stage = Stage(b"a")
    stage(Lost(b"a", "killed"))
    assert not stage.master._deaths._at


def test_a_piece_that_slave_after_slave_answers_wrongly_ends_the_run():
    stage = Stage(prefetch=1)
    stage(pieces(1))
    gave_up = []
    for life in range(20):
        name = str(life).encode()
        ((client, lease),) = leases(stage(Heard(name, hello(str(life)))))
        actions = stage(Rejected(client, lease, "the update has no 'count'", is_lie=True))
        assert of(actions, PutOut)
        gave_up = of(actions, GiveUp)
        if gave_up:
            break
    ((given),) = gave_up
    assert life == 7  # nobody has answered yet, so many are needed
    assert given.is_deadly
    assert "8 slaves sent updates of piece" in given.failure.reason
    assert "no 'count'" in given.failure.reason
