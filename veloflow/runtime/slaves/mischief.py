"""Faults on purpose: a slave that dies, hangs, crawls or lies as a plan says (``--faults``)."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import numpy as np

from veloflow.errors import UnitError
from veloflow.protocol.codec import encode
from veloflow.protocol.faults import FaultPlan
from veloflow.protocol.messages import LeaseId, Update

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from veloflow.runtime.transport.connections import Frame

__all__ = ["VARIABLE", "Mischief"]

#: the environment variable that brings a slave its plan: ``life plan``
VARIABLE = "VELOFLOW_FAULTS"
_SLOW, _LATE = 10, 0.5
_NOBODYS = LeaseId(2**31 - 1, 77)


class Mischief:
    """Does what a plan of faults says to the slave that it is part of.

    Args:
        plan: what may go wrong.
        name: of this slave.
        life: how often a slave of this name was started before; the same faults do not come again.
    """

    def __init__(self, plan: FaultPlan, name: str, life: int = 0) -> None:
        self._plan = plan
        self._name = name
        self._chance = random.Random(f"{name} {life}")
        self._job = 0
        self._is_slow = False
        self._is_planned = bool(str(plan))

    @classmethod
    def from_environment(cls, name: str) -> Mischief:
        """Return what the master's ``--faults`` say of this slave; nothing, as a rule."""
        life, _, text = os.environ.pop(VARIABLE, "0 ").partition(" ")
        return cls(FaultPlan.parse(text), name, int(life))

    def _strikes(self, fault: str) -> bool:
        return self._is_planned and self._plan.strikes(
            fault, self._name, self._job, self._chance.random
        )

    @property
    def touches_numbers(self) -> bool:
        """Whether numbers of updates may be spoiled: then all must be here until the job ends."""
        return any(word in str(self._plan) for word in ("flip", "spoil"))

    def before(self) -> None:
        """Begin with a job, or die, freeze or fail at it.

        Raises:
            UnitError: the plan says so.
        """
        self._job += 1
        if self._strikes("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._strikes("hang"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._strikes("leave"):
            os.kill(os.getpid(), signal.SIGTERM)
        if self._strikes("fail"):
            raise UnitError("faults", "a fault of the plan")

    def after(self, seconds: float, values: list[NDArray[np.floating]]) -> None:
        """End a job: take ten times as long, or spoil what was found.

        Args:
            seconds: that the job took.
            values: arrays of the update, to be spoiled in place; empty ones are left alone.
        """
        self._is_slow = self._is_slow or self._strikes("slow")
        if self._is_slow:
            time.sleep((_SLOW - 1) * seconds)
        flips, spoils = self._strikes("flip"), self._strikes("spoil")
        for array in [one for one in values if one.size][:1]:
            if flips:
                largest = int(np.abs(array).argmax())
                array[largest : largest + 1].view(np.uint8)[1] ^= 16  # a bit of the mantissa
            if spoils:
                array[0] = np.nan

    def send(self, send: Callable[[list[Frame]], object], frames: list[Frame]) -> None:
        """Send an update: late, damaged, twice, or with a lie before it."""
        if self._strikes("late"):
            time.sleep(_LATE)
        if self._strikes("lie"):
            send([encode(Update(_NOBODYS, {}, (), 0.0))])
        if self._strikes("damage"):
            send([b"what is no message"])
            return
        send(frames)
        if self._strikes("double"):
            send(frames)
