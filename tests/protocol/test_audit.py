"""The audit: who is asked a second time, who judges, and how soon a spoiler is found."""

from __future__ import annotations

import random

import pytest

from tests.protocol.test_master import Stage, hello, update
from veloflow.protocol.audit import Audit, Opinion
from veloflow.protocol.events import (
    Apply,
    Exposed,
    GiveUp,
    Grant,
    Heard,
    PutOut,
    Recruit,
    WorkAdded,
)
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import Piece
from veloflow.testing import FaultPlan, Simulation

KIND = ("null", "cpu")


def audited(share=1.0):
    audit = Audit(share, 0)
    audit.choose(0)
    return audit


def test_two_equal_answers_settle_a_piece():
    audit = audited()
    assert audit.weigh(0, "s1", KIND, b"x") is Opinion.ANOTHER
    assert audit.weigh(0, "s2", KIND, b"x") is Opinion.SETTLED
    assert audit.is_confirmed(0)
    assert audit.outvoted(0, b"x") == []


def test_a_third_judges_where_two_differ():
    audit = audited()
    audit.weigh(0, "s1", KIND, b"x")
    assert audit.weigh(0, "s2", KIND, b"y") is Opinion.JUDGE
    assert list(audit.disputed) == [0]
    assert audit.weigh(0, "s3", KIND, b"x") is Opinion.SETTLED
    assert audit.outvoted(0, b"x") == ["s2"]
    audit.settle(0)
    assert not audit.disputed
    assert 0 not in audit


def test_three_different_answers_are_hopeless():
    audit = audited()
    opinions = [audit.weigh(0, f"s{n}", KIND, bytes([n])) for n in range(3)]
    assert opinions[-1] is Opinion.HOPELESS


@pytest.mark.parametrize(("slave", "kind"), [("s1", KIND), ("s2", ("opencl", "cpu"))])
def test_the_same_slave_or_another_kind_of_it_proves_nothing(slave, kind):
    audit = audited()
    audit.weigh(0, "s1", KIND, b"x")
    assert audit.weigh(0, slave, kind, b"x") is Opinion.SETTLED
    assert not audit.is_confirmed(0)


def test_no_share_audits_nothing():
    assert 0 not in audited(share=0.0)


@pytest.mark.parametrize(("share", "spoils"), [(0.1, 0.5), (0.3, 0.1), (1.0, 0.05), (0.05, 1.0)])
def test_a_spoiler_is_found_after_n_updates_with_the_probability_that_is_promised(share, spoils):
    """1 - (1 - a f)^n, against 3,000 spoilers; 4 standard deviations are allowed."""
    chance, trials, updates = random.Random(5), 3000, 20
    found = 0
    for trial in range(trials):
        audit = Audit(share, trial)
        for number in range(updates):
            audit.choose(number)
            if number not in audit:
                continue
            audit.weigh(number, "honest", KIND, b"right")
            answer = b"wrong" if chance.random() < spoils else b"right"
            audit.weigh(number, "spoiler", KIND, answer)
        found += bool(audit.disputed)
    promised = 1 - (1 - share * spoils) ** updates
    deviation = (promised * (1 - promised) / trials) ** 0.5
    assert abs(found / trials - promised) <= 4 * deviation


class AuditStage(Stage):
    """A stage whose master audits everything; slaves answer with a digest."""

    def __init__(self, *slaves: bytes):
        super().__init__(prefetch=1)
        self.master = Master(MasterSettings("run", "same", prefetch=1, audit=1.0, seed=3))
        for slave in slaves:
            self.send(Heard(slave, hello()))

    def send(self, event):
        self.now = getattr(self, "now", 0.0) + 0.001
        actions = self.master.handle(event, self.now)
        self.master.validate()
        return actions

    def answer(self, client, lease, digest):
        return self.send(Heard(client, update(lease), digest=digest))


def granted(actions):
    return [(one.client, one.lease) for one in actions if isinstance(one, Grant)]


def only(actions, sort):
    return [one for one in actions if isinstance(one, sort)]


def one_piece():
    return WorkAdded((Piece(0, 0, 2, 0, 10),))


def test_a_wrong_bit_is_found_and_its_slave_put_out():
    stage = AuditStage(b"a", b"b", b"c")
    ((first, lease),) = granted(stage.send(one_piece()))
    actions = stage.answer(first, lease, b"right")
    assert not only(actions, Apply)
    ((second, lease),) = granted(actions)
    assert second != first
    ((third, lease),) = granted(stage.answer(second, lease, b"wrong"))
    assert third not in (first, second)
    actions = stage.answer(third, lease, b"right")
    assert [one.client for one in only(actions, Apply)] == [third]
    assert [one.client for one in only(actions, PutOut)] == [second]
    assert len(only(actions, Exposed)) == 1


def test_with_two_slaves_one_more_is_called_to_judge():
    stage = AuditStage(b"a", b"b")
    ((first, lease),) = granted(stage.send(one_piece()))
    ((second, lease),) = granted(stage.answer(first, lease, b"right"))
    actions = stage.answer(second, lease, b"wrong")
    assert len(only(actions, Recruit)) == 1
    assert not granted(actions)
    actions = stage.send(Heard(b"c", hello()))
    assert not only(actions, Recruit)
    ((third, lease),) = granted(actions)
    assert third == b"c"
    actions = stage.answer(third, lease, b"wrong")
    assert [one.client for one in only(actions, PutOut)] == [first]


def test_a_slave_alone_is_not_audited_and_not_waited_for():
    stage = AuditStage(b"a")
    ((first, lease),) = granted(stage.send(one_piece()))
    assert only(stage.answer(first, lease, b"right"), Apply)
    assert stage.master.counters["not audited"] == 1


def test_what_is_not_deterministic_ends_the_run():
    stage = AuditStage(b"a", b"b", b"c")
    ((client, lease),) = granted(stage.send(one_piece()))
    ((client, lease),) = granted(stage.answer(client, lease, b"1"))
    ((client, lease),) = granted(stage.answer(client, lease, b"2"))
    (end,) = only(stage.answer(client, lease, b"3"), GiveUp)
    assert "not deterministic" in end.failure.reason


def test_with_all_audited_no_wrong_bit_ever_counts():
    plan = FaultPlan(flip=0.2, kill=0.02, double=0.02)
    exposed = 0
    for seed in range(60):
        outcome = Simulation(seed, plan=plan, slaves=4, audit=1.0).run()
        exposed += outcome.events["exposed"]
        # a piece counts unaudited only while nobody else is there
        assert len(outcome.wrong) <= outcome.counters["not audited"]
    assert exposed > 60


def test_without_an_audit_wrong_bits_do_count():
    wrong = [Simulation(n, plan=FaultPlan(flip=0.2), audit=0.0).run().wrong for n in range(5)]
    assert any(wrong)
