"""Which slave gets which piece: wishes, pieces of a block, second leases, what is late no more."""

from __future__ import annotations

import pytest

from tests.protocol.test_clocks import Desk
from tests.protocol.test_master import Stage, granted, hello, pieces, update
from veloflow.protocol.events import Lost, Tick, Withdrawn, WorkAdded
from veloflow.protocol.messages import Failure, LeaseId


def wished(*slaves: str):
    return WorkAdded(pieces(len(slaves)).pieces, wishes=slaves)


def test_a_piece_goes_to_the_slave_that_it_was_cut_for():
    stage = Stage(b"a", b"b", b"c", prefetch=1)
    assert granted(stage(wished("s3", "s1", "s2"))) == [(b"c", 0), (b"a", 1), (b"b", 2)]


def test_a_piece_goes_to_anybody_when_that_slave_is_not_free_or_not_there():
    stage = Stage(b"a", b"b", prefetch=1)
    assert granted(stage(wished("s2", "s2"))) == [(b"b", 0), (b"a", 1)]
    stage.says(b"a", update(LeaseId(1, 0)))
    assert granted(stage(WorkAdded(pieces(1, first=2).pieces, wishes=("s9",)))) == [(b"a", 2)]


def test_a_piece_that_failed_where_it_was_wished_goes_elsewhere():
    stage = Stage(b"a", b"b", prefetch=1)
    assert granted(stage(wished("s2"))) == [(b"b", 0)]
    assert granted(stage.says(b"b", Failure(LeaseId(0, 0), "u", "it broke"))) == [(b"a", 0)]


def test_a_part_of_a_block_is_not_taken_by_an_idle_slave_before_it_is_late():
    stage = Stage(b"a")
    stage(WorkAdded(pieces(2).pieces, is_shared=True))
    stage(Lost(b"nobody", ""))
    assert granted(stage.says(b"b", hello("b"))) == []  # s1 has not begun with the second one
    stage.says(b"a", update(LeaseId(0, 0)))
    stage(Withdrawn((1,)))
    assert len(stage.master.ledger) == 0


def test_pieces_that_are_no_part_of_a_block_are_taken_and_counted():
    stage = Stage(b"a")
    stage(pieces(3))
    assert granted(stage.says(b"b", hello("b"))) == [(b"b", 2)]
    assert granted(stage.says(b"b", update(LeaseId(2, 0)))) == [(b"b", 1)]
    assert stage.master.counters["speculated"] == 1
    stage.says(b"b", update(LeaseId(1, 1)))
    assert granted(stage(pieces(3, first=3))) == [(b"b", 3), (b"b", 4)]
    assert granted(stage.says(b"c", hello("c"))) == [(b"c", 5)]
    assert granted(stage.says(b"c", update(LeaseId(5, 0)))) == [(b"c", 4)]
    assert stage.master.counters["speculated"] == 2


def test_nobody_wakes_up_for_a_piece_that_has_its_answer():
    stage = Stage(b"a")
    for number in range(20):
        [grant] = stage(pieces(1, first=number), at=0.1 * number)
        stage.answer(b"a", grant, at=0.1 * number + 0.01)
        silent = stage.master.crowd.by_client[b"a"].look_at
        assert stage.master.deadline == silent
    [grant] = stage(pieces(1, first=20), at=2.0)
    late = stage.master.deadline
    assert late == pytest.approx(2.0 + 0.03)
    stage(pieces(1, first=21), at=2.01)
    assert stage.master.deadline == late  # of the one that it computes still
    stage.answer(b"a", grant, at=2.02)
    assert stage.master.deadline == pytest.approx(2.02 + 0.03)
    stage(Tick(), at=2.1)


def test_another_bound_holds_for_all_who_begin_after():
    desk = Desk(None)
    desk.clocks.change(1)
    assert desk.clocks.is_bounded
    slow = desk.give("a")
    first = desk.give("b")
    assert desk.give("b")
    assert desk.give("b") is None
    desk.end(first)
    assert desk.give("b") is None  # the other one is as far as it was
    desk.end(slow)
    assert desk.give("b")


def test_who_is_too_far_ahead_is_found():
    desk = Desk(0)
    desk.give("a")
    desk.give("b")
    desk.ledger.add(pieces(1, first=9).pieces)
    desk.clocks.granted("b", 9, again=False)  # which nobody may do now
    desk.ledger.lease_this(9, "b")
    with pytest.raises(AssertionError, match="clocks 0 to 1"):
        desk.clocks.validate()
