"""Slots of shared memory: each is somebody's, and none is lost."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.protocol.messages import PROTOCOL, Hello, LeaseId
from veloflow.runtime.master.links import Links
from veloflow.runtime.transport.shared_memory import Outbox

SLOTS = 4


@pytest.fixture
def links(tmp_path):
    one = Links(tmp_path, 10, np.dtype("f4"), prefetch=2)
    for name in ("a", "b"):
        outbox = Outbox(tmp_path / f"memory of {name}", 10, "f4", SLOTS, create=True)
        outbox[0][:] = 1
        hello = Hello(PROTOCOL, "same", name, "numpy", "cpu", "host", 1, f"memory of {name}")
        assert one.connect(name.encode(), hello) == ""
    return one


def free(links, client=b"a"):
    return sorted(links[client].slots)


def test_many_attempts_at_one_piece_need_no_more_slots_than_one(links):
    """A master that was stopped finds its slaves silent, and each time it is another lease."""
    for attempt in range(20):
        links.grant(b"a", LeaseId(7, attempt))
        assert len(free(links)) == SLOTS - 1
        links.answered(b"a", LeaseId(7, attempt))
        links.answered(b"a", LeaseId(7, attempt))
    assert free(links) == list(range(SLOTS))


def test_the_winners_slot_is_free_when_it_has_been_read(links):
    links.grant(b"a", LeaseId(1, 0))
    links.grant(b"b", LeaseId(1, 1))
    links.accept(b"a", LeaseId(1, 0))
    assert len(free(links)) == SLOTS - 1
    assert free(links, b"b") == list(range(SLOTS))
    links.answered(b"a", LeaseId(1, 0))
    assert len(free(links)) == SLOTS - 1
    links.release(1)
    links.release(1)
    assert free(links) == list(range(SLOTS))


def test_the_slots_of_what_is_withdrawn_are_free(links):
    links.grant(b"a", LeaseId(1, 0))
    links.grant(b"b", LeaseId(1, 1))
    links.withdraw(1)
    links.withdraw(2)
    assert free(links) == free(links, b"b") == list(range(SLOTS))
