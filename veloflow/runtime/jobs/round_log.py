"""Rounds that slaves compute ahead of the master: what each leaves for the others, in memory.

A *block* is some minibatches, computed one after another, a *round* each. In a round each shard of
the minibatch is computed by one slave, which leaves the gradient in its own log; when the gradients
of all shards are in some log, each slave adds them up in the order of the shards and moves its own
copy of the parameters. So nobody waits for the master between two rounds, and since all add and
move alike, all copies are the same to the last bit.

A log holds two blocks: the present one and the one before, from which who is behind catches up.
With a gradient it holds what units said of the shard, so that nobody need compute it again.
Each log has one writer, so one that was stopped in the middle and wakes up late spoils nothing:
what it leaves has an old number.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import StorageError
from veloflow.runtime.transport.shared_memory import map_file, room_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_WORDS", "LogShape", "RoundLog"]

_BLOCKS = 2
#: bytes of shared memory for the log of a slave at most
_BUDGET = 1 << 25
_MOST_ROUNDS = 32
#: bytes for what units say of a shard; who finds none there computes the shard
_WORDS = 4096
_LENGTH = 2
MOST_WORDS = _WORDS - _LENGTH


@dataclass(frozen=True)
class LogShape:
    """How much a log holds.

    Attributes:
        rounds: how many a block has at most.
        shards: how many a minibatch has at most.
        size: numbers in a gradient.
        state: numbers in the state after a block: parameters and what solvers keep.
        dtype: of all these.
    """

    rounds: int
    shards: int
    size: int
    state: int
    dtype: str

    @classmethod
    def fitting(
        cls, shards: int, size: int, state: int, dtype: np.dtype[Any], room: int
    ) -> LogShape | None:
        """Return the shape that a slave has memory for; None if that is less than two rounds.

        Args:
            shards, size, state, dtype: see above.
            room: bytes of shared memory that one slave may take.
        """
        a_round = _BLOCKS * shards * (room_for(size * dtype.itemsize) + _WORDS)
        left = min(_BUDGET, room) - _BLOCKS * room_for(state * dtype.itemsize)
        rounds = min(_MOST_ROUNDS, left // a_round)
        return cls(rounds, shards, size, state, dtype.str) if rounds >= 2 else None

    def first(self, block: int) -> int:
        """Return the number of a block's first round, all rounds of a run having their own."""
        return block * self.rounds + 1


class RoundLog:
    """What one slave has computed of the present block and the one before.

    Args:
        path: of the file.
        shape: how much it holds.
        create: make the file, to write; otherwise open it, to read.

    Raises:
        StorageError: there is no room for it, or it is of another shape.
        FileNotFoundError: it is to be read and is not there.
    """

    def __init__(self, path: Path, shape: LogShape, *, create: bool = False) -> None:
        self._shape = shape
        width = np.dtype(shape.dtype).itemsize
        marks = _BLOCKS * shape.rounds * shape.shards
        words = room_for(8 * (marks + shape.shards))
        head = words + room_for(_WORDS * marks)
        self._state_room, self._room = room_for(shape.state * width), room_for(shape.size * width)
        self._first = head + _BLOCKS * self._state_room
        total = self._first + marks * self._room
        self._map: mmap.mmap = map_file(path, total if create else None, writable=create)
        if len(self._map) != total:
            raise StorageError(f"{path} is of another size than the rounds of this run")
        #: the number of the round whose gradient is there, by place; the quickest view to read
        self._marks = memoryview(self._map)[: 8 * marks].cast("q")
        self._begun = memoryview(self._map)[8 * marks : 8 * (marks + shape.shards)].cast("q")
        self._words = memoryview(self._map)[words : words + _WORDS * marks]
        self._head = head

    def _place(self, number: int, shard: int) -> int:
        rounds = self._shape.rounds
        block, at = divmod(number - 1, rounds)
        return ((block % _BLOCKS) * rounds + at) * self._shape.shards + shard

    def has(self, number: int, shard: int) -> bool:
        """Whether a shard of the round of this number is there."""
        return self._marks[self._place(number, shard)] == number

    def gradient(self, number: int, shard: int) -> NDArray[Any]:
        """Return the place of a shard's gradient (size,), whatever is in it."""
        start = self._first + self._place(number, shard) * self._room
        return np.frombuffer(self._map, self._shape.dtype, self._shape.size, start)

    def begin(self, number: int, shard: int) -> None:
        """Say that whoever writes this has come to a shard, which is its own."""
        self._begun[shard] = number

    def has_begun(self, number: int, shard: int) -> bool:
        """Whether whoever writes this has come to a shard."""
        return self._begun[shard] >= number

    def mark(self, number: int, shard: int, words: bytes = b"") -> None:
        """Say that a gradient is whole, and what units say of the shard, if that has room."""
        place = self._place(number, shard)
        first, length = place * _WORDS, len(words) if len(words) <= MOST_WORDS else 0
        self._marks[place] = 0  # who reads meanwhile notices
        self._words[first : first + _LENGTH] = length.to_bytes(_LENGTH, "little")
        self._words[first + _LENGTH : first + _LENGTH + length] = words[:length]
        self._marks[place] = number

    def words(self, number: int, shard: int) -> bytes:
        """Return what units said of a shard that is there; empty if they said too much."""
        first = self._place(number, shard) * _WORDS + _LENGTH
        length = int.from_bytes(self._words[first - _LENGTH : first], "little")
        return bytes(self._words[first : first + length])

    def state(self, block: int) -> NDArray[Any]:
        """Return the place of the state (state,) after a block."""
        start = self._head + (block % _BLOCKS) * self._state_room
        return np.frombuffer(self._map, self._shape.dtype, self._shape.state, start)
