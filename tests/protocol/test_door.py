"""Who is let in, who is asked for a name, and how long either is remembered."""

from __future__ import annotations

import pytest

from tests.protocol.test_master import hello
from veloflow.protocol import door as module
from veloflow.protocol.door import Door


def lose(door, name, times, at=0.0):
    for _ in range(times):
        door.lost(hello(name), at)


def test_who_was_lost_five_times_within_a_minute_stays_out():
    door = Door("same", 2.0, 1.0)
    lose(door, "a", 4, at=10.0)
    assert not door.objection(hello("a"), False, 20.0)
    lose(door, "a", 3, at=10.0)
    for now in (20.0, 129.9):
        reason = "it was lost 5 times within a minute; mend it first"
        assert door.objection(hello("a"), False, now) == reason
    assert not door.objection(hello("a"), True, 20.0)
    assert not door.objection(hello("b"), False, 20.0)
    assert not door.objection(hello("a"), False, 130.0)


def test_a_flood_of_names_is_not_remembered(monkeypatch):
    monkeypatch.setattr(module, "_MEMORY", 3)
    door = Door("same", 1.0, 1.0)
    lose(door, "a", 5)
    lose(door, "b", 1)
    assert door.objection(hello("a"), False, 1.0)
    lose(door, "c", 1)
    lose(door, "d", 1)
    assert not door.objection(hello("a"), False, 1.0)


def test_a_stranger_is_asked_now_and_then():
    door = Door("same", 1.0, 2.0)
    assert door.is_to_ask(b"a", 0.0)
    assert not door.is_to_ask(b"a", 1.9)
    assert door.is_to_ask(b"b", 1.9)
    assert door.is_to_ask(b"a", 2.0)
    door.let_in(b"a")
    assert door.is_to_ask(b"a", 2.1)


def test_a_flood_of_strangers_is_not_remembered(monkeypatch):
    monkeypatch.setattr(module, "_MEMORY", 3)
    door = Door("same", 1.0, 9.0)
    assert all(door.is_to_ask(client, 0.0) for client in (b"a", b"b", b"c"))
    assert not door.is_to_ask(b"a", 1.0)
    assert door.is_to_ask(b"d", 1.0)
    assert door.is_to_ask(b"a", 1.0)


@pytest.mark.parametrize("patience", [0.5, 1.0])
def test_patience_scales_the_memory_of_losses(patience):
    door = Door("same", patience, 1.0)
    lose(door, "a", 5)
    assert door.objection(hello("a"), False, 60 * patience - 0.1)
    assert not door.objection(hello("a"), False, 60 * patience)
