"""Sums in a fixed order: the same bits, whoever comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veloflow.sharing import OrderedSum


def vectors(seed, count, size=17, dtype=np.float32):
    """Return vectors of very different sizes, so that the order of adding shows."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.integers(-6, 7, (count, 1))
    return (random.standard_normal((count, size)) * scale).astype(dtype)


def added(numbers, given_vectors):
    """Return the bytes of the sum of vectors that arrive in this order."""
    total = OrderedSum(np.full_like(given_vectors[0], np.nan))
    for number in numbers:
        total.add(number, given_vectors[number])
    assert total.count == len(given_vectors)
    return total.total.tobytes()


def test_the_order_of_adding_would_show():
    given_vectors = vectors(0, 6)
    forwards, backwards = given_vectors[0].copy(), given_vectors[-1].copy()
    for one in given_vectors[1:]:
        forwards += one
    for one in given_vectors[-2::-1]:
        backwards += one
    assert forwards.tobytes() != backwards.tobytes()


@given(
    seed=st.integers(0, 1000),
    order=st.integers(1, 12).flatmap(lambda count: st.permutations(range(count))),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_order_of_arrival_gives_the_bits_of_a_plain_loop(seed, order, dtype):
    given_vectors = vectors(seed, len(order), dtype=dtype)
    plain = given_vectors[0].copy()
    for one in given_vectors[1:]:
        plain = plain + one
    assert added(order, given_vectors) == plain.tobytes()


@given(order=st.permutations(range(6)), doubled=st.integers(0, 5), place=st.integers(1, 6))
def test_a_double_is_refused_and_changes_nothing(order, doubled, place):
    given_vectors = vectors(1, 6)
    total = OrderedSum(np.zeros_like(given_vectors[0]))
    for n, number in enumerate(order):
        if n == place and doubled in order[:n]:
            with pytest.raises(ValueError, match=f"vector {doubled} is in the sum already"):
                total.add(doubled, given_vectors[doubled] + 1)
        total.add(number, given_vectors[number])
    assert total.total.tobytes() == added(range(6), given_vectors)


def test_a_vector_may_change_after_it_was_added():
    given_vectors = vectors(2, 4)
    total = OrderedSum(np.zeros_like(given_vectors[0]))
    buffer = np.empty_like(given_vectors[0])
    for number in (2, 0, 3, 1):
        np.copyto(buffer, given_vectors[number])
        total.add(number, buffer)
        buffer.fill(np.nan)
    assert total.total.tobytes() == added(range(4), given_vectors)


def test_one_vector_is_its_own_sum_to_the_last_bit():
    vector = np.array([-0.0, 1e-45, 3e38, -1.5], np.float32)
    assert added([0], vector[None]) == vector.tobytes()


def test_early_ones_are_not_counted_before_their_turn():
    given_vectors = vectors(3, 3)
    total = OrderedSum(np.zeros_like(given_vectors[0]))
    counts = []
    for number in (1, 2, 0):
        total.add(number, given_vectors[number])
        counts.append(total.count)
    assert counts == [0, 0, 3]


def test_a_new_sum_forgets_the_old_one_whole_or_not():
    given_vectors = vectors(4, 3)
    total = OrderedSum(np.zeros_like(given_vectors[0]))
    for begun in ([0, 1, 2], [0], [2], []):
        for number in begun:
            total.add(number, given_vectors[number])
        total.restart()
        assert total.count == 0
        for number in (2, 1, 0):
            total.add(number, given_vectors[number])
        assert total.total.tobytes() == added(range(3), given_vectors)
        total.restart()
