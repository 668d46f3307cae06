"""Slaves as a Slurm job array: each element is a slave, requeued by Slurm when its node fails.

The script is written here from a template of typed options and given to ``sbatch``; submitit is not
used, because its jobs are pickled functions, and what runs here is one command line.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from veloflow.errors import EngineError, OptionError
from veloflow.runtime.launchers.base import Launcher, Reach, last_line, own_address
from veloflow.runtime.launchers.task import command

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["SlurmLauncher", "SlurmOptions"]

#: seconds in which Slurm's commands have to answer
_ANSWER = 60.0
#: how often Slurm is asked what became of the jobs, in seconds
_EVERY = 5.0
_WORD = re.compile(r"[\w.,:@/=+-]*")


class SlurmOptions(msgspec.Struct, frozen=True):
    """Options of ``--on slurm``.

    Attributes:
        partition, account, qos, constraint, time, mem, gres: as sbatch has them.
        cpus: cores for each slave (``--cpus-per-task``).
        folder: that all nodes see, where the offer is kept while the run goes on; by default below
            the folder that the run is started in.
        python: the interpreter of the nodes that has veloflow; by default this one's path.
        host: by which name nodes reach this machine.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = ""
    mem: str = ""
    gres: str = ""
    cpus: int = 1
    folder: str = ""
    python: str = sys.executable
    host: str = ""


class SlurmLauncher(Launcher[SlurmOptions]):
    """Submits one array; elements join when Slurm starts them, and nobody waits for the others."""

    name: ClassVar[str] = "slurm"
    Options: ClassVar[type[msgspec.Struct]] = SlurmOptions

    def connect(self) -> None:
        """Look for Slurm's commands and check the options.

        Raises:
            OptionError: an option would be more than one word of a script.
        """
        for field in self.options.__struct_fields__:
            value = str(getattr(self.options, field))
            if field not in ("folder", "python") and not _WORD.fullmatch(value):
                raise OptionError(f"--on slurm: {field}={value!r} has signs that it cannot have")
        self._jobs: list[str] = []
        self._dismissed: set[str] = set()
        self._asked = 0.0
        self._told: set[str] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def reach(self) -> Reach:
        """Return the name or address of this machine that nodes use."""
        if self.options.host:
            return Reach("0.0.0.0", self.options.host)
        controller = _controller()
        own = own_address(controller)
        return Reach(own, own)

    def script(self, count: int, offer: Path) -> str:
        """Return the script of an array of so many slaves."""
        options = self.options
        lines = ["#!/bin/sh", "#SBATCH --job-name=veloflow", f"#SBATCH --array=1-{count}"]
        lines += ["#SBATCH --ntasks=1", f"#SBATCH --cpus-per-task={options.cpus}"]
        # SIGTERM half a minute before the end: the slave hands its work back
        lines += ["#SBATCH --requeue", "#SBATCH --signal=B:TERM@30", "#SBATCH --open-mode=append"]
        lines.append(f"#SBATCH --output={offer.parent / 'slave-%a.log'}")
        for field in ("partition", "account", "qos", "constraint", "time", "mem", "gres"):
            if value := getattr(options, field):
                lines.append(f"#SBATCH --{field}={value}")
        bounds = "OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 "
        bounds += f"POCL_MAX_PTHREAD_COUNT={options.cpus}"
        words = command("--offer", str(offer), python=options.python)
        # exec: the signal reaches the slave and no shell around it
        lines.append(f'exec env {bounds} {shlex.join(words)} --name "slurm-$SLURM_ARRAY_TASK_ID"')
        return "\n".join(lines) + "\n"

    def start(self, count: int, offer: Offer) -> None:
        """Submit an array of so many slaves.

        Raises:
            EngineError: Slurm refuses.
            OptionError: Slurm has to be told how many.
        """
        if not count:
            raise OptionError("--on slurm has to be told how many: --slaves N")
        parent = self.options.folder or "."
        self._folder = tempfile.TemporaryDirectory(prefix=".veloflow-slurm-", dir=parent)
        self._offer = offer.save(Path(self._folder.name).resolve() / "offer.json")
        self._submit(count)

    def _submit(self, count: int) -> None:
        answer = _slurm(["sbatch", "--parsable"], self.script(count, self._offer))
        self._jobs.append(answer.strip().partition(";")[0])

    def resize(self, count: int) -> None:
        """Submit another array of the difference; cancel the latest elements that are too many.

        scancel sends SIGTERM, so that a slave hands its work back before it leaves.
        """
        present = [one for one in self._states() if one not in self._dismissed]
        if count > len(present):
            self._submit(count - len(present))
        elif count < len(present):
            surplus = sorted(present, key=_order)[count:]
            self._dismissed.update(surplus)
            _slurm(["scancel", *surplus])

    def _states(self) -> dict[str, str]:
        words = ["squeue", "--noheader", "--array", "--format=%i %T %r", "--jobs"]
        lines = _slurm([*words, ",".join(self._jobs)]).splitlines()
        return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if " " in line}

    def tend(self) -> Iterable[str]:
        """Say what keeps slaves waiting, and what those that ended early said."""
        now = time.monotonic()
        if not self._jobs or now - self._asked < _EVERY:
            return
        self._asked = now
        for job, state in self._states().items():
            if (
                "PENDING" in state
                and "None" not in state
                and (line := f"{job} {state}") not in self._told
            ):
                self._told.add(line)
                yield f"slurm: job {job} waits: {state.partition(' ')[2]}"
        for log in sorted(self._offer.parent.glob("slave-*.log")):
            for line in log.read_text(errors="replace").splitlines():
                if line.startswith("veloflow:") and line not in self._told:
                    self._told.add(line)
                    yield f"slurm: {log.stem}: {line.partition(':')[2].strip()}"

    def stop(self, grace: float) -> None:
        """Wait for the slaves to return; cancel what is still there, or was never started."""
        until = time.monotonic() + grace
        try:
            while self._jobs and time.monotonic() < until:
                if not any("RUNNING" in state for state in self._states().values()):
                    break
                time.sleep(0.1)
            if self._jobs:
                _slurm(["scancel", *self._jobs])
        finally:
            if self._folder is not None:
                self._folder.cleanup()

    def describe(self, count: int) -> str:
        """Return the script."""
        self.connect()
        return self.script(count or 1, Path(self.options.folder or ".") / "offer.json")


_HERE = "; run it on a machine of the cluster, or set SLURM_CONF"


def _order(job: str) -> tuple[int, int]:
    """Return the number of the array and of the element of ``12_3``."""
    array, _, element = job.partition("_")
    return int(array), int(element or 0)


def _slurm(words: list[str], text: str = "") -> str:
    """Run a command of Slurm and return what it prints."""
    if shutil.which(words[0]) is None:
        raise EngineError(f"--on slurm finds no {words[0]}; run it on a machine that has Slurm")
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=_ANSWER)
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"--on slurm: {words[0]} did not answer for {_ANSWER:g} s; see whether slurmctld runs"
        ) from None
    if done.returncode and words[0] != "squeue":  # squeue complains of jobs that are over
        said = last_line(done.stderr) or f"exit code {done.returncode}"
        cure = _HERE if "configuration source" in said else ""
        raise EngineError(
            f"--on slurm: {said if words[0] in said else f'{words[0]}: {said}'}{cure}"
        )
    return done.stdout


def _controller() -> str:
    """Return the host of Slurm's controller."""
    found = re.search(
        r"^SlurmctldHost\S*\s*=\s*([^\s(]+)", _slurm(["scontrol", "show", "config"]), re.M
    )
    return found.group(1) if found else ""
