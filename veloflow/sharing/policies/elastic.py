"""elastic: each replica trains by itself, tied to a centre by a spring.

S. Zhang, A. Choromanska, Y. LeCun: Deep Learning with Elastic Averaging SGD. NIPS 2015.
H. Kim et al.: DeepSpark: Spark-Based Deep Learning Supporting Asynchronous Updates and Caffe
Compatibility. arXiv 1602.08191.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from veloflow.sharing.policies.base import LocalPolicy, Period

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Elastic"]


@final
@dataclass(frozen=True)
class Elastic(LocalPolicy):
    """After each stretch replica and centre move towards each other: EASGD.

        e = alpha (x - c),   x -= e,   c += e,   alpha = rho / replicas

    With a momentum in the gradient units each replica keeps its own (EAMSGD). The replicas are the
    master's: a slave that is lost takes none with it, and whoever comes goes on with one.

    Args:
        rho: the moving rate of the centre, 0.9 in the paper (there beta = p alpha).
        every: the length of a stretch: minibatches, or seconds as in ``2s``.
        parts: how many replicas; 0 for as many as there have been slaves at once.
        mode: "async" exchanges whenever a stretch ends, "sync" when all have ended.
    """

    name: ClassVar[str] = "elastic"
    keeps_replicas: ClassVar[bool] = True

    rho: float = 0.9
    every: str = "10"
    parts: int = 0
    mode: str = "async"

    def __post_init__(self) -> None:
        Period(self.every)
        if not 0 < self.rho <= 1:
            raise ValueError(f"rho is {self.rho:g}; give one above 0, 1 at most")
        if self.parts > 1024:
            raise ValueError(f"parts is {self.parts}; give a number from 0 to 1024")
        if self.mode not in ("async", "sync"):
            raise ValueError(f"mode is {self.mode!r}; give async or sync")

    @property
    def is_exact(self) -> bool:
        """Whether neither clocks nor the number of slaves say how work is cut."""
        return self.waits and bool(self.parts) and not self.period.is_seconds

    @property
    def period(self) -> Period:
        """How long a stretch is."""
        return Period(self.every)

    @property
    def waits(self) -> bool:
        """Whether an exchange waits for all replicas."""
        return self.mode == "sync"

    def replicas(self, slaves: int) -> int:
        """Return how many replicas there are."""
        return self.parts or slaves

    def exchange(
        self,
        centre: NDArray[np.floating],
        found: Sequence[NDArray[np.floating]],
        starts: Sequence[NDArray[np.floating]],
        steps: Sequence[int],
        replicas: int,
    ) -> None:
        """Move each replica and the centre towards each other, all from where the centre was."""
        alpha = centre.dtype.type(self.rho / replicas)
        pulls = [(one - centre) * alpha for one in found]
        for one, pull in zip(found, pulls, strict=True):
            one -= pull
        for pull in pulls:
            centre += pull
