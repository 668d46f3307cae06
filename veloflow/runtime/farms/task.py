"""The farm of gradients that are applied as they come: async, ssp, groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.core import Batch, BatchSource, Part, Payload, shard_size
from veloflow.runtime.farms.farm import PieceFarm
from veloflow.runtime.jobs.inspection import TRAIN
from veloflow.sharing.ordered_sum import OrderedSum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Crew, Done
    from veloflow.sharing.policies import GradientPolicy

__all__ = ["TaskFarm"]


@dataclass
class _Task:
    """A minibatch under way.

    Attributes:
        batch: which.
        version: of the parameters that its shards are computed with; None if each takes the latest.
        shards: number of a piece -> number of its shard.
        updates: what units said, by the number of the shard.
        total: the sum of the gradients so far, if there are several shards.
    """

    batch: Batch
    version: int | None
    shards: dict[int, int] = field(default_factory=dict)
    updates: dict[int, Mapping[str, Payload]] = field(default_factory=dict)
    total: OrderedSum | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all shards are done."""
        return len(self.updates) == len(self.shards)


class TaskFarm(PieceFarm):
    """Keeps some minibatches under way; applies the update of each when it is whole.

    The staleness of an update is the number of steps between the parameters that it was computed
    with and those that it is applied to. A class of samples is begun when the one before is done;
    so an epoch's validation is measured with one set of parameters.
    """

    def __init__(
        self, workflow: Workflow, parameters: Parameters, crew: Crew, policy: GradientPolicy
    ) -> None:
        super().__init__(workflow, parameters, crew)
        self._policy = policy
        self._flying: dict[int, _Task] = {}  # by the numbers of the pieces
        self._count = 0  # of the tasks under way
        self._served: _Task
        self._unseen: list[int] = []  # pieces whose update is applied and not published yet
        self._staleness: Counter[int] = Counter()
        self._samples = 0

    def take_turn(self, source: BatchSource) -> None:
        """Keep the crew busy within a class; serve the minibatch that is whole next."""
        self.publish()
        for number in self._unseen:
            self.crew.applied(number)
        limit = self._policy.tasks(self.crew.slaves, self.crew.capacity)
        if self.is_draining and self._count:
            limit = self._count
        while self._count < max(1, limit) and source.has_more_of_kind:
            self._begin(source, source.issue())
        while True:
            done = self.next_done()
            task = self._flying.pop(done.piece.number)
            vector = self._take(task, done)
            if task.is_whole:
                break
        self._served, self._unseen = task, list(task.shards)
        self._count -= 1
        source.serve(task.batch)
        if vector is not None:
            self._apply(task, done, vector)

    @property
    def is_idle(self) -> bool:
        """Whether no minibatch is under way."""
        return not self._flying

    def _begin(self, source: BatchSource, batch: Batch) -> None:
        cut = self._policy.cut
        task = _Task(batch, None)
        self._count += 1
        start: NDArray[Any] | None = None
        size = batch.size
        if cut is not None:  # all shards must begin with the same parameters
            size = shard_size(source.max_minibatch_size, cut)
            task.version = self.version
            if batch.kind == TRAIN:
                start = np.array(self._parameters.values.read())
                task.total = OrderedSum(np.zeros(self._parameters.gradients.size, start.dtype))
        for shard, first in enumerate(range(0, batch.size, size)):
            part = Part(batch, first, min(size, batch.size - first))
            number = self._submit(part, start)
            task.shards[number] = shard
            self._flying[number] = task

    def _take(self, task: _Task, done: Done) -> NDArray[Any] | None:
        """Take in a shard; return the gradient as far as it is known."""
        shard = task.shards[done.piece.number]
        task.updates[shard] = done.updates
        if task.total is None or done.gradients is None:
            return done.gradients
        task.total.add(shard, done.gradients)
        return task.total.total

    def _apply(self, task: _Task, done: Done, vector: NDArray[Any]) -> None:
        version = done.version if task.version is None else task.version
        staleness = self.version - version
        weight = self._policy.weight(staleness)
        self._parameters.gradients.write(vector if weight == 1 else vector * weight)
        self._staleness[staleness] += 1
        self._samples += task.batch.size
        self._is_changed = True

    def collect(self) -> None:
        """Hand out what the minibatch's computation found."""
        self._hand_out([self._served.updates[shard] for shard in sorted(self._served.updates)])

    def results(self) -> dict[str, Any]:
        """Return the staleness of the updates applied: mean, maximum, how many of each."""
        total = sum(self._staleness.values())
        steps = sum(staleness * count for staleness, count in self._staleness.items())
        counts = {str(staleness): count for staleness, count in sorted(self._staleness.items())}
        return {
            "staleness": {
                "mean": steps / max(total, 1),
                "max": max(self._staleness, default=0),
                "counts": counts,
            },
            "effective_batch": self._samples / max(total, 1),
        }
