"""What all modes of sharing have in common: the decisions that a farm asks a policy for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GradientPolicy", "LocalPolicy", "Period", "Policy"]

#: the most minibatches of one stretch, for they travel in one job
_MOST = 1000


class Policy(ABC):
    """A mode of sharing parameters. An outline; a mode is a frozen dataclass of its options.

    It decides and holds nothing: no array, no slave, no clock. A *task* is the work whose result
    is applied at once.
    """

    #: what a user writes after ``--sharing``
    name: ClassVar[str]

    @abstractmethod
    def tasks(self, slaves: int, capacity: int) -> int:
        """Return how many tasks may be under way.

        Args:
            slaves: how many are well now, 1 at least.
            capacity: how many pieces they can hold together.
        """

    @property
    def is_exact(self) -> bool:
        """Whether the result is the same to the last bit whoever computes."""
        return False

    @property
    def bound(self) -> int | None:
        """How many clocks a slave may be ahead of the slowest; None for no bound."""
        return None


class GradientPolicy(Policy):
    """Slaves send gradients, and the master takes the steps. An outline.

    A task is a minibatch; it may be cut into shards, which are computed with the same parameters.
    """

    @property
    def cut(self) -> int | None:
        """How many shards a minibatch has; 0 lets its size say, None leaves it whole."""
        return None

    def weight(self, staleness: int) -> float:
        """Return by what a gradient is multiplied.

        Args:
            staleness: how many steps were taken since the parameters that it was computed with.
        """
        return 1.0


@dataclass(frozen=True)
class Period:
    """How long slaves train by themselves: so many minibatches, or so many seconds.

    Raises:
        ValueError: neither, or not one of 1 to 1000 minibatches.
    """

    text: str

    def __post_init__(self) -> None:
        number = self.text.removesuffix("s")
        try:
            value = float(number) if self.is_seconds else int(number)
        except ValueError:
            value = 0
        if not 0 < value <= (3600 if self.is_seconds else _MOST):
            raise ValueError(
                f"every is {self.text!r}; give 1 to {_MOST} minibatches, or seconds as in 2s"
            )

    @property
    def is_seconds(self) -> bool:
        """Whether it is seconds."""
        return self.text.endswith("s")

    def steps(self, seconds_a_step: float | None) -> int:
        """Return how many minibatches, given what one takes; one where that is not known yet."""
        if not self.is_seconds:
            return int(self.text)
        if not seconds_a_step:
            return 1
        return max(1, min(_MOST, round(float(self.text[:-1]) / seconds_a_step)))


class LocalPolicy(Policy):
    """Slaves take steps of their own for a while, and exchange parameters then. An outline.

    A piece is a *stretch*: minibatches that one slave trains on one after another, from parameters
    that it is given. The master keeps all that must outlive a slave: the *centre*, and a *replica*
    for each stretch under way where the policy says so. So what is lost with a slave is the stretch
    that it was computing and nothing else, and the ledger gives its samples to another.
    """

    #: whether each replica goes on from its own parameters; otherwise all start from the centre
    keeps_replicas: ClassVar[bool] = False

    @property
    @abstractmethod
    def period(self) -> Period:
        """How long a stretch is."""

    @property
    @abstractmethod
    def waits(self) -> bool:
        """Whether an exchange waits for all replicas."""

    @abstractmethod
    def replicas(self, slaves: int) -> int:
        """Return how many stretches are under way, each of its own replica."""

    @abstractmethod
    def exchange(
        self,
        centre: NDArray[np.floating],
        found: Sequence[NDArray[np.floating]],
        starts: Sequence[NDArray[np.floating]],
        steps: Sequence[int],
        replicas: int,
    ) -> None:
        """Let the centre and the ends of some stretches act on each other, in place.

        Args:
            centre: (n,) the parameters that are evaluated.
            found: what the stretches ended with, each (n,), in the order of their samples; where
                the policy keeps replicas these go on from what they are afterwards.
            starts: what each of them began with.
            steps: how many minibatches each of them trained on.
            replicas: how many there are in all.
        """

    def tasks(self, slaves: int, capacity: int) -> int:
        """Return one round, or as many stretches as there are replicas."""
        return 1 if self.waits else self.replicas(slaves)

    @property
    def resets_momentum(self) -> bool:
        """Whether each stretch begins with what the solver keeps (momentum …) at zero."""
        return False
