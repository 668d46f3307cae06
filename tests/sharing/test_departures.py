"""Gradients leave in pieces: each number once, none before it is complete."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veloflow.sharing.departures import Departures


def test_the_last_layer_leaves_first():
    departures = Departures(100, 10)
    assert departures.complete(60, 100) == (60, 100)
    assert departures.complete(0, 60) == (0, 60)
    assert departures.rest == []


def test_small_ranges_wait_for_their_neighbours():
    departures = Departures(100, 30)
    assert departures.complete(90, 100) is None
    assert departures.complete(70, 80) is None
    assert departures.complete(80, 90) == (70, 100)
    assert departures.complete(0, 20) is None
    assert departures.rest == [(0, 70)]


def test_a_layer_without_numbers_may_lie_in_what_has_gone():
    departures = Departures(2, 2)
    assert departures.complete(0, 1) is None
    assert departures.complete(1, 2) == (0, 2)
    assert departures.complete(1, 1) is None
    assert departures.rest == []


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=12),
    st.integers(1, 80),
    st.randoms(use_true_random=False),
)
def test_each_number_leaves_once_and_when_it_is_complete(sizes, least, random):
    places = [0]
    for size in sizes:
        places.append(places[-1] + size)
    layers = list(pairwise(places))
    random.shuffle(layers)
    done = layers[: random.randint(0, len(layers))]
    departures, complete, gone = Departures(places[-1], least), set(), []
    for start, stop in done:
        complete.update(range(start, stop))
        span = departures.complete(start, stop)
        if span is not None:
            assert span[1] - span[0] >= least
            assert complete.issuperset(range(*span))
            gone += range(*span)
    for start, stop in departures.rest:
        assert start < stop
        gone += range(start, stop)
    assert sorted(gone) == list(range(places[-1]))


def test_what_is_complete_does_not_become_so_again():
    departures = Departures(100, 30)
    departures.complete(0, 50)
    departures.complete(60, 70)
    for span in ((40, 60), (69, 80), (90, 110), (-1, 3)):
        with pytest.raises(ValueError, match="cannot be completed"):
            departures.complete(*span)
