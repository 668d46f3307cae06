"""When a mode that was taken is given up: the loss says so. Pure."""

from __future__ import annotations

import math
from collections import deque
from statistics import mean, stdev

__all__ = ["Guard"]

#: the losses of so many turns are looked at together
_WINDOW = 12
#: a trial is given up where the mean loss of training is so many times what it was before, and a
#: mode with stale gradients where it is so many times that of the best epoch: the curvature grows
#: while a network learns, so what was stable in the first epoch may not be in the third
_RISE = 1.5
#: … surely: so many standard errors are taken off first
_ERRORS = 2.0
#: … and after three such times, where training has only just begun, not below so many times that
_FALL = 0.9
#: any mode but sync is given up where the validation's loss rises so many times above its best
_WORSE = 1.4
#: where stale gradients are not stable, κ of :mod:`veloflow.sharing.auto_edge` is at least so large
_AT_THE_EDGE = 0.35
#: modes whose updates may be stale
_STALE = frozenset({"async", "ssp", "groups"})


class Guard:
    """Follows the loss, and says when a mode is no good.

    Attributes:
        barred: names of modes that were given up.
        has_tripped: whether the present mode is to be given up.
        is_best: whether the last validation was better than all before.
    """

    def __init__(self) -> None:
        self.barred: frozenset[str] = frozenset()
        self.has_tripped = self.is_best = False
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._limit = self._later = self._least = math.inf
        self._turns = self._count = 0
        self._losses = 0.0  # of this epoch
        self._best = math.inf
        self._name, self._is_trial = "sync", False

    def begin(self, name: str, *, is_trial: bool, is_first: bool = False) -> None:
        """A mode begins; a trial may let the training loss rise no further than so far.

        Args:
            name: of the mode.
            is_trial: whether it is one.
            is_first: whether training has only just begun, so that the loss is to fall soon.
        """
        self._name, self._is_trial = name, is_trial
        self._turns = 0
        self._later = (_FALL if is_first else _RISE) * mean(self._recent or [math.inf])
        self.has_tripped = False
        self._limit = _RISE * mean(self._recent) if is_trial and self._recent else math.inf
        self._recent.clear()

    def trained(self, loss: float) -> None:
        """Take in the mean loss of a turn of training."""
        self._recent.append(loss)
        self._losses += loss
        self._turns += 1
        self._count += 1
        is_full = len(self._recent) == _WINDOW
        if math.isfinite(loss) and not is_full:
            return
        surely = mean(self._recent) - self._doubt()
        if self._is_trial:
            limit = self._limit if self._turns < 3 * _WINDOW else min(self._limit, self._later)
            self.has_tripped |= not surely <= limit
        elif self._name in _STALE:
            self.has_tripped |= not surely <= _RISE * self._least

    def _doubt(self) -> float:
        """Return what the mean may be wrong by: small minibatches have losses of all sizes."""
        if not all(map(math.isfinite, self._recent)):
            return 0.0
        return _ERRORS * stdev(self._recent) / math.sqrt(len(self._recent))

    def evaluated(self, loss: float) -> None:
        """Take in the loss of validation after an epoch."""
        if self._name != "sync" and not loss <= _WORSE * self._best:
            self.has_tripped = True
        self._is_trial = False
        if self._count >= _WINDOW:
            self._least = min(self._least, self._losses / self._count)
        self._losses, self._count = 0.0, 0
        self.is_best = loss < self._best
        self._best = min(self._best, loss)

    def bar(self) -> str:
        """Give the present mode up for good; return its name.

        What comes after it is not compared with the best of before, which it may have spoilt.
        """
        if self._name != "sync":
            self.barred |= {self._name}
        if self._name in _STALE:
            self.barred |= _STALE
        self.has_tripped = False
        self._best = self._least = math.inf
        self._recent.clear()
        return self._name

    def edge(self, kappa: float | None) -> float | None:
        """Return what is known of κ when it is known which modes were given up."""
        return max(kappa or 0.0, _AT_THE_EDGE) if self.barred & _STALE else kappa
