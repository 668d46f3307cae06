"""Rules of the master that its stories do not show: found by mutants that nothing else killed."""

from __future__ import annotations

from tests.protocol.test_master import Stage, granted, hello, pieces, update
from veloflow.protocol.events import (
    Applied,
    BoundChanged,
    Exposed,
    GiveUp,
    Grant,
    Heard,
    Lost,
    PutOut,
    Rejected,
    Send,
    Tick,
)
from veloflow.protocol.messages import Beat, Failure, GiveBack, Introduce, LeaseId


def grants(actions):
    return [one for one in actions if isinstance(one, Grant)]


def gave_up(actions):
    return [one for one in actions if isinstance(one, GiveUp)]


def wide(*names: bytes, **settings):
    """Return a stage with slaves that hold three jobs each."""
    stage = Stage(prefetch=3, **settings)
    for name in names:
        stage.says(name, hello(name.decode(), capacity=3))
    return stage


def test_the_bound_of_staleness_holds_and_can_be_changed():
    stage = wide(b"a", b"b", bound=0)
    first = grants(stage(pieces(6)))
    assert granted(first) == [(b"a", 0), (b"b", 1)]
    for one in first:
        assert granted(stage.answer(one.client, one)) == []  # nobody sees the updates yet
    assert granted(stage(Applied(0))) == []
    second = grants(stage(Applied(1)))
    assert granted(second) == [(b"a", 2), (b"b", 3)]
    for one in second:
        stage.answer(one.client, one)
    stage(Applied(2))
    third = grants(stage(Applied(3)))
    for one in third:
        stage.answer(one.client, one)
    for number in (4, 5):
        stage(Applied(number))
    stage(BoundChanged(1))
    assert granted(stage(pieces(6, 6))) == [(b"a", 6), (b"b", 7), (b"a", 8), (b"b", 9)]


def test_a_beat_of_another_run_is_nobodys_even_before_ones_own():
    stage = Stage(b"a")
    stranger = stage.says(b"x", Beat("s1", 1, run="another run"))
    assert stranger == [Send(b"x", Introduce("another run"))]
    assert stage.beat(b"a") == [Send(b"beat of a", Beat("s1", 0))]


def test_who_advances_is_never_stuck():
    stage = Stage(b"a", prefetch=1)
    stage(pieces(1))
    for step in range(4 * 620):  # one that does not advance is put out after 600 s
        stage.now += 0.25
        assert not any(isinstance(one, PutOut) for one in stage.beat(b"a", progress=step))


def test_who_gives_back_its_first_piece_has_begun_with_the_next():
    stage = Stage(b"a", b"b")
    stage(pieces(4))
    stage.says(b"a", GiveBack(LeaseId(0, 0)), at=5.0)
    slave = stage.master.crowd.by_client[b"a"]
    assert slave.started == 5.0
    assert next(iter(slave.owed)).number == 2


def test_a_lie_counts_against_its_own_piece_and_the_reason_is_told():
    stage = Stage(prefetch=1)
    stage(pieces(12))
    for life in range(10):  # each lies about another piece, and the run goes on
        name = str(life).encode()
        [one] = grants(stage(Heard(name, hello(str(life)), is_local=True)))
        stage.master.ledger.validate()
        lie = Rejected(name, LeaseId(life, 0), "no 'count'", is_lie=True)
        assert not gave_up(stage(lie))
        assert life in stage.master._lies._at
        assert one.lease.number == 0


def test_what_ends_the_run_names_the_piece_the_lease_and_no_unit():
    liar, dying = Stage(prefetch=1), Stage(prefetch=1)
    for stage in (liar, dying):
        stage(pieces(1))
        found = []
        for life in range(20):
            name = str(life).encode()
            [one] = grants(stage(Heard(name, hello(str(life)))))
            if stage is liar:
                found = gave_up(stage(Rejected(name, one.lease, "no 'count'", is_lie=True)))
            else:
                found = gave_up(stage(Lost(name, "killed")))
            if found:
                break
        [end] = found
        assert end.piece == one.piece
        assert (end.failure.lease, end.failure.unit) == (one.lease, "")
        if stage is liar:
            assert end.failure.reason.endswith(
                "; a unit's make_update gives something else than it gave before the run"
            )


def test_a_piece_that_is_done_is_forgotten_in_all_books():
    stage = Stage(b"a", b"b", prefetch=1)
    [one, _] = grants(stage(pieces(2)))
    stage.says(b"a", Failure(one.lease, "unit", "why"))
    stage.master._deaths.died(0)
    stage.master._lies.died(0)
    lease = next(iter(stage.master.crowd.by_client[b"b"].owed))
    again = grants(stage.says(b"b", update(lease)))
    [mine] = [each for each in again if each.lease.number == 0]
    assert stage.master.is_last_word(mine.client, mine.lease)
    stage.says(mine.client, update(mine.lease))
    assert 0 not in stage.master._failed
    assert not stage.master._deaths._at
    assert not stage.master._lies._at


def test_each_spoiler_is_counted():
    stage = Stage(b"a", b"b", b"c")
    for id_ in ("s1", "s2"):
        stage.master._expose(id_, 0)
    stage.master._expose("s1", 1)  # once more, for another piece
    assert stage.master.counters["spoiled"] == 2
    assert sum(isinstance(one, Exposed) for one in stage.master._actions) == 2
    assert not stage.master.crowd.by_id["s3"].is_gone
    stage(Tick(), stage.now)


def test_a_silent_slave_that_is_heard_by_its_hello_is_well_at_that_time():
    stage = Stage(b"a")
    stage(Heard(b"a", hello("a"), is_local=True), at=0.7)
    assert stage.master.crowd.by_client[b"a"].heard == 0.7
