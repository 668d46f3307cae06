"""Bounded staleness: who may begin, who is freed by a loss, and that somebody always may."""

from __future__ import annotations

from veloflow.protocol.clocks import Clocks
from veloflow.protocol.ledger import Ledger
from veloflow.protocol.messages import Piece


class Desk:
    """A ledger with clocks, and pieces without end."""

    def __init__(self, bound):
        self.ledger = Ledger()
        self.clocks = Clocks(self.ledger, bound)
        self.count = 0

    def give(self, slave):
        """Give a slave a new piece if it may begin one; return the lease or None."""
        if not self.clocks.may_begin(slave):
            return None
        self.ledger.add([Piece(self.count, 0, 2, 0, 1)])
        self.clocks.granted(slave, self.count, again=False)
        lease = self.ledger.lease_this(self.count, slave)
        self.count += 1
        self.clocks.validate()
        return lease

    def end(self, lease, *, applied=True):
        self.ledger.complete(lease.id, lease.slave)
        self.ledger.forget(lease.id.number)
        if applied:
            self.clocks.applied(lease.id.number)
        self.clocks.validate()


def test_the_fast_one_waits_for_the_slow_one():
    desk = Desk(2)
    slow = desk.give("slow")
    for _ in range(3):  # clocks 0, 1, 2
        desk.end(desk.give("fast"))
    assert desk.give("fast") is None
    desk.end(slow)
    assert desk.give("fast") is not None


def test_with_0_all_go_in_step():
    desk = Desk(0)
    a, b = desk.give("a"), desk.give("b")
    assert desk.give("a") is None  # nor in advance
    desk.end(a)
    assert desk.give("a") is None
    desk.end(b)
    assert desk.give("a") is not None


def test_an_update_counts_when_it_can_be_seen():
    desk = Desk(0)
    first = desk.give("a")
    desk.end(first, applied=False)
    assert desk.give("a") is None
    desk.clocks.applied(first.id.number)
    assert desk.give("a") is not None


def test_the_loss_of_the_slowest_frees_the_others():
    desk = Desk(1)
    desk.give("slow")
    for _ in range(2):
        desk.end(desk.give("fast"))
    assert desk.give("fast") is None
    desk.ledger.lose("slow")
    assert desk.give("fast") is not None


def test_a_second_lease_has_the_clock_of_the_first():
    desk = Desk(1)
    slow = desk.give("slow")
    for _ in range(2):
        desk.end(desk.give("fast"))
    desk.clocks.granted("fast", slow.id.number, again=True)
    again = desk.ledger.lease_again(slow.id.number, "fast")
    desk.clocks.validate()
    desk.end(again)
    assert desk.give("fast") is not None


def test_who_joins_late_begins_where_the_slowest_is():
    desk = Desk(1)
    last = desk.give("a")
    for _ in range(9):
        desk.end(last)
        last = desk.give("a")
    late = desk.give("b")
    desk.end(last)
    assert desk.give("a") is not None
    desk.end(late)


def test_who_has_nothing_to_do_holds_nobody_back():
    desk = Desk(0)
    desk.end(desk.give("idle"))
    for _ in range(5):
        desk.end(desk.give("busy"))


def test_without_a_bound_nobody_is_held_back():
    desk = Desk(None)
    desk.give("slow")
    for _ in range(50):
        desk.end(desk.give("fast"))
