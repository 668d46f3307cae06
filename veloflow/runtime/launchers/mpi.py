"""Slaves started by an MPI launcher: for clusters where ``mpiexec`` is the way to start processes.

MPI is used to start processes and for nothing else. It kills all of them when one dies, so another
engine is better where losses are expected.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from veloflow.errors import EngineError, OptionError
from veloflow.runtime.launchers.base import Launcher, Reach, own_address
from veloflow.runtime.launchers.task import command

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["MPILauncher", "MPIOptions"]


class MPIOptions(msgspec.Struct, frozen=True):
    """Options of ``--on mpi``.

    Attributes:
        mpiexec: the launcher; by default the first of that name on the path.
        arguments: more words for it, such as -hosts,one,two.
        folder: of all nodes, where the offer is kept while the run goes on; by default the
            machine's own for temporary files.
        head: a host of the cluster, to know by which address it sees this machine.
    """

    mpiexec: str = "mpiexec"
    arguments: tuple[str, ...] = ()
    folder: str = ""
    head: str = ""


class MPILauncher(Launcher[MPIOptions]):
    """Runs one ``mpiexec`` whose processes are the slaves."""

    name: ClassVar[str] = "mpi"
    extra: ClassVar[str] = "mpi"
    Options: ClassVar[type[msgspec.Struct]] = MPIOptions
    is_elastic: ClassVar[bool] = False

    def connect(self) -> None:
        """Find the launcher.

        Raises:
            EngineError: there is none.
        """
        beside = Path(sys.executable).parent / self.options.mpiexec  # of the mpich wheel
        found = shutil.which(self.options.mpiexec) or (str(beside) if beside.is_file() else None)
        if found is None:
            raise EngineError(
                f"--on mpi finds no {self.options.mpiexec}: pip install 'veloflow[mpi]', or give "
                "--engine-option mpiexec=PATH"
            )
        self._mpiexec = found
        self._process: subprocess.Popen[bytes] | None = None
        self._is_told = False

    def reach(self) -> Reach:
        """Return this machine's address as seen from the head, if one is named."""
        own = own_address(self.options.head)
        return Reach(own, own)

    def start(self, count: int, offer: Offer) -> None:
        """Start so many slaves.

        Raises:
            OptionError: MPI has to be told how many.
        """
        if not count:
            raise OptionError("--on mpi has to be told how many: --slaves N")
        folder = self.options.folder or None
        self._folder = tempfile.TemporaryDirectory(prefix="veloflow-mpi-", dir=folder)
        path = offer.save(Path(self._folder.name) / "offer.json")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [self._mpiexec, "-n", str(count), *self.options.arguments,
             *command("--offer", str(path), "--name", "mpi")],
            stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
        )  # fmt: skip

    def tend(self) -> Iterable[str]:
        """See that MPI has not ended before the run.

        Raises:
            EngineError: it has, and all slaves with it.
        """
        if self._process is not None and not self._is_told and self._process.poll() is not None:
            self._is_told = True
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            said = next((line for line in lines if "veloflow" in line), lines[-1] if lines else "")
            code = self._process.returncode
            raise EngineError(f"--on mpi: {self._mpiexec} ended with code {code}: {said}")
        return ()

    def stop(self, grace: float) -> None:
        """Wait for the slaves to return; end those that do not."""
        if self._process is None:
            return
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()
        self._folder.cleanup()
