"""Farms: how a master turns minibatches into pieces, and their results into one update."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.core import (
    Batch,
    BatchSource,
    Events,
    Farm,
    Part,
    Payload,
    SharingStatus,
    Unit,
    shard_size,
)
from veloflow.errors import CheckpointError
from veloflow.protocol.messages import Piece
from veloflow.runtime.farms.ahead import Ahead, Round
from veloflow.runtime.farms.exchanged import Exchanged
from veloflow.runtime.master.team import GroupCrew, TeamCrew
from veloflow.sharing.auto_measure import Gauge
from veloflow.sharing.ordered_sum import OrderedSum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Crew, Done

__all__ = ["PieceFarm", "SyncFarm"]

_TRAIN = 2
#: what of the results is told while the run goes on, and after how many seconds again
_STATUS = ("staleness", "effective_batch", "waiting", "bytes")
_TELL = 0.25


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
        self.version = 0  #: of the parameters that slaves have
        self._is_changed = True
        self._loads = parameters.loads
        self.gauge = Gauge()  #: what pieces take
        self.is_draining = False  #: begin nothing while something is under way
        self.label = ""  #: the mode, for people
        self._events = workflow.find_service(Events)
        self._told = 0.0

    @property
    def issued(self) -> int:
        """How many pieces there were so far."""
        return self._number

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that another farm may go on."""
        return True

    def follow(self, other: PieceFarm, steps: int, minibatches: int) -> None:
        """Go on with the numbers of another farm, which is idle.

        Args:
            other: the farm before.
            steps: how many steps units have taken.
            minibatches: how many minibatches of training there were.
        """
        self._number, self.version = other._number, other.version
        self.gauge = other.gauge
        self._is_changed = True

    def next_done(self) -> Done:
        """Wait for the next piece that is done; note what it took."""
        done = self.crew.next()
        piece = done.piece
        self.gauge.add(done.slave, piece.kind, piece.count, done.seconds, done.wire, done.nbytes)
        return done

    @property
    def is_whole(self) -> bool:
        """Whether the parameters are those after the minibatches served, so that a run may end."""
        return True

    def publish(self) -> None:
        """Publish the parameters if a step was taken since the last time, or old ones came back."""
        if self._parameters.loads != self._loads:
            self._loads, self._is_changed = self._parameters.loads, True
        if self._is_changed and self._parameters.values.size:
            self.version += 1
            self.crew.publish(
                np.asarray(self._parameters.values.read(), self._parameters.dtype), self.version
            )
        self._is_changed = False

    def touch(self) -> None:
        """Publish the parameters anew before the next piece."""
        self._is_changed = True

    def take_number(self) -> int:
        """Return the number of the next piece."""
        self._number += 1
        return self._number - 1

    def _submit(self, part: Part, start: NDArray[np.floating] | None = None) -> int:
        """Have a part of a minibatch computed; return the number of the piece.

        Args:
            part: which.
            start: the parameters (n,) to compute with, instead of those that are published.
        """
        batch = part.batch
        first = batch.position + part.first
        piece = Piece(self.take_number(), batch.epoch, batch.kind, first, part.count)
        self.crew.submit(piece, {unit.path: unit.make_job(part) for unit in self._asking}, start)
        return piece.number

    def _hand_out(self, updates: Sequence[Mapping[str, Payload]]) -> None:
        for unit in self._taking:
            unit.apply_update([one[unit.path] for one in updates])
        now = time.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            self._events.publish(SharingStatus(self.status()))

    def status(self) -> dict[str, Any]:
        """Return how the sharing goes; see :class:`~veloflow.core.SharingStatus`."""
        found = {**self.results(), **self.crew.results()}
        known = {name: found[name] for name in _STATUS if name in found}
        return {"sharing": self.label, "slaves": self.crew.slaves, **known}

    def map(self, unit: Unit, payloads: Sequence[Payload]) -> Iterator[tuple[int, Payload]]:
        """Have payloads worked on, a few more at a time than the crew can hold."""
        self.publish()
        base, sent = self._number, 0
        for done_so_far in range(len(payloads)):
            while sent < len(payloads) and sent - done_so_far < self.crew.capacity:
                piece = Piece(self.take_number(), 0, -1, sent, 1)
                self.crew.submit(piece, {unit.path: payloads[sent]})
                sent += 1
            done = self.crew.next()
            yield done.piece.number - base, done.updates[unit.path]

    def results(self) -> dict[str, Any]:
        """Return what the result says of the sharing."""
        return {}

    @property
    def vector_size(self) -> int:
        """How many numbers the vector of an update has."""
        return self._parameters.gradients.size

    def state(self) -> Mapping[str, object]:
        """Return what a checkpoint must keep besides parameters: JSON values and arrays."""
        left_out = self.crew.left_out()
        return {"left_out": left_out} if left_out else {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            CheckpointError: it is of other sizes.
        """
        left_out = cast("list[NDArray[np.floating]]", state.get("left_out", []))
        if any(one.shape != (self.vector_size,) for one in left_out):
            raise CheckpointError("what codecs have left out in the checkpoint is of another size")
        self.crew.inherit(left_out)


class SyncFarm(PieceFarm):
    """Cuts each minibatch into shards of one size and adds their gradients in order.

    The result is the same to the last bit whoever computes the shards. Where the units and the
    crew are such that it can be, slaves are some minibatches ahead of the master.
    """

    def __init__(
        self,
        workflow: Workflow,
        parameters: Parameters,
        crew: Crew,
        shards: int,
        *,
        ahead: bool = True,
    ) -> None:
        super().__init__(workflow, parameters, crew)
        self._shards = shards
        self._sum = OrderedSum(np.zeros(parameters.gradients.size, parameters.dtype))
        self._batch: Batch
        self._pieces: dict[int, int] = {}  # number of a piece -> number of its shard
        units = list(workflow.all_units())
        self._ahead: Ahead | None = None
        if ahead and isinstance(crew, TeamCrew) and Ahead.suits(units):
            kind = Exchanged if isinstance(crew, GroupCrew) else Ahead
            self._ahead = kind(self, crew, parameters, units, shards)
        self._round: Round | None = None
        self._steps = self._samples = 0

    @property
    def is_idle(self) -> bool:
        """Whether slaves do nothing ahead."""
        return self._ahead is None or self._ahead.is_idle

    @property
    def is_whole(self) -> bool:
        """Whether nothing of what slaves did ahead is still to be handed out."""
        return self._ahead is None or self._ahead.is_whole

    def take_turn(self, source: BatchSource) -> None:
        """Serve the next minibatch; have its shards computed, unless slaves have done it."""
        self._round = None if self._ahead is None else self._ahead.next_round(source)
        self.has_moved = self._round is not None
        if self._round is not None:
            self._count(self._round.batch)
            source.serve(self._round.batch)
            return
        is_left = self._ahead is not None and self._ahead.left
        batch = self._ahead.left.popleft() if self._ahead and is_left else source.issue()
        self._batch = batch
        self._count(batch)
        source.serve(batch)
        self.publish()
        size = shard_size(source.max_minibatch_size, self._shards)
        firsts = range(0, batch.size, size)
        self._pieces = {
            self._submit(Part(batch, first, min(size, batch.size - first))): shard
            for shard, first in enumerate(firsts)
        }

    def collect(self) -> None:
        """Wait for all shards; add up what they found."""
        if self._round is not None:
            self._hand_out(self._round.updates)
            return
        updates: list[Mapping[str, Payload]] = [{}] * len(self._pieces)
        self._sum.restart()
        for _ in self._pieces:
            done = self.next_done()
            shard = self._pieces[done.piece.number]
            updates[shard] = done.updates
            if done.gradients is not None:
                self._sum.add(shard, done.gradients)
        if self._batch.kind == _TRAIN:
            self._parameters.gradients.write(self._sum.total)
            self._is_changed = True
        self._hand_out(updates)

    def results(self) -> dict[str, Any]:
        """Return how many samples a step has, and how much slaves did ahead of the master."""
        found: dict[str, Any] = {
            "staleness": {"mean": 0.0, "max": 0},
            "effective_batch": self._samples / max(self._steps, 1),
        }
        if self._ahead is not None and (self._ahead.blocks or self._ahead.abandoned):
            found["ahead"] = {"blocks": self._ahead.blocks, "abandoned": self._ahead.abandoned}
            if isinstance(self._ahead, Exchanged):
                found["ahead"]["broken"] = self._ahead.broken
                found["ahead"]["exchanged"] = self._ahead.exchanged
        return found

    def _count(self, batch: Batch) -> None:
        if batch.kind == _TRAIN:
            self._steps += 1
            self._samples += batch.size
