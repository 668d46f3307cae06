"""Plans of faults: what is to go wrong, by chance or by appointment."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from veloflow.errors import OptionError, nearest

__all__ = ["Appointment", "FaultPlan"]


@dataclass(frozen=True)
class Appointment:
    """A fault that strikes one slave at one of its jobs.

    Attributes:
        fault: which.
        slave: its name, such as ``slave2``.
        job: the number of its job, from 1.
    """

    fault: str
    slave: str
    job: int

    def __str__(self) -> str:
        return f"{self.fault}={self.slave}@job{self.job}"


@dataclass(frozen=True)
class FaultPlan:
    """What goes wrong, as probabilities by job (``damage``, ``double``, ``late``: by message).

    Attributes:
        kill: the slave dies at once.
        hang: it freezes for a while, or for ever.
        slow: the slave is ten times as slow, from then on.
        leave: it is asked to leave, and ends its job first.
        fail: a unit raises.
        lie: it answers a job that it does not have.
        spoil: NaN is in its update.
        flip: a bit in its update is wrong; an audit may find it.
        damage: the message cannot be read.
        double: the message comes twice.
        late: the message takes a hundred times as long.
        join: another slave joins after a job (in a simulation).
        restart: the master dies after a job, and another takes over (in a simulation).
        appointments: faults of one slave at one job.
    """

    kill: float = 0.0
    hang: float = 0.0
    slow: float = 0.0
    leave: float = 0.0
    fail: float = 0.0
    lie: float = 0.0
    spoil: float = 0.0
    flip: float = 0.0
    damage: float = 0.0
    double: float = 0.0
    late: float = 0.0
    join: float = 0.0
    restart: float = 0.0
    appointments: tuple[Appointment, ...] = ()

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all faults."""
        return [one.name for one in fields(cls) if one.name != "appointments"]

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Read ``kill=0.05,hang=slave2@job5``.

        Raises:
            OptionError: the text is no plan; the message says what it may hold.
        """
        known = cls.names()
        given: dict[str, Any] = {}
        appointments: list[Appointment] = []
        for word in filter(None, text.split(",")):
            name, _, value = word.partition("=")
            if name not in known:
                raise OptionError(
                    f"no fault {name!r}{nearest(name, known)}; there are: {', '.join(known)}"
                )
            appointed = re.fullmatch(r"(\w+)@job([1-9]\d{0,8})", value)
            if appointed:
                appointments.append(Appointment(name, appointed[1], int(appointed[2])))
                continue
            try:
                given[name] = float(value)
            except ValueError:
                given[name] = -1.0
            if not 0 <= given[name] <= 1:
                raise OptionError(
                    f"fault {name!r} wants a probability from 0 to 1, or slave2@job5 for the fifth "
                    f"job of slave2, not {value!r}"
                )
        return cls(**given, appointments=tuple(appointments))

    @classmethod
    def wild(cls, choose: Callable[[Sequence[float]], float]) -> FaultPlan:
        """Return a plan with a few faults of every sort; ``choose`` says which of these odds."""
        chances: dict[str, Any] = {name: choose((0.0, 0.0, 0.02, 0.05)) for name in cls.names()}
        return cls(**chances)

    def __str__(self) -> str:
        words = [f"{name}={getattr(self, name)}" for name in self.names() if getattr(self, name)]
        return ",".join([*words, *map(str, self.appointments)])

    def strikes(self, fault: str, slave: str, job: int, chance: Callable[[], float]) -> bool:
        """Say whether a fault happens to a slave at one of its jobs.

        Args:
            fault: its name.
            slave: the slave's name.
            job: the number of its job, from 1.
            chance: gives numbers from 0 to 1, which decide about those that are no appointments.
        """
        by_chance = chance() < float(getattr(self, fault))
        return by_chance or any(
            (one.fault, one.slave, one.job) == (fault, slave, job) for one in self.appointments
        )
