"""Slaves as tasks of a Spark job, which Spark starts again when an executor or a task dies.

Plain tasks, not barrier mode: in that one the first loss aborts the whole job, and executors can
be neither added nor taken away.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

import veloflow
from veloflow.errors import ClusterError
from veloflow.runtime.launchers.base import Launcher, Reach, missing_extra
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


class SparkLauncher(Launcher[SparkOptions]):
    """Runs one job whose tasks are the slaves."""

    name: ClassVar[str] = "spark"
    extra: ClassVar[str] = "spark"
    Options: ClassVar[type[msgspec.Struct]] = SparkOptions

    def connect(self) -> None:
        """Check that Spark is there; a session of the caller's is used as it is.

        Raises:
            ClusterError: Spark is not installed.
        """
        try:
            import pyspark
        except ImportError:
            raise missing_extra(self.name, self.extra) from None
        self._pyspark: Any = pyspark
        self._context: Any = getattr(self.handle, "sparkContext", self.handle)
        self._is_own = self._context is None
        self._group = f"veloflow-{secrets.token_hex(4)}"
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None
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
            raise ClusterError(
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
            self._start_context(count)
        self._count = count or int(self._context.defaultParallelism)
        self._look()
        document, cores = offer.encode(), self.options.cores

        def slave(numbers: Iterator[int]) -> Iterator[str]:
            for number in numbers:
                yield serve(document, f"spark-{number + 1}", cores)

        tasks = self._context.parallelize(range(self._count), self._count).mapPartitions(slave)

        def run() -> None:
            self._context.setJobGroup(self._group, "veloflow slaves", interruptOnCancel=True)
            try:
                tasks.collect()
            except Exception as error:
                self._fault = error

        self._thread = threading.Thread(target=run, name="spark-slaves", daemon=True)
        self._thread.start()

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
                raise ClusterError(
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
        if self._thread is not None:
            self._thread.join(grace)
            if self._thread.is_alive():
                self._context.cancelJobGroup(self._group)
                self._thread.join(grace)
        if self._is_own and self._context is not None:
            self._context.stop()
