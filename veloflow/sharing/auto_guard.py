"""When a mode that was taken is given up: the loss says so. Pure."""

from __future__ import annotations

import math
from collections import deque
from statistics import mean

__all__ = ["Guard"]

#: the losses of so many turns are looked at together
_WINDOW = 12
#: a trial is given up where the mean loss of training is so many times what it was before
_RISE = 1.5
#: any mode but sync is given up where the validation's loss rises so many times above its best
_WORSE = 1.4
#: where stale gradients are not stable, the rate is at its limit and noise is what holds training
#: up: there averaging, which takes noise away, is worth more than elsewhere
_AT_THE_EDGE = {"average": 1.9, "elastic": 1.7}


class Guard:
    """Follows the loss, and says when a mode is no good.

    Attributes:
        barred: names of modes that were given up.
        has_tripped: whether the present mode is to be given up.
        worths: by what the worth of a minibatch is to be multiplied, by the name of the mode.
    """

    def __init__(self) -> None:
        self.barred: frozenset[str] = frozenset()
        self.has_tripped = False
        self.worths: dict[str, float] = {}
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._limit = math.inf
        self._best = math.inf
        self._name, self._is_trial = "sync", False

    def begin(self, name: str, *, is_trial: bool) -> None:
        """A mode begins; a trial may let the training loss rise no further than so far."""
        self._name, self._is_trial = name, is_trial
        self.has_tripped = False
        self._limit = _RISE * mean(self._recent) if is_trial and self._recent else math.inf
        self._recent.clear()

    def trained(self, loss: float) -> None:
        """Take in the mean loss of a turn of training."""
        self._recent.append(loss)
        is_full = len(self._recent) == _WINDOW
        if self._is_trial and (not math.isfinite(loss) or is_full):
            self.has_tripped |= not mean(self._recent) <= self._limit

    def evaluated(self, loss: float) -> None:
        """Take in the loss of validation after an epoch."""
        if self._name != "sync" and not loss <= _WORSE * self._best:
            self.has_tripped = True
        self._is_trial = False
        if loss < self._best:
            self._best = loss

    def bar(self) -> str:
        """Give the present mode up for good; return its name."""
        if self._name != "sync":
            self.barred |= {self._name}
        if self._name in ("async", "ssp", "groups"):
            self.barred |= {"async", "ssp", "groups"}
            self.worths = dict(_AT_THE_EDGE)
        self.has_tripped = False
        return self._name
