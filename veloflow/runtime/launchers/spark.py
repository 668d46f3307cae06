"""Slaves as tasks of a Spark job, which Spark starts again when an executor or a task dies.

Plain tasks, not barrier mode: in that one the first loss aborts the whole job, and executors can
be neither added nor taken away.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

import veloflow
from veloflow.errors import EngineError
from veloflow.runtime.launchers.base import Launcher, Reach, look_whether_open, missing_extra
from veloflow.runtime.launchers.task import serve

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["SparkLauncher", "SparkOptions"]

#: Spark counts a task's failures for as long as the job lives: a week of losses must not end it
_FAILURES = 1_000_000


class SparkOptions(msgspec.Struct, frozen=True):
    """Options of ``--on spark``.

    Attributes:
        master: Spark's master URL; by default local, with a thread for each slave.
        cores: that a slave takes of its executor (``spark.task.cpus`` must not be less).
    """

    master: str = ""
    cores: int = 1


@dataclass(eq=False)
class _Job:
    """A job of Spark whose tasks are slaves."""

    group: str
    thread: threading.Thread | None = None
    is_cancelled: bool = False

    def join(self, seconds: float) -> None:
        """Wait for its end, but no longer."""
        if self.thread is not None:
            self.thread.join(max(0.0, seconds))


class SparkLauncher(Launcher[SparkOptions]):
    """Runs a job whose tasks are the slaves, and one for each slave that is wanted besides."""

    name: ClassVar[str] = "spark"
    extra: ClassVar[str] = "spark"
    Options: ClassVar[type[msgspec.Struct]] = SparkOptions

    def connect(self) -> None:
        """Check that Spark is there; a session of the caller's is used as it is.

        Raises:
            EngineError: Spark is not installed.
        """
        try:
            import pyspark
        except ImportError:
            raise missing_extra(self.name, self.extra) from None
        self._pyspark: Any = pyspark
        self._context: Any = getattr(self.handle, "sparkContext", self.handle)
        self._is_own = self._context is None
        self._group = f"veloflow-{secrets.token_hex(4)}"
        self._jobs: list[_Job] = []  # the first has the slaves that are always there
        self._leaving: list[_Job] = []
        self._fault: BaseException | None = None
        if self.options.master.startswith("spark://") and self._context is None:
            address = self.options.master.removeprefix("spark://")
            look_whether_open(self.name, address, "start one with start-master.sh")
        if self.options.master and self._context is None:
            self._start_context(1)

    def _start_context(self, count: int) -> None:
        conf = self._pyspark.SparkConf()
        master = self.options.master or f"local[{max(1, count)},{_FAILURES}]"
        conf.setMaster(master).setAppName("veloflow").set("spark.task.maxFailures", str(_FAILURES))
        conf.set("spark.excludeOnFailure.enabled", "false").set("spark.ui.enabled", "false")
        if master.startswith("local"):
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark takes any python3
            conf.set("spark.driver.bindAddress", "127.0.0.1").set("spark.driver.host", "127.0.0.1")
        try:
            self._context = self._pyspark.SparkContext(conf=conf)
        except Exception as error:
            lines = str(error).strip().splitlines()
            raise EngineError(
                f"--on spark: no cluster at {master}: {lines[0] if lines else error!r}"
            ) from error

    def reach(self) -> Reach:
        """Return the driver's address; on this machine only when Spark is local."""
        if self._context is None or str(self._context.master).startswith("local"):
            return Reach()
        host = str(self._context.getConf().get("spark.driver.host"))
        return Reach(host, host)

    def start(self, count: int, offer: Offer) -> None:
        """Start a job of so many tasks; for 0, as many as Spark runs at a time."""
        if self._context is None:
            self._start_context(max(count, self.most))
        self._count = count or int(self._context.defaultParallelism)
        self._look()
        self._offer = offer
        self._launch(range(self._count))

    def resize(self, count: int) -> None:
        """Add jobs of one task, or cancel them: Spark then ends their workers, and slaves leave."""
        while self._count < count:
            self._launch(range(self._count, self._count + 1))
            self._count += 1
        while self._count > count and len(self._jobs) > 1:
            self._leaving.append(self._jobs.pop())
            self._leaving[-1].is_cancelled = True
            self._context.cancelJobGroup(self._leaving[-1].group)
            self._count -= 1

    def _launch(self, places: range) -> None:
        document, cores = self._offer.encode(), self.options.cores

        def slave(numbers: Iterator[int]) -> Iterator[str]:
            for number in numbers:
                yield serve(document, f"spark-{number + 1}", cores)

        tasks = self._context.parallelize(places, len(places)).mapPartitions(slave)
        job = _Job(f"{self._group}-{len(self._jobs) + len(self._leaving)}")

        def run() -> None:
            self._context.setJobGroup(job.group, "veloflow slaves", interruptOnCancel=True)
            try:
                tasks.collect()
            except Exception as error:
                if not job.is_cancelled:
                    self._fault = error

        job.thread = threading.Thread(target=run, name="spark-slaves", daemon=True)
        job.thread.start()
        self._jobs.append(job)

    def _look(self) -> None:
        """See that executors have this veloflow: Spark would repeat a failing task for ever."""

        def look(number: int) -> str:  # has no name of this package, so it is sent whole
            try:
                import veloflow
            except ImportError:
                return ""
            return veloflow.__version__

        found = self._context.parallelize(range(self._count), self._count).map(look).collect()
        for version in found:
            if version != veloflow.__version__:
                raise EngineError(
                    f"--on spark: an executor's Python has veloflow {version or 'not at all'}, and "
                    f"the master {veloflow.__version__}; install it there, or name the Python that "
                    "has it: PYSPARK_PYTHON"
                )

    def tend(self) -> Iterable[str]:
        """Say why Spark gave the job up, if it did."""
        if self._fault is not None:
            lines = [line for line in str(self._fault).splitlines() if "slave" in line]
            why = lines[0].strip() if lines else str(self._fault)
            yield f"spark: the job of the slaves ended: {why}"
            self._fault = None

    def stop(self, grace: float) -> None:
        """Wait for the tasks to return, cancel the others, stop a context that was started here."""
        until = time.monotonic() + grace
        for job in (*self._jobs, *self._leaving):
            job.join(until - time.monotonic())
        alive = [job for job in self._jobs if job.thread is not None and job.thread.is_alive()]
        for job in alive:
            job.is_cancelled = True
            self._context.cancelJobGroup(job.group)
        for job in alive:
            job.join(grace)
        if self._is_own and self._context is not None:
            self._context.stop()
