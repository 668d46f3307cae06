"""The form of a run's jobs, and a worker that changes from one form to another.

A mode of sharing says into how many parts a minibatch is cut and whether slaves take steps of their
own; a slave's graph is made for that. Where a run may change its mode, jobs say their form, and a
slave keeps a graph for each form that it has met: so its data is loaded once for each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from veloflow.errors import WireError
from veloflow.runtime.slaves.worker import Worker
from veloflow.runtime.transport.found_vector import FoundVector, found_vector_of
from veloflow.sharing.codecs import parse_codec
from veloflow.sharing.policies import Auto, GradientPolicy, LocalPolicy, Policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from veloflow.core import Payload, Settings
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.slaves.replica import Replica
    from veloflow.runtime.slaves.worker import Jobs

__all__ = ["FORM", "JobForm", "Workers", "cut_of"]

#: the key of the form among the payloads of a job; no unit and no step has it
FORM = "|form"


def cut_of(policy: Policy) -> int:
    """Return into how many parts slaves are to expect a minibatch to be cut; 0: its size says."""
    if isinstance(policy, Auto):  # it begins as sync
        return 0
    cut = policy.cut if isinstance(policy, GradientPolicy) else None
    return 1 if cut is None else cut


@dataclass(frozen=True)
class JobForm:
    """What a slave must know to do jobs; see :class:`~veloflow.core.Settings`."""

    shards: int = 1
    local: bool = False
    codec: str = "plain"

    @classmethod
    def of_policy(cls, policy: Policy, codec: str) -> JobForm:
        """Return the form of a mode's jobs."""
        return cls(cut_of(policy), isinstance(policy, LocalPolicy), codec)

    @classmethod
    def of_settings(cls, settings: Settings) -> JobForm:
        """Return the form that settings have."""
        return cls(settings.shards, settings.local, settings.codec)

    @classmethod
    def of_payload(cls, payload: Payload) -> JobForm:
        """Read what :meth:`payload` gives.

        Raises:
            WireError: it is something else.
        """
        found: dict[str, Any] = dict(payload)
        try:
            form = cls(**found)
        except TypeError:
            raise WireError(f"a form of jobs with {sorted(found)}") from None
        sorts = (type(form.shards), type(form.local), type(form.codec))
        if sorts != (int, bool, str) or not 0 <= form.shards <= 1024:
            raise WireError(f"a form of jobs that is none: {found!r:.80}")
        return form

    def payload(self) -> dict[str, Payload]:
        """Return what jobs of this form say."""
        return {FORM: asdict(self)}

    def into(self, settings: Settings) -> Settings:
        """Return these settings with this form."""
        return replace(settings, shards=self.shards, local=self.local, codec=self.codec)


class Workers:
    """A worker for jobs of several forms: it has a graph for each, and the same parameters.

    Args:
        first: the worker for the form that the run begins with.
        settings: of that one.
        make: makes another one, for other settings.
    """

    def __init__(
        self, first: Worker, settings: Settings, make: Callable[[Settings], Worker]
    ) -> None:
        self._settings = settings
        self._make = make
        self._form = JobForm.of_settings(settings)
        self._present = first
        self._by_key = {_key(self._form): first}
        self.vector: FoundVector = first.vector

    # -- forms --------------------------------------------------------------------------------

    def use(self, form: JobForm) -> bool:
        """Do jobs of this form from now on, with the same parameters; whether it is another.

        There is a new residual; what the former one holds is its master's to hand on.
        """
        if form == self._form:
            return False
        values = self._present.values()
        settings = form.into(self._settings)
        if _key(form) not in self._by_key:
            self._by_key[_key(form)] = self._make(settings)
        self._form, self._present = form, self._by_key[_key(form)]
        self.vector = found_vector_of(self._present.parameters, settings)
        self._present.load(values)
        return True

    def turn_to(self, jobs: dict[str, Payload]) -> bool:
        """Use the form that jobs say, which is taken out of them; whether it is another."""
        said = jobs.pop(FORM, None)
        return said is not None and self.use(JobForm.of_payload(said))

    # -- what a worker does -------------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device's name."""
        return self._present.device

    @property
    def parameters(self) -> Parameters:
        """The parameters that the next job is computed with."""
        return self._present.parameters

    @property
    def replica(self) -> Replica | None:
        """What moves a copy of the parameters as the master does; None where that cannot be."""
        return self._present.replica

    @property
    def steps(self) -> int:
        """Jobs done."""
        return sum(one.steps for one in self._by_key.values())

    @property
    def found(self) -> NDArray[np.floating]:
        """What the last job found; see :attr:`Worker.found`."""
        return self._present.found

    def load(self, values: NDArray[np.floating]) -> None:
        """Take these parameters (n,)."""
        self._present.load(values)

    def values(self) -> NDArray[np.floating]:
        """Return a copy of the parameters (n,)."""
        return self._present.values()

    def watched(self, look: Callable[[int, int], None]) -> AbstractContextManager[None]:
        """Let ``look`` be told which numbers of the gradient are complete."""
        return self._present.watched(look)

    def gradient(self, start: int, stop: int) -> NDArray[Any]:
        """Return a copy of these numbers of the flat gradient."""
        return self._present.gradient(start, stop)

    def factors(self, count: int) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Return what gradients of the last job are products of."""
        return self._present.factors(count)

    def work(
        self, kind: int, jobs: Jobs, start: NDArray[np.floating] | None = None
    ) -> dict[str, Payload]:
        """Do a job or a stretch; see :meth:`Worker.work`."""
        own = dict(jobs)
        self.turn_to(own)
        return self._present.work(kind, own, start)

    def compute(self, kind: int, jobs: Jobs) -> dict[str, Payload]:
        """Do a job; see :meth:`Worker.compute`."""
        return self._present.compute(kind, jobs)

    @staticmethod
    def has_gradients(kind: int) -> bool:
        """Return whether jobs of this kind leave gradients."""
        return Worker.has_gradients(kind)


def _key(form: JobForm) -> tuple[int, bool, bool]:
    """Return what a graph is made for."""
    return form.shards, form.local, parse_codec(form.codec).needs_factors
