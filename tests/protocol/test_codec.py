"""Messages and frames: what is whole comes back, what is damaged is refused and costs nothing."""

from __future__ import annotations

import os
import resource
import tracemalloc

import msgspec
import pytest
from fuzz_frames import ARRAYS, FROM_MASTER, FROM_SLAVE, HEADERS, LEASE, damaged

from veloflow.errors import WireError
from veloflow.protocol.codec import (
    Limits,
    decode_from_master,
    decode_from_slave,
    decode_with,
    encode,
)
from veloflow.protocol.messages import FrameHeader, Update
from veloflow.protocol.peers import Enroll, Parcel, peer_decoder

MANY = int(os.environ.get("VELOFLOW_FUZZ", "1000000"))


@pytest.mark.parametrize("frames", FROM_SLAVE)
def test_what_slaves_say_comes_back(frames):
    message, arrays = decode_from_slave(frames)
    assert [encode(message), *arrays] == frames


@pytest.mark.parametrize("frames", FROM_MASTER)
def test_what_masters_say_comes_back(frames):
    message, arrays = decode_from_master(frames)
    assert [encode(message), *arrays] == frames


def update(*headers: FrameHeader):
    return encode(Update(LEASE, {}, headers, 0.1))


@pytest.mark.parametrize(
    ("frames", "word"),
    [
        ([], "^an empty message$"),
        ([b""], "no message"),
        ([encode(Update(LEASE, {}, HEADERS, 0.1))], "announced"),
        ([update(HEADERS[0]), ARRAYS[0], ARRAYS[1]], "announced"),
        ([update(HEADERS[0]), b"123"], "came with 3 bytes"),
        ([update(FrameHeader("x", "|O8", (3,))), bytes(24)], "dtype"),
        ([update(FrameHeader("x", ">f4", (6,))), bytes(24)], "dtype"),
        ([update(FrameHeader("x", "<f4", (2**40, 2**40))), bytes(24)], "came with"),
        ([msgspec.msgpack.encode({"type": "Update", "evil": 1})], "no message"),
        ([msgspec.msgpack.encode({"type": "Welcome"})], "no message"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(frames, word):
    with pytest.raises(WireError, match=word):
        decode_from_slave(frames)


def test_limits_are_kept():
    with pytest.raises(WireError, match="more than 10"):
        decode_from_slave(FROM_SLAVE[1], Limits(message=10))
    with pytest.raises(WireError, match="of arrays, more than 40"):
        decode_from_slave(FROM_SLAVE[2], Limits(arrays=40))


def refuse(decode, messages, seed, count):
    """Decode damaged messages; return how many were refused."""
    refused = longest = 0
    for frames in damaged(messages, seed, count):
        try:
            decode(frames)
        except WireError as error:
            refused += 1
            longest = max(longest, len(str(error)))
    assert longest < 1000
    return refused


SIDES = [(decode_from_slave, FROM_SLAVE), (decode_from_master, FROM_MASTER)]


@pytest.mark.slow
@pytest.mark.parametrize(("decode", "messages"), SIDES)
def test_damaged_messages_are_refused_and_nothing_else_happens(decode, messages):
    tracemalloc.start()
    try:
        assert refuse(decode, messages, 1, 10_000) > 5000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20  # no declared length was believed


@pytest.mark.stress
@pytest.mark.parametrize(("decode", "messages"), SIDES)
def test_a_million_damaged_messages_leave_no_trace(decode, messages):
    refuse(decode, messages, 2, 10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(decode, messages, 3, MANY // 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8192  # KiB


def test_what_is_as_long_as_the_limit_is_taken():
    frames = FROM_SLAVE[2]
    arrays = sum(len(memoryview(one).cast("B")) for one in frames[1:])
    decode_from_slave(frames, Limits(message=len(frames[0]), arrays=arrays))
    with pytest.raises(WireError, match=f"^{arrays} bytes of arrays, more than {arrays - 1}$"):
        decode_from_slave(frames, Limits(arrays=arrays - 1))


def test_the_arrays_are_counted():
    with pytest.raises(WireError, match=r"^2 arrays came, and 1 were announced$"):
        decode_from_slave([update(HEADERS[0]), ARRAYS[0], ARRAYS[1]])


PARCEL = Parcel("secret", 1, 0, 1, 0, "sum", 0, 2, 0, HEADERS[:1])


def test_other_conversations_keep_to_the_same_rules():
    frames = [encode(PARCEL), ARRAYS[0]]
    assert decode_with(peer_decoder(), frames) == (PARCEL, frames[1:])
    enroll = Enroll("secret", 1, 0, 6, "<f4", ("a", "b"), 1)
    assert decode_with(peer_decoder(), [encode(enroll)]) == (enroll, [])


@pytest.mark.parametrize(
    ("frames", "limits", "word"),
    [
        ([], Limits(), "^an empty message$"),
        ([encode(PARCEL)], Limits(), "^0 arrays came, and 1 were announced$"),
        ([encode(PARCEL), ARRAYS[0]], Limits(message=10), "more than 10$"),
        ([encode(PARCEL), ARRAYS[0]], Limits(arrays=10), "of arrays, more than 10$"),
    ],
)
def test_what_breaks_the_rules_of_another_conversation_is_refused(frames, limits, word):
    with pytest.raises(WireError, match=word):
        decode_with(peer_decoder(), frames, limits)
