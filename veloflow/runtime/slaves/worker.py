"""What a slave computes: the slave's part of a workflow, one job at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.core import Outcome, Payload, Unit
from veloflow.errors import NotFoundError
from veloflow.runtime.jobs.stretches import join_steps, place_of, split_steps
from veloflow.runtime.slaves.replica import Replica
from veloflow.runtime.transport.found_vector import found_vector_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.devices import Array
    from veloflow.runtime.session import Session

__all__ = ["Jobs", "Worker"]

#: payloads by unit path
Jobs = Mapping[str, Payload]

_TRAIN = 2


class Worker:
    """A session in the role of a slave.

    Args:
        session: set up, with the role "slave".
    """

    def __init__(self, session: Session) -> None:
        self.device = session.device.name
        self.parameters = self._parameters = session.parameters
        self._workflow = session.workflow
        self._is_local = session.settings.local
        self.vector = found_vector_of(session.parameters, session.settings)
        self._begun: NDArray[np.floating] | None = None  # what the last stretch began with
        self._flow = session.workflow.flow
        self._units = {unit.path: unit for unit in session.workflow.all_units()}
        self._reporting = [
            unit for unit in self._units.values() if type(unit).make_update is not Unit.make_update
        ]
        self._counting = [
            unit for unit in self._units.values() if type(unit).go_to is not Unit.go_to
        ]
        self._is_started = False
        self._spans: dict[tuple[int, int], Array] = {}  #: views of the gradient
        self.steps = 0  #: jobs done, which a heartbeat tells

    @cached_property
    def replica(self) -> Replica | None:
        """What moves a copy of the parameters as the master does; None where that cannot be."""
        if self._is_local:  # it moves the parameters of its own by its own device
            return None
        return Replica.of(self._workflow, self._parameters)

    def load(self, values: NDArray[np.floating]) -> None:
        """Take these parameters: the flat vector (n,)."""
        self._parameters.values.write(values)

    def values(self) -> NDArray[np.floating]:
        """Return a copy of the parameters (n,)."""
        return np.array(self._parameters.values.read())

    @property
    def found(self) -> NDArray[np.floating]:
        """What the last job found, a view until the next one.

        The flat gradient (n,); or what a stretch has changed in the parameters and in what the
        solver keeps (m n,).
        """
        if self._begun is not None:
            return self._parameters.read_all() - self._begun
        return np.asarray(self._parameters.gradients.read())

    @contextmanager
    def watched(self, look: Callable[[int, int], None]) -> Iterator[None]:
        """Let ``look`` be told where in the flat gradient (start, stop) numbers are complete."""
        self._parameters.watcher = look
        try:
            yield
        finally:
            self._parameters.watcher = None

    def gradient(self, start: int, stop: int) -> NDArray[Any]:
        """Return a copy of these numbers of the flat gradient."""
        span = start, stop
        if span not in self._spans:
            device, gradients = self._parameters.device, self._parameters.gradients
            self._spans[span] = device.view(gradients, start, (stop - start,))
        return np.array(self._spans[span].read())

    def factors(self, count: int) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Return what gradients of the last job are products of, by the name of the parameter.

        Args:
            count: how many samples the job had; rows beyond are padding.
        """
        found: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        seen: Counter[str] = Counter()
        for unit in self._units.values():
            factors = getattr(unit, "factors", None)
            for name, pair in factors().items() if callable(factors) else ():
                seen[name] += 1
                u, v = (np.asarray(one.read())[:count].reshape(count, -1) for one in pair)
                found[name] = u, v
        return {name: pair for name, pair in found.items() if seen[name] == 1}

    def work(
        self, kind: int, jobs: Jobs, start: NDArray[np.floating] | None = None
    ) -> dict[str, Payload]:
        """Do a job or a stretch; return what each unit says of it.

        Args:
            kind: of samples, or -1 for work that is no minibatch.
            jobs: what the units' twins say, of a stretch as :func:`join_steps` has it.
            start: the parameters to begin with (n,), or all that there is (m n,).
        """
        self._begun = None
        if start is not None and start.size == self._parameters.values.size:
            self.load(start)
        elif start is not None:
            self._parameters.write_all(start)
        if not self._is_local or kind != _TRAIN:
            return self.compute(kind, jobs)
        begun = self._parameters.read_all()
        updates = join_steps([self._step(kind, one) for one in split_steps(jobs)])
        self._begun = begun
        return updates

    def _step(self, kind: int, jobs: Jobs) -> dict[str, Payload]:
        """Train on one minibatch of a stretch."""
        place, own = place_of(jobs)
        for unit in self._counting:
            unit.go_to(place.steps, place.minibatches)
        return self.compute(kind, own)

    def compute(self, kind: int, jobs: Jobs) -> dict[str, Payload]:
        """Do a job; return what each unit says of it.

        Args:
            kind: of samples, or -1 for work that is no minibatch.
            jobs: what the units' twins on the master say.

        Raises:
            NotFoundError: the job is for a unit that this workflow does not have.
            UnitError: a unit raised.
        """
        for path, payload in jobs.items():
            if path not in self._units:
                raise NotFoundError(f"a job is for unit {path!r}, which this workflow has not")
            self._units[path].take_job(payload)
        self.steps += 1
        if kind < 0:
            return {path: self._work_alone(self._units[path]) for path in jobs}
        self._run_round()
        return {unit.path: unit.make_update() for unit in self._reporting}

    def _work_alone(self, unit: Unit) -> Payload:
        unit.run_as_slave()
        return unit.make_update()

    def _run_round(self) -> None:
        if not self._is_started:
            self._flow.start()
            self._flow.request_pause()
            self._flow.run()
            self._is_started = True
        if self._flow.run_round() is Outcome.FINISHED:
            self._is_started = False

    @staticmethod
    def has_gradients(kind: int) -> bool:
        """Return whether jobs of this kind leave gradients."""
        return kind == _TRAIN
