"""Slaves as tasks of Spark, which Spark starts again when an executor or a task dies.

Each is a job of its own, so that one can be let go without the others. Plain tasks, not barrier
mode: in that one the first loss aborts the whole job, and executors can be neither added nor taken
away.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

import veloflow
from veloflow.errors import EngineError
from veloflow.runtime.launchers.base import (
    Launcher,
    Reach,
    last_line,
    look_whether_open,
    missing_extra,
)
from veloflow.runtime.launchers.task import RefusedError, serve

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["SparkLauncher", "SparkOptions"]

#: Spark counts a task's failures for as long as the job lives: a week of losses must not end it
_FAILURES = 1_000_000
#: seconds in which a first task has to run
_LOOK = 60.0


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
    """A job of Spark that is one slave.

    Attributes:
        group: by which Spark cancels it.
        thread: waits for its end.
        is_cancelled: it is not wanted any more.
        said: why there is no slave, if it cannot start.
    """

    group: str
    thread: threading.Thread
    is_cancelled: bool = False
    said: list[str] = field(default_factory=list)

    def join(self, until: float) -> None:
        """Wait for its end, but no longer than until then."""
        self.thread.join(max(0.0, until - time.monotonic()))


class SparkLauncher(Launcher[SparkOptions]):
    """Runs a job of one task for each slave."""

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
        self._numbers = itertools.count(1)
        self._jobs: list[_Job] = []
        self._leaving: list[_Job] = []
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
        """Start so many jobs; for 0, as many as Spark runs at a time."""
        if self._context is None:
            self._start_context(max(count, self.most))
        self._look()
        self._offer = offer
        self.resize(count or int(self._context.defaultParallelism))

    def resize(self, count: int) -> None:
        """Add jobs, or cancel the latest: Spark then ends their workers, and slaves leave."""
        while len(self._jobs) < count:
            self._jobs.append(self._launch(next(self._numbers)))
        while len(self._jobs) > count:
            self._leaving.append(job := self._jobs.pop())
            self._cancel(job)

    def _launch(self, number: int) -> _Job:
        document, cores, group = self._offer.encode(), self.options.cores, f"{self._group}-{number}"

        def slave(numbers: Iterator[int]) -> Iterator[str]:
            for number in numbers:
                try:
                    serve(document, f"spark-{number}", cores)
                except RefusedError as error:  # raised, Spark would try it again for ever
                    yield str(error)

        def run() -> None:
            self._context.setJobGroup(group, "a slave of veloflow", interruptOnCancel=True)
            try:
                if not job.is_cancelled:
                    task = self._context.parallelize([number], 1).mapPartitions(slave)
                    job.said += task.collect()
            except Exception as error:
                if not job.is_cancelled:
                    lines = [line.strip() for line in str(error).splitlines() if "slave" in line]
                    job.said.append(lines[0] if lines else last_line(str(error)))

        job = _Job(group, threading.Thread(target=run, name="spark-slave", daemon=True))
        job.thread.start()
        return job

    def _cancel(self, job: _Job) -> None:
        job.is_cancelled = True
        self._context.cancelJobGroup(job.group)

    def _look(self) -> None:
        """See that there are executors with this veloflow, which else would fail again for ever."""
        group = f"{self._group}-look"
        outcome: Future[list[str]] = Future()

        def look(number: int) -> str:  # has no name of this package, so it is sent whole
            try:
                import veloflow
            except ImportError:
                return ""
            return veloflow.__version__

        def run() -> None:
            self._context.setJobGroup(group, "a look for veloflow", interruptOnCancel=True)
            try:
                count = int(self._context.defaultParallelism)
                places = self._context.parallelize(range(count), count)
                outcome.set_result(places.map(look).collect())
            except Exception as error:
                outcome.set_exception(error)

        threading.Thread(target=run, name="spark-look", daemon=True).start()
        try:
            found = outcome.result(_LOOK)
        except TimeoutError:
            self._context.cancelJobGroup(group)
            raise EngineError(
                f"--on spark: {self._context.master} had no executor for {_LOOK:g} s; start one "
                "with start-worker.sh, or wait until one has free cores"
            ) from None
        except Exception as error:
            raise EngineError(
                f"--on spark: a first task failed: {last_line(str(error))}"
            ) from error
        for version in found:
            if version != veloflow.__version__:
                raise EngineError(
                    f"--on spark: an executor's Python has veloflow {version or 'not at all'}, and "
                    f"the master {veloflow.__version__}; install it there, or name the Python that "
                    "has it: PYSPARK_PYTHON"
                )

    def tend(self) -> Iterable[str]:
        """Say which slaves cannot start; cancel again those whose job had not begun."""
        self._leaving = [job for job in self._leaving if job.thread.is_alive()]
        for job in self._leaving:
            self._cancel(job)
        for job in [job for job in self._jobs if job.said]:
            self._jobs.remove(job)
            yield f"spark: {job.said[0]}"
            if not self._jobs:
                raise EngineError(f"--on spark: {job.said[0]}; no slave is left")

    def stop(self, grace: float) -> None:
        """Wait for the tasks to return, cancel the others, stop a context that was started here."""
        until = time.monotonic() + grace
        for job in (*self._jobs, *self._leaving):
            job.join(until)
        alive = [job for job in self._jobs if job.thread.is_alive()]
        for job in alive:
            self._cancel(job)
        until = time.monotonic() + grace
        for job in alive:
            job.join(until)
        if self._is_own and self._context is not None:
            self._context.stop()
