"""Contestants in one process take turns: what one left is over before the next begins."""

from __future__ import annotations

import time
from collections.abc import Callable

#: seconds before each turn: threads of OpenBLAS spin for some 25 to 50 ms after a product, on cores
#: that the next contestant needs
_PAUSE = 0.1
#: seconds of work before each turn: after a pause the system has both threads of the driver on one
#: core, until its scheduler sees that another is idle
_WARM_UP = 0.05


def begin_turn(work: Callable[[], object]) -> None:
    """Wait until the machine is idle, and let a contestant do some work that is not timed."""
    time.sleep(_PAUSE)
    ready = time.perf_counter() + _WARM_UP
    while time.perf_counter() < ready:
        work()
