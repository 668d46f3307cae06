"""Codecs: conformance, what they cost in bytes, formulas by hand, and damaged parts."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veloflow.errors import NotFoundError, OptionError, WireError
from veloflow.sharing.codecs import (
    BFloat16,
    Float16,
    Int8,
    OneBit,
    Plain,
    Range,
    SufficientFactors,
    TopK,
    is_smaller,
    known_codecs,
    parse_codec,
    text_of,
)
from veloflow.testing import check_codec

MLP = (
    Range("fc1/weights", 0, (100, 784)),
    Range("fc1/bias", 78400, (100,)),
    Range("fc2/weights", 78512, (10, 100)),
    Range("fc2/bias", 79520, (10,)),
)
SIZE = 79536


def gradient(seed=0, dtype=np.float32):
    vector = np.zeros(SIZE, dtype)
    random = np.random.default_rng(seed)
    for one in MLP:
        vector[one.start : one.stop] = random.standard_normal(one.size)
    return vector


def sent(codec, vector, residual=None):
    """Return the bytes that travel, and what arrives."""
    parts = codec.encode(vector, MLP, residual)
    out = np.empty_like(vector)
    codec.decode(parts, MLP, out)
    return sum(array.nbytes for array in parts.values()), out


@pytest.mark.parametrize("name", sorted(known_codecs()))
def test_codec_conforms(name):
    if name in ("zstd", "lz4"):
        pytest.importorskip({"zstd": "zstandard", "lz4": "lz4"}[name])
    check_codec(parse_codec(name))


@pytest.mark.parametrize("codec", [OneBit(False), Int8(False), TopK(0.5, False), TopK(1.0)])
def test_other_settings_conform(codec):
    check_codec(codec)


@pytest.mark.parametrize(
    ("codec", "least"),
    [
        (Plain(), 1),
        (Float16(), 2),
        (BFloat16(), 2),
        (Int8(), 3.9),
        (OneBit(), 28),
        (TopK(), 40),
        (TopK(0.001), 400),
    ],
)
def test_bytes_of_a_gradient(codec, least):
    vector = gradient()
    residual = np.zeros_like(vector) if codec.has_feedback else None
    nbytes, _ = sent(codec, vector, residual)
    assert vector.nbytes / nbytes >= least


def test_one_bit_sends_the_means_of_each_neurons_weights():
    vector = gradient()
    residual = np.zeros_like(vector)
    _, arrived = sent(OneBit(), vector, residual)
    rows = vector[:78400].reshape(100, 784)
    for row, got in zip(rows, arrived[:78400].reshape(100, 784), strict=True):
        expected = np.where(row >= 0, row[row >= 0].mean(), row[row < 0].mean())
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(arrived + residual, vector, atol=1e-5)


def test_top_k_sends_the_largest_and_keeps_the_others():
    vector = gradient()
    for share in (0.001, 0.01, 0.3):
        residual = np.zeros_like(vector)
        _, arrived = sent(TopK(share), vector, residual)
        count = int(np.ceil(share * SIZE))
        assert np.count_nonzero(arrived) == count
        assert np.abs(arrived[arrived != 0]).min() >= np.sort(np.abs(vector))[-count]
        assert (arrived + residual).tobytes() == vector.tobytes()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), zeros=st.floats(0, 1), share=st.floats(1e-4, 0.2))
def test_top_k_finds_the_largest_of_many_zeros_and_ties(seed, zeros, share):
    random = np.random.default_rng(seed)
    vector = random.integers(-3, 4, 50_000).astype(np.float32)
    vector[random.random(vector.size) < zeros] = 0
    codec = TopK(share, feedback=False)
    parts = codec.encode(vector, [Range("w", 0, (50_000,))])
    count = len(parts["places"])
    found = np.sort(np.abs(parts["values"]))
    np.testing.assert_array_equal(found, np.sort(np.abs(vector))[vector.size - count :])


def test_int8_is_off_by_half_a_step_at_most():
    vector = gradient()
    _, arrived = sent(Int8(False), vector)
    rows = vector[:78400].reshape(100, 784)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    gap = np.abs(arrived[:78400].reshape(100, 784) - rows)
    assert (gap <= 0.5001 * step).all()


def test_halves_round_to_the_nearest():
    torch = pytest.importorskip("torch")
    vector = gradient()
    for codec, kind in ((Float16(), torch.float16), (BFloat16(), torch.bfloat16)):
        _, arrived = sent(codec, vector)
        expected = torch.from_numpy(vector).to(kind).to(torch.float32).numpy()
        assert arrived.tobytes() == expected.tobytes()


def test_halves_stay_finite_at_the_ends_of_their_range():
    vector = np.array([3.4e38, -3.4e38, 70000.0, 1e-40], np.float32)
    ranges = [Range("w", 0, (4,))]
    for codec in (Float16(), BFloat16()):
        out = np.empty_like(vector)
        codec.decode(codec.encode(vector, ranges), ranges, out)
        assert np.isfinite(out).all()


def test_factors_give_the_product_to_the_last_places():
    random = np.random.default_rng(1)
    vector = gradient()
    u = random.standard_normal((25, 100)).astype(np.float32)
    v = random.standard_normal((25, 784)).astype(np.float32)
    vector[:78400] = (u.T @ v).reshape(-1)
    parts = SufficientFactors().encode(vector, MLP, factors={"fc1/weights": (u, v)})
    assert set(parts) == {"u0", "v0", "rest"}
    assert parts["u0"].size + parts["v0"].size == 25 * 884
    out = np.empty_like(vector)
    SufficientFactors().decode(parts, MLP, out)
    exact = (u.astype(np.float64).T @ v.astype(np.float64)).reshape(-1)
    terms = (np.abs(u).T @ np.abs(v)).reshape(-1)
    assert (np.abs(out[:78400] - exact) <= 25 * 6e-8 * terms).all()
    assert out[78400:].tobytes() == vector[78400:].tobytes()


def test_factors_are_chosen_where_they_are_fewer_numbers():
    random = np.random.default_rng(2)
    for _ in range(100):
        batch, rows, columns = (int(one) for one in random.integers(1, 300, 3))
        u = np.ones((batch, rows), np.float32)
        v = np.ones((batch, columns), np.float32)
        ranges = [Range("w", 0, (rows, columns))]
        vector = (u.T @ v).reshape(-1)
        parts = SufficientFactors().encode(vector, ranges, factors={"w": (u, v)})
        full, thin = rows * columns, batch * (rows + columns)
        assert is_smaller(batch, rows, columns) == (thin < full)
        assert sum(array.size for array in parts.values()) == min(full, thin)


def test_factors_that_are_no_use_are_refused():
    vector = gradient()
    u, v = np.ones((200, 100), np.float32), np.ones((200, 784), np.float32)
    rest = vector[78400:].copy()
    wrong = {"u0": u, "v0": v, "rest": np.zeros(100 + 1000 + 10, np.float32)}
    with pytest.raises(WireError, match="no use"):
        SufficientFactors().decode(wrong, MLP, np.empty_like(vector))
    assert rest.size


def test_compressed_bytes_cannot_grow_beyond_the_vector():
    import zlib

    bomb = np.frombuffer(zlib.compress(bytes(100_000_000)), np.uint8)
    with pytest.raises(WireError, match="too long"):
        parse_codec("zlib").decode({"packed": bomb}, MLP, gradient())


def test_a_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, globals=None, locals=None, fromlist=(), level=0):
        if name.partition(".")[0] in ("zstandard", "lz4"):
            raise ModuleNotFoundError(name)
        return real(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in ("zstd", "lz4"):
        with pytest.raises(NotFoundError, match=r"pip install 'veloflow\[compress\]'"):
            parse_codec(name).encode(gradient(), MLP)


@pytest.mark.parametrize(
    "text", ["plain", "onebit", "topk", "topk:share=0.001", "onebit:feedback=off", "zlib:level=6"]
)
def test_texts_are_read_and_written_back(text):
    assert text_of(parse_codec(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("onebits", "no codec 'onebits' .did you mean 'onebit'..; there are: bfloat16, factors"),
        ("topk:0", "share is 0; give one above 0"),
        ("topk:2", "share is 2"),
        ("topk:x", "share is 'x'; give a number"),
        ("topk:0.1,on,3", "one value too many; it has: share, feedback"),
        ("topk:part=3", "no option 'part'; it has: share, feedback"),
        ("topk:share=0.1,share=0.2", "share is given twice"),
        ("onebit:perhaps", "feedback is 'perhaps'; give on or off"),
        ("plain:3", "one value too many; it has: none"),
        ("zlib:level=10", "level is 10"),
        ("zlib:level=-1", "level is '-1'; give a whole number"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(OptionError, match=said):
        parse_codec(text)
