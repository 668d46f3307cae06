"""average: slaves train by themselves for a while, and go on from the mean of what they found.

P. Moritz, R. Nishihara, I. Stoica, M. Jordan: SparkNet: Training Deep Networks in Spark. ICLR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from veloflow.sharing.policies.base import LocalPolicy, Period

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Average"]


@final
@dataclass(frozen=True)
class Average(LocalPolicy):
    """Rounds of one stretch a slave; the mean is weighted by their minibatches.

    Args:
        every: the length of a stretch: minibatches, or seconds as in ``2s``.
        parts: how many stretches a round has; 0 for as many as there are slaves. With a number and
            a length in minibatches the bits do not depend on the slaves.
        momentum: "average" takes the mean of what the solver keeps (momentum …) too; "reset" begins
            each stretch with zeros, and so moves half as many bytes.
    """

    name: ClassVar[str] = "average"

    every: str = "20"
    parts: int = 0
    momentum: str = "average"

    def __post_init__(self) -> None:
        Period(self.every)
        if self.parts > 1024:
            raise ValueError(f"parts is {self.parts}; give a number from 0 to 1024")
        if self.momentum not in ("average", "reset"):
            raise ValueError(f"momentum is {self.momentum!r}; give average or reset")

    @property
    def is_exact(self) -> bool:
        """Whether neither clocks nor the number of slaves say how work is cut."""
        return bool(self.parts) and not self.period.is_seconds

    @property
    def period(self) -> Period:
        """How long a stretch is."""
        return Period(self.every)

    @property
    def waits(self) -> bool:
        """Always: the mean is of all."""
        return True

    def replicas(self, slaves: int) -> int:
        """Return how many stretches a round has."""
        return self.parts or slaves

    @property
    def resets_momentum(self) -> bool:
        """Whether each stretch begins with zeros in the place of the momentum."""
        return self.momentum == "reset"

    def exchange(
        self,
        centre: NDArray[np.floating],
        found: Sequence[NDArray[np.floating]],
        starts: Sequence[NDArray[np.floating]],
        steps: Sequence[int],
        replicas: int,
    ) -> None:
        """centre = sum of steps_i * found_i / sum of steps_i, added in their order."""
        total = sum(steps)
        mean = found[0] * centre.dtype.type(steps[0] / total)
        for one, count in zip(found[1:], steps[1:], strict=True):
            mean += one * centre.dtype.type(count / total)
        centre[:] = mean
