"""Counter-based random numbers: NumPy's own Philox bits, whatever piece is asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veloflow.devices import random

WORDS = st.integers(0, 2**64 - 1)


def philox_block(key, first, stream):
    """Return the four words of one block, computed here from the paper's definition."""
    mask = 2**64 - 1
    c0, c1, c2, c3 = first, stream, 0, 0
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


@given(key=st.tuples(WORDS, WORDS), stream=WORDS, first=st.integers(0, 2**64 - 9))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_words_are_those_of_the_paper(key, stream, first):
    got = random.words(key, stream, first, 3)
    assert got.tolist() == [philox_block(key, first + n, stream) for n in range(3)]


def test_words_are_those_of_numpy():
    key = random.key_of(1, "unit")
    numpy = np.random.Philox(key=key[0] | key[1] << 64, counter=0)
    # NumPy leaves out the block at counter 0
    assert random.words(key, 0, 1, 10).reshape(-1).tolist() == numpy.random_raw(40).tolist()


@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, 24), (np.float64, 53)])
def test_numbers_are_the_top_bits(dtype, bits):
    key = (123, 456)
    got = random.uniform(key, 3, 6, stream=5, row=2, dtype=dtype)
    assert got.dtype == dtype
    for row in range(3):
        words = [w for n in range(2) for w in philox_block(key, (2 + row) * 2 + n, 5)]
        assert got[row].tolist() == [(w >> (64 - bits)) / 2**bits for w in words[:6]]


@given(st.integers(1, 40), st.integers(1, 9), st.lists(st.integers(0, 39), max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_minibatches_do_not_matter(rows, columns, cuts):
    key = random.key_of(3, "dropout")
    whole = random.uniform(key, rows, columns, stream=2, row=7, dtype=np.float32)
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    pieces = [
        random.uniform(key, stop - start, columns, stream=2, row=7 + start, dtype=np.float32)
        for start, stop in pairwise(edges)
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments(dtype):
    x = random.uniform(random.key_of(0), 1000, 100, stream=0, row=0, dtype=dtype).astype(float)
    assert x.min() >= 0
    assert x.max() < 1
    spread = 1 / np.sqrt(x.size)
    assert abs(x.mean() - 1 / 2) < 4 * spread * np.sqrt(1 / 12)
    assert abs((x**2).mean() - 1 / 3) < 4 * spread * np.sqrt(4 / 45)
    counts, _ = np.histogram(x, bins=20, range=(0, 1))
    chi_square = ((counts - x.size / 20) ** 2 / (x.size / 20)).sum()
    assert chi_square < 43.8  # 19 degrees of freedom, one in a thousand
    neighbours = [np.corrcoef(x[:, 0], x[:, 1])[0, 1], np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]]
    assert np.abs(neighbours).max() < 4 / np.sqrt(len(x))


def test_streams_keys_and_rows_differ():
    def draw(key, **place):
        return random.uniform(key, 1, 50, dtype=np.float64, **place).tobytes()

    drawn = [draw((a, b), stream=s, row=r)
             for a in (0, 1) for b in (0, 1) for s in (0, 1) for r in (0, 1)]  # fmt: skip
    assert len(set(drawn)) == 16


def test_keys():
    assert random.key_of(1, "a", 2) == random.key_of(1, "a", 2)
    keys = [random.key_of(*path) for path in ((1,), (2,), (1, "a"), (1, "b"), (1, "a", "b"))]
    assert len(set(keys)) == 5
    assert all(0 <= word < 2**64 for key in keys for word in key)


def test_generator_is_numpys_on_that_key():
    low, high = random.key_of(4, "weights")
    wanted = np.random.Generator(np.random.Philox(key=low | high << 64)).normal(size=5)
    np.testing.assert_array_equal(random.generator(4, "weights").normal(size=5), wanted)
