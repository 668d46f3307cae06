"""Farms: how a master turns minibatches into pieces, and their results into one update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.core import Batch, BatchSource, Farm, Part, Payload, Unit, shard_size
from veloflow.protocol.messages import Piece
from veloflow.sharing.ordered_sum import OrderedSum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.crew import Crew

__all__ = ["PieceFarm", "SyncFarm"]

_TRAIN = 2


class PieceFarm(Farm):
    """What all farms share: numbering pieces, asking units, publishing parameters. An outline.

    Args:
        workflow: the master's, set up.
        parameters: the master's own.
        crew: who computes.
    """

    def __init__(self, workflow: Workflow, parameters: Parameters, crew: Crew) -> None:
        self.crew = crew
        self._parameters = parameters
        units = list(workflow.all_units())
        self._asking = [one for one in units if type(one).make_job is not Unit.make_job]
        self._taking = [one for one in units if type(one).apply_update is not Unit.apply_update]
        self._number = 0
        self._version = 0
        self._is_changed = True
        self._loads = parameters.loads

    @property
    def issued(self) -> int:
        """How many pieces there were so far."""
        return self._number

    def _publish(self) -> None:
        """Publish the parameters if a step was taken since the last time, or old ones came back."""
        if self._parameters.loads != self._loads:
            self._loads, self._is_changed = self._parameters.loads, True
        if self._is_changed and self._parameters.values.size:
            self._version += 1
            self.crew.publish(
                np.asarray(self._parameters.values.read(), self._parameters.dtype), self._version
            )
        self._is_changed = False

    def _submit(self, part: Part, start: NDArray[np.floating] | None = None) -> int:
        """Have a part of a minibatch computed; return the number of the piece.

        Args:
            part: which.
            start: the parameters (n,) to compute with, instead of those that are published.
        """
        batch = part.batch
        first = batch.position + part.first
        piece = Piece(self._number, batch.epoch, batch.kind, first, part.count)
        self.crew.submit(piece, {unit.path: unit.make_job(part) for unit in self._asking}, start)
        self._number += 1
        return piece.number

    def _hand_out(self, updates: Sequence[Mapping[str, Payload]]) -> None:
        for unit in self._taking:
            unit.apply_update([one[unit.path] for one in updates])

    def map(self, unit: Unit, payloads: Sequence[Payload]) -> Iterator[tuple[int, Payload]]:
        """Have payloads worked on, a few more at a time than the crew can hold."""
        self._publish()
        base, sent = self._number, 0
        for done_so_far in range(len(payloads)):
            while sent < len(payloads) and sent - done_so_far < self.crew.capacity:
                piece = Piece(self._number, 0, -1, sent, 1)
                self.crew.submit(piece, {unit.path: payloads[sent]})
                self._number += 1
                sent += 1
            done = self.crew.next()
            yield done.piece.number - base, done.updates[unit.path]

    def results(self) -> dict[str, Any]:
        """Return what the result says of the sharing."""
        return {}

    def state(self) -> Mapping[str, object]:
        """Return what a checkpoint must keep besides parameters: JSON values and arrays."""
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take back what :meth:`state` gave."""


class SyncFarm(PieceFarm):
    """Cuts each minibatch into shards of one size and adds their gradients in order.

    The result is the same to the last bit whoever computes the shards.
    """

    def __init__(self, workflow: Workflow, parameters: Parameters, crew: Crew, shards: int) -> None:
        super().__init__(workflow, parameters, crew)
        self._shards = shards
        self._sum = OrderedSum(np.zeros(parameters.gradients.size, parameters.dtype))
        self._batch: Batch
        self._pieces: dict[int, int] = {}  # number of a piece -> number of its shard

    def take_turn(self, source: BatchSource) -> None:
        """Serve the next minibatch and have its shards computed."""
        batch = self._batch = source.issue()
        source.serve(batch)
        self._publish()
        size = shard_size(source.max_minibatch_size, self._shards)
        firsts = range(0, batch.size, size)
        self._pieces = {
            self._submit(Part(batch, first, min(size, batch.size - first))): shard
            for shard, first in enumerate(firsts)
        }

    def collect(self) -> None:
        """Wait for all shards; add up what they found."""
        updates: list[Mapping[str, Payload]] = [{}] * len(self._pieces)
        self._sum.restart()
        for _ in self._pieces:
            done = self.crew.next()
            shard = self._pieces[done.piece.number]
            updates[shard] = done.updates
            if done.gradients is not None:
                self._sum.add(shard, done.gradients)
        if self._batch.kind == _TRAIN:
            self._parameters.gradients.write(self._sum.total)
            self._is_changed = True
        self._hand_out(updates)
