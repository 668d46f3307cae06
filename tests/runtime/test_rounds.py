"""Rounds ahead of the master: logs, orders, members that help out, blocks that are abandoned."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from veloflow.errors import StorageError
from veloflow.protocol.faults import FaultPlan
from veloflow.runtime.jobs.round_log import MOST_WORDS, LogShape, RoundLog
from veloflow.runtime.jobs.round_order import LOG, ORDER, STEP, SUM, Order, named, part_of
from veloflow.runtime.slaves.mischief import Mischief
from veloflow.runtime.slaves.rounds import Rounds

SHAPE = LogShape(rounds=3, shards=2, size=5, state=10, dtype="<f8")


def order(member=0, *, members=2, block=0, rounds=3, patience=1.0, logs=("a", "b")):
    return Order(block, SHAPE, (2,) * rounds, member, members, logs, 1, patience)


class Counting:
    """A worker and its replica: gradients tell who computed what, parameters are their sums."""

    many = 2

    def __init__(self):
        self.values = np.zeros(5)
        self.found = np.zeros(5)
        self.computed = []

    def compute(self, kind, jobs):
        self.computed.append((jobs["loader"]["at"], jobs["loader"]["shard"]))
        base = 10.0 * jobs["loader"]["at"] + jobs["loader"]["shard"]
        self.found = np.full(5, base) + self.values / 7
        pairs = np.zeros(self.many, np.int64)
        pairs[0] = base
        return {"evaluator": {"loss": base, "pairs": pairs}}

    def move(self, gradients):
        total = gradients[0].copy()
        for one in gradients[1:]:
            total += one
        self.values += total

    def save(self, out):
        out[:5], out[5:] = self.values, -1.0
        return {"gd": {"steps": 3}}


def jobs(rounds=3):
    return {
        named(at, shard, "loader"): {"at": at, "shard": shard}
        for at in range(rounds)
        for shard in range(2)
    }


def together(folder, *parts: Order, faults=""):
    """Compute parts in threads, each with a worker of its own; return workers and what they say."""
    workers = [Counting() for _ in parts]
    found = [None for _ in parts]

    def work(place, one):
        rounds = Rounds(workers[place], folder, one.logs[one.member])
        mischief = Mischief(FaultPlan.parse(faults), "slave1")
        found[place] = rounds.compute(one, jobs(), workers[place], mischief)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(parts)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    return workers, found


@pytest.fixture
def alone(tmp_path):
    (tmp_path / "alone").mkdir()
    [worker], _ = together(tmp_path / "alone", order(members=1, logs=("a",)))
    return worker.values


def test_an_order_comes_back_as_it_was():
    one = order(1, block=7, patience=0.5)
    assert Order.of(one.payload()) == one
    assert list(one.own(0)) == [1]
    assert one.number(2) == 7 * 3 + 3
    assert part_of({"step/gd": {"x": 1}, "stepper/gd": {}}, STEP) == {"gd": {"x": 1}}


def test_a_log_keeps_two_blocks_and_knows_which(tmp_path):
    mine = RoundLog(tmp_path / "log", SHAPE, create=True)
    theirs = RoundLog(tmp_path / "log", SHAPE)
    for block in range(4):
        number = SHAPE.first(block) + 2
        assert not theirs.has(number, 1)
        mine.gradient(number, 1)[:] = block
        mine.mark(number, 1)
        mine.state(block)[:] = 10 + block
        assert theirs.has(number, 1)
        assert (theirs.gradient(number, 1) == block).all()
        assert not theirs.has(number, 0)
        assert not theirs.has(number - 1, 1)
    assert not theirs.has(SHAPE.first(1) + 2, 1)
    assert theirs.has(SHAPE.first(2) + 2, 1)
    assert (theirs.state(2) == 12).all()
    assert (theirs.state(3) == 13).all()
    with pytest.raises(StorageError, match="another size"):
        RoundLog(tmp_path / "log", LogShape(5, 5, 5, 5, "<f8"))
    with pytest.raises(FileNotFoundError):
        RoundLog(tmp_path / "other", SHAPE)


def test_a_log_of_what_is_too_large_is_not_made():
    single, plenty = np.dtype("f4"), 1 << 40
    assert LogShape.fitting(2, 1000, 2000, single, plenty).rounds == 32
    assert LogShape.fitting(2, 1000, 2000, single, 1 << 17).rounds == 3
    assert LogShape.fitting(2, 1000, 2000, single, 1 << 15) is None
    assert LogShape.fitting(1, 400_000, 800_000, single, plenty).rounds == 8
    assert LogShape.fitting(2, 100_000_000, 200_000_000, single, plenty) is None


def test_two_members_find_what_one_finds_alone(tmp_path, alone):
    patient = {"patience": 1e5}
    workers, found = together(tmp_path, order(0, **patient), order(1, **patient))
    assert [one.values.tolist() for one in workers] == [alone.tolist()] * 2
    assert workers[0].computed == [(0, 0), (1, 0), (2, 0)]
    assert workers[1].computed == [(0, 1), (1, 1), (2, 1)]
    assert found[0][ORDER] == found[1][ORDER] == {SUM: alone.sum() - 5}
    assert found[0]["step/gd"] == {"steps": 3}
    assert "step/gd" not in found[1]
    assert found[1]["2.1/evaluator"]["loss"] == 21.0
    state = RoundLog(tmp_path / f"a{LOG}", SHAPE).state(0)
    assert (state[:5] == alone).all()
    assert (state[5:] == -1).all()


def test_a_member_that_does_not_come_is_waited_for_once(tmp_path, alone):
    [worker], _ = together(tmp_path, order(0, patience=0.1))
    assert worker.values.tolist() == alone.tolist()
    assert worker.computed == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    # who takes its part later finds all that the other has left, and need neither wait nor compute
    [late], found = together(tmp_path, order(1, patience=1000.0))
    assert late.computed == []
    assert late.values.tolist() == alone.tolist()
    assert found[0]["1.1/evaluator"]["loss"] == 11.0
    assert found[0]["1.1/evaluator"]["pairs"].tolist() == [11, 0]
    assert found[0]["1.1/evaluator"]["pairs"].dtype == np.int64


@pytest.mark.parametrize(("cores", "is_begun"), [(2, True), (2, False), (1, True), (1, False)])
def test_who_waits_computes_what_another_is_late_with_if_there_are_cores(
    tmp_path, alone, monkeypatch, cores, is_begun
):
    monkeypatch.setattr("veloflow.runtime.slaves.rounds._CORES", cores)
    monkeypatch.setattr("veloflow.runtime.slaves.rounds._SECONDS", 0.5)
    log = RoundLog(tmp_path / f"b{LOG}", SHAPE, create=True)
    if is_begun:
        log.begin(1, 1)  # and is ended at once
    began = time.perf_counter()
    [worker], _ = together(tmp_path, order(0))
    seconds = time.perf_counter() - began
    assert worker.values.tolist() == alone.tolist()
    assert worker.computed == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert seconds < 0.5 if cores == 2 else 0.5 <= seconds < 1.0


def test_words_that_are_long_or_written_anew_are_not_taken(tmp_path, monkeypatch):
    mine = RoundLog(tmp_path / "log", SHAPE, create=True)
    theirs = RoundLog(tmp_path / "log", SHAPE)
    mine.mark(1, 0, b"a" * MOST_WORDS)
    assert theirs.words(1, 0) == b"a" * MOST_WORDS
    mine.mark(1, 0, b"a" * (MOST_WORDS + 1))
    assert theirs.words(1, 0) == b""
    mine.mark(1, 1, b"of one")
    assert theirs.words(1, 1) == b"of one"
    # a gradient without words is computed anew: somebody must say what units said
    monkeypatch.setattr(Counting, "many", 600)
    [first], _ = together(tmp_path, order(0, patience=0.1))
    [late], found = together(tmp_path, order(1, patience=1000.0))
    assert first.computed[-1] == (2, 1)
    assert late.computed == [(0, 1), (1, 1), (2, 1)]
    assert found[0]["1.1/evaluator"]["loss"] == 11.0
    # nor are words taken that the other writes anew while they are read
    rounds = Rounds(Counting(), tmp_path, "c")
    rounds._open(order(0, logs=("c", "log")))
    mine.mark(1, 1, b"of one")
    monkeypatch.setattr(RoundLog, "words", lambda self, *_: mine.mark(7, 1) or b"torn")
    assert rounds._recall(1, 1) is None


def test_a_member_that_spoils_a_bit_spoils_it_for_all_alike(tmp_path, alone):
    """Copies do not part: what one has left is what all add up. An audit finds such a slave.

    Where another had computed the same they part, and the block is abandoned.
    """
    patient = {"patience": 1e5}
    workers, found = together(tmp_path, order(0, **patient), order(1, **patient), faults="spoil=1")
    assert np.isnan(found[0][ORDER][SUM])
    assert np.isnan(found[1][ORDER][SUM])
    assert np.isnan(workers[0].values[0])
    assert np.isnan(workers[1].values[0])
