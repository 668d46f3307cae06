"""The ledger: each piece exactly once, whatever is lost, late or said twice."""

from __future__ import annotations

import random

import pytest

from veloflow.protocol import LeaseId, Ledger, Piece, Verdict


def _pieces(count: int) -> list[Piece]:
    return [Piece(number, 0, 2, 10 * number, 10) for number in range(count)]


def test_a_lost_slaves_pieces_are_first_in_line() -> None:
    ledger = Ledger()
    ledger.add(_pieces(4))
    first, second = ledger.lease("a"), ledger.lease("a")
    assert first is not None
    assert second is not None
    assert [one.id for one in ledger.lose("a")] == [first.id, second.id]
    again = [ledger.lease("b") for _ in range(3)]
    assert [one.id for one in again if one] == [LeaseId(0, 1), LeaseId(1, 1), LeaseId(2, 0)]
    ledger.validate()


def test_the_first_of_two_answers_wins_and_the_other_is_late() -> None:
    ledger = Ledger()
    ledger.add(_pieces(1))
    slow = ledger.lease("slow")
    quick = ledger.lease_again(0, "quick")
    assert slow is not None
    assert ledger.complete(quick.id, "quick") == (Verdict.ACCEPTED, [slow])
    assert ledger.complete(slow.id, "slow") == (Verdict.LATE, [])
    assert ledger.complete(quick.id, "quick") == (Verdict.LATE, [])
    ledger.forget(0)
    assert ledger.complete(slow.id, "slow") == (Verdict.LATE, [])


def test_an_answer_that_nobody_asked_for_is_told_from_a_late_one() -> None:
    ledger = Ledger()
    ledger.add(_pieces(1))
    lease = ledger.lease("a")
    assert lease is not None
    assert ledger.complete(lease.id, "liar")[0] is Verdict.UNKNOWN
    assert ledger.complete(LeaseId(0, 7), "a")[0] is Verdict.UNKNOWN
    assert ledger.complete(lease.id, "a")[0] is Verdict.ACCEPTED


def test_what_cannot_be_is_refused() -> None:
    ledger = Ledger()
    ledger.add(_pieces(1))
    with pytest.raises(ValueError, match="already"):
        ledger.add(_pieces(1))
    with pytest.raises(ValueError, match="not done"):
        ledger.forget(0)
    with pytest.raises(ValueError, match="leased again"):
        ledger.lease_again(0, "a")


@pytest.mark.parametrize("seed", range(200))
def test_each_piece_is_accepted_once_in_any_story(seed: int) -> None:
    chance = random.Random(seed)
    ledger = Ledger()
    count = chance.randrange(1, 30)
    ledger.add(_pieces(count))
    given: list[tuple[LeaseId, str]] = []
    accepted: list[int] = []
    for _ in range(5000):
        slave = f"s{chance.randrange(5)}"
        move = chance.random()
        if move < 0.4:
            lease = ledger.lease(slave)
            if lease is not None:
                given.append((lease.id, slave))
        elif move < 0.5:
            ledger.lose(slave)
        elif move < 0.55:
            for entry in list(ledger.open):
                held = {one.slave for one in entry.leases}
                if held and slave not in held:
                    lease = ledger.lease_again(entry.piece.number, slave)
                    given.append((lease.id, slave))
                    break
        elif given:
            id_, holder = chance.choice(given)  # an answer may come late, twice, out of order
            if ledger.complete(id_, holder)[0] is Verdict.ACCEPTED:
                accepted.append(id_.number)
        ledger.validate()
        if len(accepted) == count:
            break
    assert sorted(accepted) == list(range(count))
    assert not list(ledger.open)


def test_every_answer_is_counted():
    ledger = Ledger()
    ledger.add(_pieces(3))
    first, second = ledger.lease("a"), ledger.lease("a")
    assert (ledger.late, ledger.unknown, ledger.returned) == (0, 0, 0)
    for _ in range(2):
        assert ledger.complete(first.id, "b")[0] is Verdict.UNKNOWN
    assert ledger.unknown == 2
    assert ledger.take_back(first.id)
    assert ledger.take_back(second.id)
    assert ledger.returned == 2
    for _ in range(2):
        assert ledger.complete(second.id, "a")[0] is Verdict.LATE
    for _ in range(2):
        assert ledger.complete(LeaseId(99, 0), "a")[0] is Verdict.LATE
    assert ledger.late == 4
    assert not ledger.is_current(LeaseId(99, 0))


def test_a_piece_that_waits_twice_is_seen():
    ledger = Ledger()
    ledger.add(_pieces(2))
    ledger._waiting.append(0)
    with pytest.raises(AssertionError, match="a piece waits twice"):
        ledger.validate()
