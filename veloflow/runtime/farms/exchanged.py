"""Blocks that slaves compute as a group, exchanging gradients with each other, as a farm sees them.

As :class:`~veloflow.runtime.farms.ahead.Ahead` for slaves that need not share memory: the master
issues some minibatches at once, the group computes them by the ways of a topology, and the master
takes the state after them. A block that is broken, for one of the group or a server is lost, is
given to the group that is there by then. One whose members have different states, or NaN, is
computed piece by piece, which finds out why.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from veloflow.core import Part, shard_size
from veloflow.protocol.messages import Piece
from veloflow.runtime.farms.ahead import Ahead, Block, rounds_of, sum_of
from veloflow.runtime.jobs.peer_order import BROKEN, PeerOrder
from veloflow.runtime.jobs.round_log import LogShape
from veloflow.runtime.jobs.round_order import named
from veloflow.sharing.topologies import Attempts, Verdict, shards_of, topology_text

if TYPE_CHECKING:
    from veloflow.core import Batch, BatchSource
    from veloflow.runtime.master.team import GroupCrew
    from veloflow.runtime.slaves.worker import Jobs

__all__ = ["Exchanged"]

#: seconds that a block is to take: the state travels to the master once a block
_BLOCK = 0.25
#: how many minibatches and shards a block has at most, for they travel in one job
_MOST_ROUNDS, _MOST_PARTS = 64, 1024


class Exchanged(Ahead):
    """The blocks of one run whose slaves exchange gradients. Use it only where units are steady."""

    _crew: GroupCrew

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._attempts = Attempts()
        self._again: list[Batch] = []  # of a block that is broken
        self.broken = 0
        self.exchanged = 0  #: blocks that more than one slave computed

    def _launch(self, source: BatchSource) -> None:
        """Have a group compute a block, if there is one."""
        if self._running or (self.left and not self._again):
            return
        team = self._crew.team()
        if not team:
            if self._again:
                self.left.extendleft(reversed(self._again))  # what is left came after them
                self._again = []
            return
        self._measure_shape(source)
        batches, self._again = self._again or self._gather(source), []
        if batches:
            self._submit(source, batches, team)

    def _measure_shape(self, source: BatchSource) -> None:
        if self._shape is None:
            most = source.max_minibatch_size
            shards = math.ceil(most / shard_size(most, self._shards))
            rounds = max(1, min(_MOST_ROUNDS, _MOST_PARTS // shards))
            size = self._parameters.gradients.size
            state = size * len(self._state())
            self._shape = LogShape(rounds, shards, size, state, self._parameters.dtype.str)

    def _submit(self, source: BatchSource, batches: list[Batch], team: Any) -> None:
        assert self._shape is not None
        topology = self._crew.topology
        size = shard_size(source.max_minibatch_size, self._shards)
        parts = [
            [
                Part(batch, first, min(size, batch.size - first))
                for first in range(0, batch.size, size)
            ]
            for batch in batches
        ]
        self._show_state()
        members = min(len(team), self._shape.shards)
        number = self._attempts.launch(members)
        block = Block(batches, self._shape.shards, {})
        pieces: list[tuple[Piece, PeerOrder, Jobs]] = []
        for member in range(members):
            order = PeerOrder(
                number=number,
                topology=topology_text(topology),
                shards=tuple(len(one) for one in parts),
                member=member,
                members=members,
                servers=topology.servers,
                state=self._farm.version,
                patience=self._crew.patience,
            )
            own = [(at, shard) for at in range(len(parts)) for shard in order.own(at)]
            jobs = {
                named(at, shard, unit.path): unit.make_job(parts[at][shard])
                for at, shard in own
                for unit in self._asking
            }
            count = sum(parts[at][shard].count for at, shard in own)
            first = batches[0]
            piece = Piece(
                self._farm.take_number(), first.epoch, first.kind, first.position, count
            )  # fmt: skip
            block.pieces[piece.number] = member
            pieces.append((piece, order, jobs))
        self._running.append(block)
        self._crew.submit_group(pieces)

    def _finish(self, source: BatchSource) -> None:
        """Wait for the block; have it computed again where it is broken; begin another."""
        while self._running:
            block = self._running[0]
            done = self._crew.next()
            member = block.pieces[done.piece.number]
            if BROKEN in done.updates:
                self._attempts.lost(self._attempts.number)
                self._repeat(source)
                continue
            block.found[member] = done
            verdict = self._attempts.answered(self._attempts.number, member, sum_of(done))
            if verdict is Verdict.SPOILED:
                self._abandon()
                return
            if verdict is Verdict.DONE:
                break
        else:
            return
        self._running.popleft()
        self._take(block.found[0])
        self._measure(len(block.batches))
        self._launch(source)
        members, shards = len(block.pieces), block.shards
        owners = {
            shard: member
            for member in range(members)
            for shard in shards_of(member, members, shards)
        }
        self._rounds.extend(rounds_of(block, self._reporting, owners))
        self.blocks += 1
        self.exchanged += members > 1

    def _repeat(self, source: BatchSource) -> None:
        """Give a broken block's minibatches to the group that is there now."""
        self.broken += 1
        block = self._running.popleft()
        self._crew.withdraw(list(block.pieces))
        self._again = block.batches
        self._farm.version += 1  # slaves may have a state of this version
        self._farm.touch()
        self._since = time.perf_counter()
        self._launch(source)

    def _target(self) -> float:
        return _BLOCK
