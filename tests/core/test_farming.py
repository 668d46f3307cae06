"""Farmed work as units see it: the size of a part, and what a unit does that says nothing."""

from __future__ import annotations

import pytest
from actors import cast, chain, play, stage
from hypothesis import given
from hypothesis import strategies as st

from veloflow.core import Batch, Part, Repeater, Unit, shard_size


@pytest.mark.parametrize(
    ("minibatch", "shards", "size"),
    [
        (64, 1, 64), (64, 4, 16), (60, 7, 9), (60, 1024, 1), (1, 1, 1),
        (1, 0, 1), (32, 0, 16), (64, 0, 32), (60, 0, 30), (100, 0, 34),
        (128, 0, 32), (256, 0, 32), (512, 0, 64), (1000, 0, 125),
    ],
)  # fmt: skip
def test_size_of_a_part(minibatch, shards, size):
    assert shard_size(minibatch, shards) == size


@given(minibatch=st.integers(1, 5000), shards=st.integers(0, 1024))
def test_parts_cover_a_minibatch_and_are_no_more_than_asked_for(minibatch, shards):
    size = shard_size(minibatch, shards)
    parts = -(-minibatch // size)
    assert 1 <= size <= minibatch
    assert parts <= (shards or 8)
    if shards == 0 and minibatch > 1:
        assert parts >= 2


def test_a_unit_that_says_nothing_works_on_the_master_and_rests_on_a_slave():
    for role, story in (("alone", "a b"), ("master", "a b"), ("slave", "")):
        wf = stage()
        wf.role = role
        chain(wf.start, *cast(wf, "a b"), wf.end)
        assert play(wf) == story


def test_each_role_has_a_method_of_its_own():
    class Worker(Unit):
        def run(self):
            said.append("alone")

        def run_as_master(self):
            said.append("master")

        def run_as_slave(self):
            said.append("slave")

    said: list[str] = []
    for role in ("alone", "master", "slave"):
        wf = stage()
        wf.role = role
        chain(wf.start, Worker(wf), wf.end)
        play(wf)
    assert said == ["alone", "master", "slave"]


def test_a_unit_has_nothing_to_tell_by_default():
    wf = stage()
    unit = Repeater(wf)
    part = Part(Batch(2, 0, 0, 4, 4, range(4)), 0, 2)
    assert unit.make_job(part) == {}
    assert unit.make_update() == {}
    unit.take_job({"anything": 1})
    unit.apply_update([{}, {}])
