"""The range servers that a master starts: told what they need, started again when they end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from veloflow.protocol.respawn import Respawn
from veloflow.runtime.master.processes import SlaveProcess
from veloflow.runtime.slaves.range_server import TOLD

if TYPE_CHECKING:
    from veloflow.runtime.transport.connections import Listener

__all__ = ["RangeServers"]


class RangeServers:
    """The server processes of a run.

    Args:
        count: how many.
        folder: the run's, private, where they leave their addresses.
        told: their host, the run's token, and the group's public and secret key or ''.
        group: the process group that they belong to.
        listener: is told which descriptors say that a process has ended.
        patience: scales every wait.
    """

    def __init__(
        self,
        count: int,
        folder: Path,
        told: tuple[str, str, str, str],
        group: int,
        listener: Listener,
        patience: float,
    ) -> None:
        self._folder = folder
        self._told = told
        self._group = group
        self._listener = listener
        self._by_sentinel: dict[int, SlaveProcess] = {}
        self._files: dict[int, Path] = {}
        self._respawns = [Respawn(patience=patience) for _ in range(count)]
        self._due: list[tuple[float, int]] = []
        self._lives = 0
        for number in range(count):
            self._start(number)

    @property
    def addresses(self) -> list[str] | None:
        """Where the servers are, by number; None while one of them is not there yet."""
        if len(self._by_sentinel) < len(self._respawns):
            return None
        try:
            return [self._files[one].read_text() for one in range(len(self._respawns))]
        except FileNotFoundError:
            return None

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that run."""
        return [one.pid for one in self._by_sentinel.values()]

    def owns(self, sentinel: int) -> bool:
        """Whether a descriptor tells of a server."""
        return sentinel in self._by_sentinel

    def bury(self, sentinel: int) -> tuple[str, bool]:
        """Let go of a server that has ended; return its fate, and whether another comes."""
        process = self._by_sentinel.pop(sentinel)
        self._listener.unwatch(sentinel)
        fate = f"range server {process.number + 1} has ended: {process.fate()}"
        process.close()
        when = self._respawns[process.number].died(time.monotonic())
        if when is not None:
            self._due.append((when, process.number))
        return fate, when is not None

    def start_due(self, now: float) -> None:
        """Start those whose time has come."""
        for entry in [one for one in self._due if now >= one[0]]:
            self._due.remove(entry)
            self._start(entry[1])

    def stop(self) -> None:
        """End all; they keep nothing."""
        for process in self._by_sentinel.values():
            self._listener.unwatch(process.sentinel)
            process.close()
        self._by_sentinel.clear()

    def _start(self, number: int) -> None:
        self._lives += 1
        self._files[number] = file = self._folder / f"server-{number}-{self._lives}"
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "veloflow.runtime.slaves.range_server"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            process_group=self._group,
            env={**os.environ, TOLD: "\n".join((str(file), *self._told)),
                 "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        sentinel = os.pidfd_open(process.pid)
        own = SlaveProcess(number, b"", process, errors, sentinel, time.monotonic())
        self._by_sentinel[sentinel] = own
        self._listener.watch(sentinel)
