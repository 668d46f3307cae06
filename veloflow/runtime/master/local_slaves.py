"""The slaves that a master starts itself: started, started again, and judged when they end."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from veloflow.protocol.respawn import Respawn
from veloflow.runtime.master.processes import SlaveProcess, stop_all
from veloflow.runtime.slaves.mischief import VARIABLE

if TYPE_CHECKING:
    from veloflow.runtime.master.settings import ClusterSettings
    from veloflow.runtime.transport.connections import Listener

__all__ = ["Ended", "LocalSlaves"]

#: seconds, times patience, in which a local slave has to join
_START = 60.0


@dataclass(frozen=True)
class Ended:
    """A local slave whose process has ended.

    Attributes:
        number: its place, from 0.
        identity: the name by which its connection was known.
        fate: how it ended.
        is_dismissed: whether it was told to leave, for fewer are wanted.
    """

    number: int
    identity: bytes
    fate: str
    is_dismissed: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return f"slave{self.number + 1}"


class LocalSlaves:
    """The processes of a run's local slaves.

    Args:
        settings: what the user says.
        address: where they find the master.
        group: the process group that they belong to.
        listener: is told which descriptors say that a process has ended.
    """

    def __init__(
        self, settings: ClusterSettings, address: str, group: int, listener: Listener
    ) -> None:
        self._settings = settings
        self._address = address
        self._group = group
        self._listener = listener
        self._by_sentinel: dict[int, SlaveProcess] = {}
        self._respawns: dict[int, Respawn] = {}
        self._due: list[tuple[float, int]] = []  # when which one is to be started
        self._lives: Counter[int] = Counter()
        self._spares = 0  # started to judge; they take the places of those found wrong
        self._leaving: set[int] = set()  # told to leave, for fewer are wanted
        self.scale(settings.slaves)

    @property
    def has_any(self) -> bool:
        """Whether one runs or is to be started."""
        return bool(self._by_sentinel or self._due)

    @property
    def next_start(self) -> float | None:
        """When the next one is to be started again; None for never."""
        return min((when for when, _ in self._due), default=None)

    def owns(self, client: bytes) -> bool:
        """Whether a client is one of these."""
        return any(one.identity == client for one in self._by_sentinel.values())

    def kill(self, client: bytes) -> None:
        """End the process of a client, if it is one of these."""
        for process in self._by_sentinel.values():
            if process.identity == client:
                process.kill()

    def start_due(self, now: float) -> None:
        """Start those whose time has come."""
        for entry in [one for one in self._due if now >= one[0]]:
            self._due.remove(entry)
            self._start(entry[1])

    def end_sleepers(self, now: float, joined: Container[bytes]) -> None:
        """Kill those that do not come; they are then started again."""
        limit = _START * self._settings.patience
        for process in self._by_sentinel.values():
            if now - process.started > limit and process.identity not in joined:
                process.kill()

    def recruit(self) -> None:
        """Start one more, if there are local ones at all."""
        if self._settings.slaves:
            self._spares += 1
            self._start(self._free_number())

    def scale(self, count: int) -> None:
        """Have so many from now on, besides those who judge.

        Those that are too many, the latest ones, end their jobs and leave.
        """
        present = sorted({one.number for one in self._by_sentinel.values()} - self._leaving)
        more = count + self._spares - len(present) - len(self._due)
        for _ in range(more):
            self._start(self._free_number())
        while more < 0 and self._due:
            self._due.remove(max(self._due))
            more += 1
        for process in self._by_sentinel.values():
            if process.number in present[len(present) + min(more, 0) :]:
                self._leaving.add(process.number)
                process.ask_to_leave()

    def _free_number(self) -> int:
        """Return the first place that nobody has or is to have."""
        taken = {one.number for one in self._by_sentinel.values()}
        taken.update(number for _, number in self._due)
        return next(number for number in itertools.count() if number not in taken)

    def bury(self, sentinel: int) -> Ended | None:
        """Let go of a process that has ended; None if it is none of these."""
        process = self._by_sentinel.pop(sentinel, None)
        if process is None:
            return None
        self._listener.unwatch(sentinel)
        fate = process.fate()
        process.close()
        is_dismissed = process.number in self._leaving
        self._leaving.discard(process.number)
        return Ended(process.number, process.identity, fate, is_dismissed)

    def replace(self, ended: Ended, *, is_exposed: bool) -> bool:
        """Start another in the place of one that has ended; False when that died too often.

        One that was dismissed is not replaced.

        Args:
            ended: the one that has ended.
            is_exposed: whether it was put out as a liar; a judge may have its place already.
        """
        if ended.is_dismissed:
            return True
        if is_exposed and self._spares:
            self._spares -= 1
            return True
        when = self._respawns[ended.number].died(time.monotonic())
        if when is None:
            return False
        self._due.append((when, ended.number))
        return True

    def stop(self, grace: float) -> None:
        """Wait a moment for those that were told to leave; leave none behind."""
        stop_all(list(self._by_sentinel.values()), grace)

    def _start(self, number: int) -> None:
        settings = self._settings
        self._respawns.setdefault(number, Respawn(patience=settings.patience))
        cores = max(1, (os.cpu_count() or 1) // max(1, settings.most))
        arguments = [
            self._address,
            *("--device", settings.device),
            *("--name", f"slave{number + 1}"),
            *("--patience", str(settings.patience)),
        ]
        process = SlaveProcess.start(
            number,
            arguments,
            group=self._group,
            cores=1 if settings.exactly else cores,
            environment={**dict(settings.environment), **self._faults_of(number)},
        )
        self._by_sentinel[process.sentinel] = process
        self._listener.watch(process.sentinel)

    def _faults_of(self, number: int) -> dict[str, str]:
        """Return what tells a local slave its faults; appointments are for its first life."""
        life = self._lives[number]
        self._lives[number] += 1
        plan = self._settings.faults
        text = str(replace(plan, appointments=()) if life else plan)
        return {VARIABLE: f"{life} {text}"} if text else {}
