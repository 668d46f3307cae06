"""Slaves in the workers of a Dask cluster: one long-running task pinned to each worker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from veloflow.errors import EngineError, OptionError
from veloflow.runtime.launchers.base import (
    Launcher,
    Reach,
    look_whether_open,
    missing_extra,
    own_address,
)
from veloflow.runtime.launchers.task import serve

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["DaskLauncher", "DaskOptions"]

#: seconds in which a scheduler has to answer
_ANSWER = 20
_SCHEMES = ("", "tcp", "tls", "ws", "wss", "ucx", "ucxx")
_CURE = "start one with dask scheduler, and workers with dask worker"


class DaskOptions(msgspec.Struct, frozen=True):
    """Options of ``--on dask``.

    Attributes:
        address: of the scheduler, such as tcp://head:8786; without it and ``scheduler_file``, a
            cluster is started on this machine.
        scheduler_file: the file that ``dask scheduler --scheduler-file`` writes.
    """

    address: str = ""
    scheduler_file: str = ""


class DaskLauncher(Launcher[DaskOptions]):
    """Starts a slave in each worker, and in each that joins while the run goes on.

    Dask's nanny restarts a worker that died; that is another worker, and gets another slave. Tasks
    are pinned and never retried by Dask: only veloflow gives work to another.
    """

    name: ClassVar[str] = "dask"
    extra: ClassVar[str] = "dask"
    Options: ClassVar[type[msgspec.Struct]] = DaskOptions

    def connect(self) -> None:
        """Connect to the scheduler, or use the caller's client.

        Raises:
            EngineError: Dask is not installed, or no scheduler answers.
        """
        self._is_own = self.handle is None
        self._slaves: dict[str, Any] = {}  # by the worker's address
        self._refused: set[str] = set()  # workers whose slave ended with an error
        self._numbers = itertools.count(1)
        self._wanted: int | None = None
        self._cluster: Any = None
        self._client: Any = self.handle
        if self.is_there:
            self._connect()

    @property
    def is_there(self) -> bool:
        """Whether a cluster was named or given; otherwise one is started."""
        return bool(self.handle or self.options.address or self.options.scheduler_file)

    def _connect(self) -> None:
        try:
            import distributed
        except ImportError:
            raise missing_extra(self.name, self.extra) from None
        if self._client is not None:
            return
        dask: Any = distributed
        options = self.options
        if not (options.address or options.scheduler_file):
            self._cluster = dask.LocalCluster(
                n_workers=self._wanted or 1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            )
        where = options.address or options.scheduler_file
        scheme, _, address = options.address.rpartition("://")
        if scheme not in _SCHEMES:
            raise OptionError(f"--on dask: {options.address}: write tcp://HOST:PORT")
        if address and scheme in ("", "tcp", "tls"):
            look_whether_open(self.name, address, _CURE)
        elif options.scheduler_file and not Path(options.scheduler_file).is_file():
            raise EngineError(f"--on dask: there is no file {options.scheduler_file}; {_CURE}")
        try:
            self._client = dask.Client(
                self._cluster or options.address or None,
                scheduler_file=options.scheduler_file or None,
                timeout=_ANSWER,
                set_as_default=False,
            )
        except (OSError, ValueError) as error:
            raise EngineError(
                f"--on dask: no scheduler answers at {where}: {error}; {_CURE}"
            ) from None

    def reach(self) -> Reach:
        """Return this machine's address as the scheduler sees it."""
        if self._client is None:
            return Reach()
        address = str(self._client.scheduler.address)
        own = own_address(address.partition("://")[2].rpartition(":")[0].strip("[]"))
        return Reach(own, own)

    def start(self, count: int, offer: Offer) -> None:
        """Start a slave in each of ``count`` workers; in all for 0."""
        self._wanted = count or None
        self._offer = offer
        self._connect()
        if self._cluster is None and not self._workers():
            self._wait_for_a_worker()
        list(self.tend())

    def _wait_for_a_worker(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_ANSWER)
        except TimeoutError:
            address = self._client.scheduler.address
            raise EngineError(
                f"--on dask: {address} had no worker for {_ANSWER} s; start one with "
                f"dask worker {address}"
            ) from None

    def _workers(self) -> list[str]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"])

    def tend(self) -> Iterable[str]:
        """Start slaves in workers that have none; forget those of workers that are gone."""
        workers = self._workers()
        for gone in self._slaves.keys() - set(workers):
            self._slaves.pop(gone).release()
        for address, future in list(self._slaves.items()):
            if future.status == "error":
                why = f"dask: {address}: {future.exception(timeout=_ANSWER)}"
                yield why
                del self._slaves[address]
                self._refused.add(address)
                if self._refused.issuperset(workers):
                    raise EngineError(f"--on {why}; no worker has a slave that could start")
        for address in workers:
            is_full = self._wanted is not None and len(self._slaves) >= self._wanted
            if is_full or address in self._slaves or address in self._refused:
                continue
            name = f"dask-{next(self._numbers)}"
            self._slaves[address] = self._client.submit(
                _serve, self._offer.encode(), name, key=f"veloflow-{name}-{time.time_ns()}",
                workers=[address], allow_other_workers=False, pure=False, retries=0,
            )  # fmt: skip

    def resize(self, count: int) -> None:
        """Have so many slaves; those that are too many are told to leave."""
        self._wanted = count
        if self._cluster is not None:
            self._cluster.scale(count)
        while len(self._slaves) > count:
            _, future = self._slaves.popitem()
            future.cancel()

    def stop(self, grace: float) -> None:
        """Wait for the slaves to return, cancel the others, let the cluster be."""
        if self._client is None:
            return
        until = time.monotonic() + grace
        for future in self._slaves.values():
            while not future.done() and time.monotonic() < until:
                time.sleep(0.02)
            future.cancel()
        if self._is_own:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _serve(offer: bytes, name: str) -> str:
    """Run in the worker: a slave that does not take one of the worker's task slots."""
    import distributed

    dask: Any = distributed
    worker = dask.get_worker()
    key = worker.get_current_task()
    dask.secede()

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return serve(offer, name, is_wanted=is_wanted)
