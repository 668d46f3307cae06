"""What every codec and every policy of sharing must do, own or of another package.

A package that registers one in the entry-point groups ``veloflow.codecs`` or ``veloflow.policies``
calls these in its tests::

    from veloflow.testing import check_codec

    def test_my_codec():
        check_codec(MyCodec())
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import WireError
from veloflow.protocol.codec import DTYPES
from veloflow.sharing.codecs import Codec, Parts, Range
from veloflow.sharing.policies import GradientPolicy, LocalPolicy, Policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_codec", "check_decisions"]

#: a matrix with long rows, one with short ones, biases, a number alone; with gaps between them
_RANGES = (
    Range("a/weights", 0, (24, 784)),
    Range("a/bias", 18832, (24,)),
    Range("b/weights", 18864, (70, 9)),
    Range("c/weights", 19504, (1,)),
)
_SIZE = 19520


def check_codec(codec: Codec, *, seed: int = 0) -> None:
    """See that a codec keeps its promises.

    Vectors come back whole, or what they lack is in the residual; nothing depends on anything but
    the arguments; what has been damaged is refused with WireError and nothing else.

    Raises:
        AssertionError: it does not; the message says which promise.
    """
    for dtype in (np.float32, np.float64):
        random = np.random.default_rng(seed)
        vector = np.zeros(_SIZE, dtype)
        for one in _RANGES:
            scale = 10.0 ** random.integers(-4, 1)
            vector[one.start : one.stop] = scale * random.standard_normal(one.size)
        for given in (vector, np.zeros_like(vector), np.full_like(vector, -0.0)):
            _check_round(codec, given)
        _check_feedback(codec, vector)
        _check_damage(codec, vector)


def _check_round(codec: Codec, vector: NDArray[Any]) -> None:
    before = vector.copy()
    parts = codec.encode(vector, _RANGES, _residual(codec, vector))
    assert vector.tobytes() == before.tobytes(), "encode changes the vector"
    again = codec.encode(vector, _RANGES, _residual(codec, vector))
    assert _bytes(parts) == _bytes(again), "encode gives other bits for the same vector"
    for name, array in parts.items():
        dtype = array.dtype.newbyteorder("<").str
        assert dtype in DTYPES, f"part {name!r} is of {array.dtype}, which does not travel"
    decoded = np.full_like(vector, np.nan)
    codec.decode(_travelled(parts), _RANGES, decoded)
    assert np.isfinite(decoded).all(), "decode leaves places unwritten, or makes NaN"
    inside = np.zeros(_SIZE, bool)
    for one in _RANGES:
        inside[one.start : one.stop] = True
    assert not decoded[~inside].any(), "decode writes between the ranges"


def _check_feedback(codec: Codec, vector: NDArray[Any]) -> None:
    """What does not travel is in the residual, and the residual does not grow for ever."""
    if not codec.has_feedback:
        return
    residual, sent = np.zeros_like(vector), np.zeros_like(vector)
    decoded = np.empty_like(vector)
    sizes = []
    for step in range(1, 301):
        codec.decode(codec.encode(vector, _RANGES, residual), _RANGES, decoded)
        sent += decoded
        sizes.append(float(np.abs(residual).sum()))
        if step % 50 == 1:
            gap = np.abs(sent + residual - step * vector)
            limit = 1e-3 * step * float(np.abs(vector).max())
            assert gap.max() < limit, "what is sent and the residual are not what was given"
    assert sizes[-1] <= 2 * max(sizes[:150]), "the residual grows without end"


def _check_damage(codec: Codec, vector: NDArray[Any]) -> None:
    parts = codec.encode(vector, _RANGES, _residual(codec, vector))
    out = np.empty_like(vector)
    for name, array in parts.items():
        others = {key: value for key, value in parts.items() if key != name}
        floats = array.dtype.kind == "f"
        damaged: dict[str, Mapping[str, NDArray[Any]]] = {
            "a part that is missing": others,
            "a part of another shape": {**others, name: array.reshape(-1)[:-1]},
            "a part of another dtype": {**others, name: array.astype(np.complex64)},
            "a part of another number of dimensions": {**others, name: array[None]},
            "a part that nobody knows": {**parts, "strange": array},
        }
        if floats:
            damaged["NaN"] = {**others, name: np.full_like(array, np.nan)}
        for what, wrong in damaged.items():
            try:
                codec.decode(wrong, _RANGES, out)
            except WireError:
                continue
            raise AssertionError(f"decode takes {what} ({name!r})")
        for value in (0x00, 0xFF):  # bytes that are damaged: refused, or at least finite numbers
            bits = np.frombuffer(bytes([value]) * array.nbytes, array.dtype).reshape(array.shape)
            try:
                codec.decode({**others, name: bits}, _RANGES, out)
            except WireError:
                continue
            assert np.isfinite(out).all(), f"decode makes NaN of damaged bytes ({name!r})"


def _residual(codec: Codec, vector: NDArray[Any]) -> NDArray[Any] | None:
    return np.zeros_like(vector) if codec.has_feedback else None


def _travelled(parts: Parts) -> Parts:
    """Return the parts as the other side gets them: read-only views of bytes."""
    return {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in parts.items()
    }


def _bytes(parts: Parts) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in parts.items()}


def check_decisions(policy: Policy) -> None:
    """See that what a policy decides makes sense by itself; whole runs are ``check_policy``'s.

    Raises:
        AssertionError: it does not.
    """
    for slaves in (1, 2, 5, 64):
        assert policy.tasks(slaves, 2 * slaves) >= 1, "no task may be under way: nothing happens"
    assert policy.bound is None or policy.bound >= 0, "a bound below 0 holds everybody back"
    if isinstance(policy, GradientPolicy):
        weights = [policy.weight(staleness) for staleness in range(10)]
        assert weights[0] == 1, "a fresh gradient does not count whole"
        assert all(one >= two >= 0 for one, two in pairwise(weights)), (
            "a staler gradient counts more"
        )
    elif isinstance(policy, LocalPolicy):
        _check_exchange(policy)


def _check_exchange(policy: LocalPolicy) -> None:
    random = np.random.default_rng(0)
    for replicas in (1, 2, 5):
        assert policy.replicas(replicas) >= 1, "a round without stretches"
        centre = random.standard_normal(40).astype(np.float32)
        count = replicas if policy.waits else 1
        found = [centre.copy() for _ in range(count)]
        before = centre.copy()
        policy.exchange(centre, found, [before] * count, [3] * count, replicas)
        np.testing.assert_allclose(centre, before, rtol=1e-5, err_msg="rest does not stay rest")
        found = [random.standard_normal(40).astype(np.float32) for _ in range(count)]
        low = np.min([centre, *found], axis=0) - 1e-5
        high = np.max([centre, *found], axis=0) + 1e-5
        starts = [before.copy() for _ in found]
        policy.exchange(centre, found, starts, [3] * count, replicas)
        for vector in (centre, *found):
            assert ((low <= vector) & (vector <= high)).all(), "an exchange goes beyond all ends"
