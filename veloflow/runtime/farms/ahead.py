"""Blocks of rounds that slaves compute ahead of the master, as its farm has them computed.

The master issues some minibatches at once, and the next block before the last is done; slaves go
from round to round by themselves (:mod:`veloflow.runtime.jobs.round_log`). When a block is done the
master takes the state after it, and runs its units for each minibatch, with what the slaves have
found, while these compute the next block.

A block counts as a whole or not at all: where copies of the state differ, or hold NaN, it is
abandoned, and its minibatches are computed one by one, shard by shard, which finds out why.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from veloflow.core import Batch, BatchSource, Part, Payload, Unit, shard_size
from veloflow.devices.parameters import Mover
from veloflow.protocol.messages import Piece
from veloflow.runtime.jobs.round_log import LogShape
from veloflow.runtime.jobs.round_order import ORDER, STEP, SUM, Order, named, part_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Done
    from veloflow.runtime.master.team import TeamCrew

__all__ = ["Ahead", "Block", "Ledgered", "Round", "rounds_of", "sum_of"]

_TRAIN = 2
#: seconds that a block is to take: messages cost little then, and what a loss costs is little too
_BLOCK = 0.015
#: blocks that slaves have at a time: one to compute, and the next
_RUNNING = 2


class Ledgered(Protocol):
    """Who numbers the pieces of a run and the versions of its parameters."""

    version: int

    def take_number(self) -> int:
        """Return the number of the next piece."""

    def publish(self) -> None:
        """Let slaves have the present parameters."""

    def touch(self) -> None:
        """Publish the parameters anew before the next piece."""


@dataclass(frozen=True)
class Round:
    """A minibatch that was computed and has moved the parameters; what units say, by shard."""

    batch: Batch
    updates: Sequence[dict[str, Payload]]


@dataclass
class Block:
    """Minibatches that are computed together.

    ``pieces`` are the members of the team by the number of the piece that is each one's part.
    """

    batches: list[Batch]
    shards: int
    pieces: dict[int, int]
    found: dict[int, Done] = field(default_factory=dict)  # by member


class Ahead:
    """The blocks of one run. Use it only where all units are steady.

    Args:
        farm: numbers pieces and versions.
        crew: who computes.
        parameters: the master's own.
        units: all units of the master.
        shards: as the user has asked for them, see :func:`~veloflow.core.shard_size`.
    """

    def __init__(
        self,
        farm: Ledgered,
        crew: TeamCrew,
        parameters: Parameters,
        units: Sequence[Unit],
        shards: int,
    ) -> None:
        self._farm = farm
        self._crew = crew
        self._parameters = parameters
        self._asking = [one for one in units if type(one).make_job is not Unit.make_job]
        self._reporting = [one for one in units if type(one).make_update is not Unit.make_update]
        self._movers = {one.path: one for one in units if isinstance(one, Mover)}
        self._shards = shards
        self._shape: LogShape | None = None
        self._number = 0
        self._running: deque[Block] = deque()
        self._rounds: deque[Round] = deque()
        #: minibatches that were issued and are to be computed one by one
        self.left: deque[Batch] = deque()
        self._shown = 0  # the version of the state that slaves can see
        self._wanted = 2
        self._since = 0.0
        self.blocks = self.abandoned = 0

    @staticmethod
    def suits(units: Sequence[Unit]) -> bool:
        """Whether units are such that slaves may be ahead of them."""
        return all(one.is_steady for one in units) and any(isinstance(one, Mover) for one in units)

    @property
    def is_whole(self) -> bool:
        """Whether the parameters are those after the minibatches that were handed out."""
        return not self._rounds

    @property
    def is_idle(self) -> bool:
        """Whether nothing is computed, and all that was is handed out."""
        return not (self._rounds or self._running or self.left)

    def next_round(self, source: BatchSource) -> Round | None:
        """Return the next minibatch that is computed; None if the next is to be computed now."""
        if not self._rounds:
            if not self._running and not self.left:
                self._since = time.perf_counter()
                self._launch(source)
            if self._running:
                self._finish(source)
        return self._rounds.popleft() if self._rounds else None

    # -- blocks -------------------------------------------------------------------------------

    def _launch(self, source: BatchSource) -> None:
        """Have slaves compute as many blocks as they should have, if they can."""
        while len(self._running) < _RUNNING and not self.left:
            team = self._crew.team()
            if not team or not self._fits(source):
                return
            batches = self._gather(source)
            if not batches:
                return
            self._submit(source, batches, team)

    def _fits(self, source: BatchSource) -> bool:
        """Whether slaves have memory for blocks of this source."""
        if self._shape is None:
            most = source.max_minibatch_size
            shards = math.ceil(most / shard_size(most, self._shards))
            size = self._parameters.gradients.size
            state = size * len(self._state())
            self._shape = LogShape.fitting(
                shards, size, state, self._parameters.dtype, self._crew.room
            )
        return self._shape is not None

    def _gather(self, source: BatchSource) -> list[Batch]:
        """Return minibatches for a block; the last of a class is left, for it may end the run."""
        assert self._shape is not None
        found: list[Batch] = []
        while len(found) < min(self._wanted, self._shape.rounds) and source.has_more_of_kind:
            batch = source.issue()
            if batch.kind != _TRAIN or not source.has_more_of_kind:
                self.left.append(batch)
                break
            found.append(batch)
        return found

    def _submit(self, source: BatchSource, batches: list[Batch], team: Sequence[str]) -> None:
        assert self._shape is not None
        size = shard_size(source.max_minibatch_size, self._shards)
        parts = [
            [
                Part(batch, first, min(size, batch.size - first))
                for first in range(0, batch.size, size)
            ]
            for batch in batches
        ]
        jobs = {
            named(at, shard, unit.path): unit.make_job(part)
            for at, shards in enumerate(parts)
            for shard, part in enumerate(shards)
            for unit in self._asking
        }
        if not self._running:
            self._show_state()
        members = min(len(team), self._shape.shards)
        block = Block(batches, self._shape.shards, {})
        orders: list[tuple[Piece, Order]] = []
        for member in range(members):
            order = Order(
                block=self._number,
                shape=self._shape,
                shards=tuple(len(one) for one in parts),
                member=member,
                members=members,
                logs=tuple(team),
                state=self._farm.version + len(self._running),
                patience=self._crew.patience,
            )
            count = sum(parts[at][s].count for at in range(len(parts)) for s in order.own(at))
            first = batches[0]
            number = self._farm.take_number()
            piece = Piece(number, first.epoch, first.kind, first.position, count)
            block.pieces[number] = member
            orders.append((piece, order))
        self._number += 1
        self._running.append(block)
        self._crew.submit_block(orders, jobs)

    def _finish(self, source: BatchSource) -> None:
        """Wait for the oldest block; let slaves have another."""
        block = self._running[0]
        while len(block.found) < len(block.pieces):
            done = self._crew.next()
            number = done.piece.number
            owner = next(one for one in self._running if number in one.pieces)
            owner.found[owner.pieces[number]] = done
        sums = [sum_of(done) for done in block.found.values()]
        if not math.isfinite(sums[0]) or any(one != sums[0] for one in sums):
            self._abandon()
            return
        self._running.popleft()
        self._take(block.found[0])
        self._measure(len(block.batches))
        self._launch(source)
        owners = {shard: shard % len(block.pieces) for shard in range(block.shards)}
        self._rounds.extend(rounds_of(block, self._reporting, owners))
        self.blocks += 1

    def _take(self, first: Done) -> None:
        """Take over the state after a block."""
        state = first.gradients
        assert state is not None
        size = self._parameters.values.size
        for place, array in enumerate(self._state()):
            array.write(state[place * size : (place + 1) * size])
        for path, step in part_of(first.updates, STEP).items():
            self._movers[path].take_step(step)
        self._farm.version += 1
        self._shown = self._farm.version
        self._crew.publish(state[:size], self._shown)
        self._crew.show_state(state, self._steps(), self._shown)

    def _abandon(self) -> None:
        """Have the minibatches of all blocks computed one by one."""
        self.abandoned += 1
        batches = [batch for block in self._running for batch in block.batches]
        self.left.extendleft(reversed(batches))
        numbers = [number for block in self._running for number in block.pieces]
        self._crew.withdraw(numbers)
        self._farm.version += len(self._running)  # slaves may have states of these versions
        self._running.clear()
        self._farm.touch()

    def _measure(self, rounds: int) -> None:
        """See how many rounds a block should have."""
        now = time.perf_counter()
        a_round = (now - self._since) / rounds
        self._since = now
        # few different sizes, for how long a piece may take is known by pieces of its size
        self._wanted = 1 << max(1, int(math.log2(max(self._target() / a_round, 2))))

    def _target(self) -> float:
        """Return how many seconds a block is to take."""
        return _BLOCK

    # -- the state ----------------------------------------------------------------------------

    def _state(self) -> list[Any]:
        return [self._parameters.values, *self._parameters.slots.values()]

    def _steps(self) -> dict[str, Payload]:
        return {path: unit.make_step() for path, unit in self._movers.items()}

    def _show_state(self) -> None:
        self._farm.publish()
        if self._shown != self._farm.version:
            self._shown = self._farm.version
            state = np.concatenate([np.asarray(one.read()) for one in self._state()])
            self._crew.show_state(state, self._steps(), self._shown)


def sum_of(done: Done) -> float:
    """Return the sum of the state that the member has now who did this part of a block."""
    value = done.updates[ORDER][SUM]
    assert isinstance(value, float)
    return value


def rounds_of(block: Block, reporting: Sequence[Unit], owners: Mapping[int, int]) -> list[Round]:
    """Return what was found, sorted by round and shard.

    Args:
        block: whose parts are all found.
        reporting: the units that say something.
        owners: the members by the shards that are theirs.
    """
    return [
        Round(
            batch,
            [
                {
                    unit.path: block.found[owners[shard]].updates[named(at, shard, unit.path)]
                    for unit in reporting
                }
                for shard in range(block.shards)
            ],
        )
        for at, batch in enumerate(block.batches)
    ]
