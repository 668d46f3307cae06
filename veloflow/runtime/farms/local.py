"""The farm of slaves that take steps of their own: average, elastic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.core import Batch, BatchSource, Part, Payload
from veloflow.errors import CheckpointError
from veloflow.protocol.messages import Piece
from veloflow.runtime.farms.farm import PieceFarm
from veloflow.runtime.jobs.inspection import TRAIN
from veloflow.runtime.jobs.stretches import Place, join_steps, split_steps
from veloflow.runtime.master.crew import Done

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Crew
    from veloflow.sharing.policies import LocalPolicy

__all__ = ["LocalFarm"]

#: the share of a new measurement in what a step is thought to take
_NEWS = 0.3


@dataclass
class _Stretch:
    """Minibatches that one slave trains on one after another; or one that is only evaluated.

    Attributes:
        batches: which, in order.
        replica: whose it is; -1 for an evaluation.
        start: the vector (m n,) that it begins with.
        exchanges: how many there had been when it began.
        done: what came of it.
    """

    batches: Sequence[Batch]
    replica: int = -1
    start: NDArray[Any] | None = None
    exchanges: int = 0
    done: Done | None = None

    @property
    def updates(self) -> list[Mapping[str, Payload]]:
        """What units said, by minibatch."""
        assert self.done is not None
        found = self.done.updates
        return [found] if self.start is None else [*split_steps(found)]


class LocalFarm(PieceFarm):
    """Gives each slave a stretch of minibatches to train on, and lets the policy mix the ends.

    The master's own parameters are the centre, which is evaluated. All that must outlive a slave
    is here: centre and replicas; they are in checkpoints.
    """

    is_local = True

    def __init__(
        self, workflow: Workflow, parameters: Parameters, crew: Crew, policy: LocalPolicy
    ) -> None:
        super().__init__(workflow, parameters, crew)
        self._policy = policy
        self._replicas: list[NDArray[Any]] = []
        self._flying: dict[int, _Stretch] = {}
        self._served: list[_Stretch] = []
        self._pace: float | None = None  # seconds that a minibatch takes
        self._units = list(workflow.all_units())
        self._begun = 0  # TRAIN minibatches that were given to slaves
        self._trained = 0  # those that count
        self._left = 0  # steps that other farms have had taken
        self._before = 0  # those that other farms have had trained
        self._lengths: list[int] = []  # by replica, how many steps it has taken
        self._exchanges = self._samples = 0
        self._staleness: Counter[int] = Counter()

    # -- a turn -------------------------------------------------------------------------------

    def take_turn(self, source: BatchSource) -> None:
        """Keep the crew busy within a class; serve what is done next, and exchange."""
        self.publish()
        self._issue(source)
        self._served = [self._next()]
        is_training = self._served[0].replica >= 0
        if is_training and self._policy.waits:
            self._served += [self._next() for _ in range(len(self._flying))]
            self._served.sort(key=lambda one: one.replica)
        for stretch in self._served:
            for batch in stretch.batches:
                source.serve(batch)
        if is_training:
            self._exchange(self._served)

    def collect(self) -> None:
        """Hand out what the computation of these minibatches found."""
        self._hand_out([one for stretch in self._served for one in stretch.updates])

    def _next(self) -> _Stretch:
        done = self.next_done()
        stretch = self._flying.pop(done.piece.number)
        if done.gradients is not None and self._policy.waits:
            # it is read when all have come
            done = Done(done.piece, done.updates, done.gradients.copy(), done.version, done.seconds)
        stretch.done = done
        return stretch

    @property
    def is_idle(self) -> bool:
        """Whether no stretch is under way."""
        return not self._flying

    @property
    def steps(self) -> int:
        """How many steps the longest replica has taken."""
        return max(self._lengths, default=0)

    def follow(self, other: PieceFarm, steps: int, minibatches: int) -> None:
        """Go on with the counts as well."""
        super().follow(other, steps, minibatches)
        self._lengths, self._left = [steps], steps
        self._begun = self._trained = self._before = minibatches

    # -- issuing ------------------------------------------------------------------------------

    def _issue(self, source: BatchSource) -> None:
        while source.has_more_of_kind and self._has_room:
            batch = source.issue()
            if batch.kind != TRAIN:
                self._fly(_Stretch([batch]))
            else:
                self._issue_stretches(source, batch)

    @property
    def _has_room(self) -> bool:
        """Whether something more may be under way, of whatever kind is under way."""
        flying = list(self._flying.values())
        if not flying:
            return True
        if self.is_draining:
            return False
        if flying[0].replica < 0:
            return len(flying) < self.crew.capacity
        return not self._policy.waits and len(flying) < self._count()

    def _count(self) -> int:
        """How many replicas there are; of those that are kept, none is given up."""
        count = max(1, self._policy.replicas(self.crew.slaves))
        return max(count, len(self._replicas)) if self._policy.keeps_replicas else count

    def _issue_stretches(self, source: BatchSource, first: Batch) -> None:
        """Issue a round; or a stretch for a replica that has none under way."""
        count, steps = self._count(), self._policy.period.steps(self._pace)
        lengths = self._policy.waits and self._fitting_lengths(count, steps)
        if lengths:
            self._issue_cut(source, first, lengths)
            return
        wanted = count * steps if self._policy.waits else steps
        batches = [first]
        while len(batches) < wanted and source.has_more_of_kind:
            batches.append(source.issue())
        if not self._policy.waits:
            busy = {one.replica for one in self._flying.values()}
            self._fly_replica(next(one for one in range(count) if one not in busy), batches)
            return
        length = ceil(len(batches) / count)  # the last round of an epoch is shared alike too
        for replica, begin in enumerate(range(0, len(batches), length)):
            self._fly_replica(replica, batches[begin : begin + length])

    def _fitting_lengths(self, count: int, steps: int) -> dict[str, int]:
        """Return the length of each slave's stretch where some are slow for good, else nothing.

        Where the bits may not depend on who computes, or a round has another number of stretches
        than there are slaves, all are alike.
        """
        names, slow = self.crew.names, self.gauge.slowness()
        if self._policy.is_exact or len(names) != count or not slow.keys() & set(names):
            return {}
        return {name: max(1, steps // slow.get(name, 1)) for name in names}

    def _issue_cut(self, source: BatchSource, first: Batch, lengths: Mapping[str, int]) -> None:
        """Issue a round of stretches that are as long as slaves are quick."""
        wanted = sum(lengths.values())
        batches = [first]
        while len(batches) < wanted and source.has_more_of_kind:
            batches.append(source.issue())
        end = begin = 0
        total = 0
        for replica, (name, length) in enumerate(lengths.items()):
            total += length  # the last round of an epoch is shared in the same proportions
            begin, end = end, round(len(batches) * total / wanted)
            if end > begin:
                self._fly_replica(replica, batches[begin:end], name)

    def _fly_replica(self, replica: int, batches: Sequence[Batch], wish: str = "") -> None:
        centre = self._parameters.read_all()
        start = centre
        if self._policy.keeps_replicas:
            while len(self._replicas) <= replica:
                self._replicas.append(centre.copy())
            start = self._replicas[replica].copy()
        if self._policy.resets_momentum:
            start[self._parameters.values.size :] = 0
        # what the solver keeps in a new replica is the centre's: zeros, so its steps count from 0
        # (Adam looks), or what another farm has left there
        length = self._left if self._policy.keeps_replicas else max(self._lengths, default=0)
        self._lengths += [length] * (replica + 1 - len(self._lengths))
        self._fly(_Stretch(batches, replica, start, self._exchanges), wish)

    def _fly(self, stretch: _Stretch, wish: str = "") -> None:
        first = stretch.batches[0]
        count = sum(batch.size for batch in stretch.batches)
        piece = Piece(self._number, first.epoch, first.kind, first.position, count)
        jobs = [
            {unit.path: unit.make_job(Part(batch, 0, batch.size)) for unit in self._asking}
            for batch in stretch.batches
        ]
        joined: dict[str, Payload] = jobs[0]
        if stretch.start is not None:
            is_new = self._policy.resets_momentum  # each stretch: its steps count from 0 as well
            steps = 0 if is_new else self._lengths[stretch.replica]
            joined = join_steps(
                [
                    Place(steps + number, self._begun + number).into(one)
                    for number, one in enumerate(jobs)
                ]
            )
            self._begun += len(jobs)
        self._flying[piece.number] = stretch
        self._number += 1
        self.crew.submit(piece, joined, stretch.start, wish)

    # -- exchanging ---------------------------------------------------------------------------

    def _exchange(self, stretches: Sequence[_Stretch]) -> None:
        centre = self._parameters.read_all()
        found, steps = [], []
        for one in stretches:
            assert one.done is not None
            assert one.done.gradients is not None
            assert one.start is not None
            found.append(one.start + one.done.gradients)
            steps.append(len(one.batches))
            self._measure(one.done.seconds / len(one.batches))
            self._staleness[self._exchanges - one.exchanges] += 1
            self._samples += sum(batch.size for batch in one.batches)
            self._lengths[one.replica] += len(one.batches)
        self._mix(centre, found, [cast("NDArray[Any]", one.start) for one in stretches], steps)
        for one, vector in zip(stretches, found, strict=True):
            if self._policy.keeps_replicas:
                self._replicas[one.replica] = vector
        self._parameters.write_all(centre)
        self._exchanges += 1
        self._trained += sum(steps)
        self._is_changed = True
        for unit in self._units:
            unit.go_to(max(self._lengths), self._trained)

    def _mix(
        self,
        centre: NDArray[Any],
        found: Sequence[NDArray[Any]],
        starts: Sequence[NDArray[Any]],
        steps: Sequence[int],
    ) -> None:
        """Let the policy mix: all that there is, or the parameters alone where momenta are own."""
        size = self._parameters.values.size if self._policy.keeps_replicas else centre.size
        ends = [one[:size] for one in found]
        begins = [one[:size] for one in starts]
        self._policy.exchange(centre[:size], ends, begins, steps, self._count())

    def _measure(self, seconds: float) -> None:
        self._pace = seconds if self._pace is None else self._pace + _NEWS * (seconds - self._pace)

    # -- results and checkpoints --------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        """Return how often parameters were exchanged, and after how much work."""
        total = sum(self._staleness.values())
        mean = sum(one * count for one, count in self._staleness.items()) / max(total, 1)
        return {
            "exchanges": self._exchanges,
            "steps_between_exchanges": (self._trained - self._before) / max(total, 1),
            "replicas": len(self._replicas) or self._count(),
            "effective_batch": self._samples / max(self._exchanges, 1),
            "staleness": {"mean": mean, "max": max(self._staleness, default=0)},
        }

    @property
    def vector_size(self) -> int:
        """How many numbers the vector of an update has: parameters, and what solvers keep."""
        return self._parameters.read_all().size

    def state(self) -> Mapping[str, object]:
        """Return the replicas, and what codecs have left out."""
        return {
            **super().state(),
            "replicas": list(self._replicas),
            "lengths": self._lengths,
            "trained": self._trained,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the replicas back; stretches that were under way are done anew.

        Raises:
            CheckpointError: they are of another size.
        """
        super().restore(state)
        saved = cast("dict[str, Any]", state)
        replicas = cast("list[NDArray[Any]]", saved["replicas"])
        if any(one.shape != (self.vector_size,) for one in replicas):
            raise CheckpointError("the replicas of the checkpoint are of another size")
        self._replicas = [np.array(one) for one in replicas]
        self._lengths = list(saved["lengths"])
        self._begun = self._trained = saved["trained"]
