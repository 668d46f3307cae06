"""Damaged messages by the thousand, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from veloflow.protocol.codec import encode
from veloflow.protocol.messages import (
    PROTOCOL,
    Ask,
    Beat,
    Bye,
    Cancel,
    Collect,
    Failure,
    FrameHeader,
    GiveBack,
    Hello,
    Introduce,
    Job,
    LeaseId,
    Part,
    Piece,
    Plan,
    Refusal,
    Residual,
    Stop,
    Update,
    Welcome,
)

LEASE = LeaseId(7, 1)
HEADERS = (FrameHeader("fc:x", "<f4", (2, 3)), FrameHeader("gradients", "<f8", (4,)))
ARRAYS = (bytes(24), bytes(32))

FROM_SLAVE = [
    [encode(Ask(PROTOCOL))],
    [encode(Hello(PROTOCOL, "c" * 64, "name", "numpy", "x86_64", "host", 4711))],
    [encode(Update(LEASE, {"fc": {"n": 1, "l": [1, 2.5, None]}}, HEADERS, 0.1)), *ARRAYS],
    [encode(Beat("s1", 12))],
    [encode(GiveBack(LEASE))],
    [encode(Failure(LEASE, "fc", "boom"))],
    [encode(Bye("enough"))],
    [encode(Residual(HEADERS[1:])), ARRAYS[1]],
    [encode(Part(LEASE, HEADERS[1:])), ARRAYS[1]],
]
FROM_MASTER = [
    [encode(Plan("digits", {"a": 1}, {"seed": 0}, "c" * 64, "/dev/shm/x", "t", 1000))],
    [encode(Welcome("s1", "run", 0.25))],
    [encode(Introduce())],
    [encode(Refusal("no"))],
    [encode(Job(LEASE, Piece(7, 0, 2, 10, 5), {"fc": {"n": 1}}, HEADERS)), *ARRAYS],
    [encode(Cancel(LEASE))],
    [encode(Collect())],
    [encode(Residual(HEADERS[1:])), ARRAYS[1]],
    [encode(Stop("over"))],
]


def damaged(messages: list[list[bytes]], seed: int, count: int) -> Iterator[list[bytes]]:
    """Yield so many damaged messages."""
    chance = random.Random(seed)
    for _ in range(count):
        frames = list(chance.choice(messages))
        for _ in range(chance.choice((1, 1, 2, 4))):
            chance.choice(WAYS)(chance, frames)
        yield frames


def _flip(chance: random.Random, frames: list[bytes]) -> None:
    where = chance.randrange(len(frames))
    if frames[where]:
        data = bytearray(frames[where])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        frames[where] = bytes(data)


def _cut(chance: random.Random, frames: list[bytes]) -> None:
    where = chance.randrange(len(frames))
    frames[where] = frames[where][: chance.randrange(len(frames[where]) + 1)]


def _insert(chance: random.Random, frames: list[bytes]) -> None:
    where = chance.randrange(len(frames))
    place = chance.randrange(len(frames[where]) + 1)
    what = chance.randbytes(chance.choice((1, 2, 9, 300)))
    frames[where] = frames[where][:place] + what + frames[where][place:]


def _grow(chance: random.Random, frames: list[bytes]) -> None:
    """Declare what does not come: msgpack's largest lengths, and deep nesting."""
    lengths = [kind + b"\xff" * 4 for kind in (b"\xdd", b"\xdf", b"\xdb", b"\xc6")]
    bomb = chance.choice((*lengths, b"\x91" * 5000, b"\x81\xa1a" * 3000))
    place = chance.randrange(len(frames[0]) + 1)
    frames[0] = frames[0][:place] + bomb + frames[0][place:]


def _more(chance: random.Random, frames: list[bytes]) -> None:
    frames.insert(chance.randrange(len(frames) + 1), chance.randbytes(chance.randrange(40)))


def _fewer(chance: random.Random, frames: list[bytes]) -> None:
    del frames[chance.randrange(len(frames))]
    if not frames:
        frames.append(b"")


def _noise(chance: random.Random, frames: list[bytes]) -> None:
    frames[0] = chance.randbytes(chance.randrange(200))


WAYS = (_flip, _flip, _flip, _cut, _insert, _grow, _more, _fewer, _noise)
