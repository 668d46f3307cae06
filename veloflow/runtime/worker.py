"""What a slave computes: the slave's part of a workflow, one job at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from veloflow.core import Outcome, Payload, Unit
from veloflow.errors import NotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        self._parameters = session.parameters
        self._flow = session.workflow.flow
        self._units = {unit.path: unit for unit in session.workflow.all_units()}
        self._reporting = [
            unit for unit in self._units.values() if type(unit).make_update is not Unit.make_update
        ]
        self._is_started = False
        self.steps = 0  #: jobs done, which a heartbeat tells

    def load(self, values: NDArray[np.floating]) -> None:
        """Take these parameters: the flat vector (n,)."""
        self._parameters.values.write(values)

    @property
    def gradients(self) -> NDArray[np.floating]:
        """The flat gradient (n,) of the last job, a view until the next one."""
        return np.asarray(self._parameters.gradients.read())

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
