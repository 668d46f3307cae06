"""Local slave processes: started, watched, started again, and never left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Janitor", "SlaveProcess", "stop_all"]

_TAIL = 2000

#: seconds in which a process that has ended, or was killed, can be waited for
_REAP = 30.0


class Janitor:
    """A small process that cleans up when this one dies, however it dies.

    It reads from a pipe that only this process holds. When the pipe ends it removes the run's
    folder and kills its own process group, which local slaves are in; so it reaches stopped ones.
    """

    def __init__(self, folder: Path) -> None:
        script = 'trap "" INT TERM HUP; cat >/dev/null; rm -rf -- "$1"; kill -9 0'
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", script, "veloflow-janitor", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    @property
    def group(self) -> int:
        """The process group that it will kill."""
        return self._process.pid

    def close(self) -> None:
        """Let it clean up now."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_REAP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_REAP)


@dataclass
class SlaveProcess:
    """A local slave.

    Attributes:
        number: its place among the local slaves, from 1.
        identity: the secret name by which its connection is known.
        sentinel: a descriptor that is ready when the process has ended.
    """

    number: int
    identity: bytes
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    sentinel: int
    started: float

    @classmethod
    def start(
        cls,
        number: int,
        arguments: Sequence[str],
        *,
        group: int,
        cores: int,
        environment: Mapping[str, str],
    ) -> SlaveProcess:
        """Start ``veloflow slave`` with these arguments, to use so many cores."""
        identity = b"L" + secrets.token_bytes(15)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        bounds = {
            name: str(cores)
            for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                         "POCL_MAX_PTHREAD_COUNT")
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "veloflow", "slave", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            process_group=group,
            env={**os.environ, **bounds, **environment, "VELOFLOW_IDENTITY": identity.hex()},
        )
        sentinel = os.pidfd_open(process.pid)
        return cls(number, identity, process, errors, sentinel, time.monotonic())

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    def fate(self) -> str:
        """Return how it ended, with the last line that it printed; call it when it has."""
        code = self.process.wait(_REAP)
        text = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - _TAIL))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"{text}: {lines[-1]}" if lines else text

    def ask_to_leave(self) -> None:
        """Have it end its job and leave, also when it is stopped."""
        for one in (signal.SIGTERM, signal.SIGCONT):
            self.process.send_signal(one)

    def kill(self) -> None:
        """End it at once, also when it is stopped."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """Kill it if it still runs, and let go of what belongs to it."""
        self.kill()
        self.process.wait(_REAP)
        os.close(self.sentinel)
        self.errors.close()


def stop_all(processes: Sequence[SlaveProcess], grace: float) -> None:
    """Give processes that were told to leave a moment; kill those that do not."""
    until = time.monotonic() + grace
    for one in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, until - time.monotonic()))
    for one in processes:
        one.close()
