"""How near a run is to the edge of what its rate allows: what its first steps tell. Pure.

Gradients that are s steps stale are stable while s · κ < 1, where κ = η λ / (1 − β) is the length
of a step in units of the curvature: η the rate, β the momentum, λ the largest curvature (for heavy
balls with β from 0.5 to 0.99 and s from 1 to 7 that is right within a third). Nobody knows λ, but
no loss that cannot fall below 0 lets its gradient be larger than its curvature allows:
|g|² ≤ 2 λ f. So κ ≥ η |g|² / (2 f (1 − β)), which two steps of sync tell: the first one gives η,
for nothing has momentum yet, and the second one β.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Edge"]

#: momenta are taken to be no larger
_MOST = 0.99


class Edge:
    """Takes in the first two steps of a run.

    Attributes:
        kappa: the bound below κ, the mean of both steps; None before it is known.
    """

    def __init__(self, kappa: float | None = None) -> None:
        self.kappa = kappa
        self._first: tuple[NDArray[np.floating], float, float] | None = None  # moved, η, bound

    def step(
        self, gradient: NDArray[np.floating], moved: NDArray[np.floating], loss: float
    ) -> None:
        """Take in a step.

        Args:
            gradient: of the minibatch (n,).
            moved: how the parameters have changed by it (n,).
            loss: the mean one of the minibatch, before the step.
        """
        if self.kappa is not None:
            return
        gradient, moved = gradient.astype(np.float64), moved.astype(np.float64)
        square = float(gradient @ gradient)
        if not (np.isfinite(square) and square > 0 and loss > 0 and np.isfinite(loss)):
            return
        if self._first is None:
            rate = -float(moved @ gradient) / square
            if rate > 0:  # else it was no step against the gradient
                self._first = moved, rate, rate * square / (2 * loss)
            return
        before, rate, bound = self._first
        kept = float((moved + rate * gradient) @ before) / float(before @ before)
        momentum = min(max(kept, 0.0), _MOST)
        self.kappa = (bound + rate * square / (2 * loss)) / 2 / (1 - momentum)
