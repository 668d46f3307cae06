"""Slaves as Ray actors, which Ray restarts when their process or their node dies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from veloflow.errors import EngineError
from veloflow.runtime.launchers.base import (
    Launcher,
    Reach,
    last_line,
    look_whether_open,
    missing_extra,
)
from veloflow.runtime.launchers.task import serve

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["RayLauncher", "RayOptions"]


class RayOptions(msgspec.Struct, frozen=True):
    """Options of ``--on ray``. Ray's own settings, its token among them, are passed on untouched.

    Attributes:
        address: of the cluster, such as auto or ray-head:6379; without it, the one of RAY_ADDRESS
            or one that is started on this machine.
        cpus, gpus: what each slave takes of its node.
        strategy: SPREAD over nodes, or PACK on as few as possible.
    """

    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0
    strategy: Literal["SPREAD", "PACK"] = "SPREAD"


class RayLauncher(Launcher[RayOptions]):
    """Starts an actor for each slave; Ray restarts it for ever, and retries what it was doing.

    There is no placement group: it would hold back all slaves until there is a place for each.
    """

    name: ClassVar[str] = "ray"
    extra: ClassVar[str] = "ray"
    Options: ClassVar[type[msgspec.Struct]] = RayOptions

    def connect(self) -> None:
        """Connect to the cluster, or start one here.

        Raises:
            EngineError: Ray is not installed, or there is no such cluster.
        """
        try:
            import ray
        except ImportError:
            raise missing_extra(self.name, self.extra) from None
        self._ray: Any = ray
        self._slaves: list[tuple[str, Any, Any]] = []  # name, actor, what it will return
        self._leaving: list[tuple[str, Any, Any]] = []  # told to leave; let go, Ray ends them
        self._numbers = itertools.count(1)
        self._is_own = not ray.is_initialized()
        if not self._is_own:
            return
        address = self.options.address
        if ":" in address and "://" not in address:
            look_whether_open(self.name, address, "start one with ray start --head")
        try:
            if self.options.address:
                ray.init(address=self.options.address, log_to_driver=False)
            else:
                ray.init(include_dashboard=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(
                f"--on ray: no cluster at {self.options.address or 'RAY_ADDRESS'}: {error}; start "
                "one with ray start --head"
            ) from None

    @property
    def is_there(self) -> bool:
        """Whether a cluster was named or given; otherwise one may have to be started."""
        return bool(self.handle or self.options.address)

    def reach(self) -> Reach:
        """Return this node's address, as Ray uses it."""
        own = str(self._ray.util.get_node_ip_address())
        nodes = {str(node["NodeManagerAddress"]) for node in self._ray.nodes() if node["Alive"]}
        return Reach(own, own) if nodes != {own} else Reach()

    def start(self, count: int, offer: Offer) -> None:
        """Start so many actors; for 0, as many as there are free CPUs now."""
        self._offer = offer
        if not count:
            free = self._ray.available_resources().get("CPU", 1.0)
            count = max(1, int(free / max(self.options.cpus, 0.01)))
        total = self._ray.cluster_resources()
        for what, wanted in (("CPU", self.options.cpus), ("GPU", self.options.gpus)):
            if wanted > total.get(what, 0.0):
                raise EngineError(
                    f"--on ray: a slave needs {wanted:g} {what} and the cluster has "
                    f"{total.get(what, 0.0):g}; ask for less: --engine-option {what.lower()}s=0"
                )
        self.resize(count)

    def tend(self) -> Iterable[str]:
        """Say which slaves ended with an error."""
        for entry in self._ended(self._leaving, 0.0):
            self._leaving.remove(entry)
            self._ray.kill(entry[1])
        for entry in self._ended(self._slaves, 0.0):
            self._slaves.remove(entry)
            try:
                self._ray.get(entry[2])
            except self._ray.exceptions.RayError as error:
                why = f"ray: {entry[0]}: {last_line(str(error)) or repr(error)}"
                yield why
                if not self._slaves:
                    raise EngineError(f"--on {why}; no slave is left") from None

    def _ended(
        self, entries: list[tuple[str, Any, Any]], seconds: float
    ) -> list[tuple[str, Any, Any]]:
        """Return those that have returned, or do so within the time."""
        if not entries:
            return []
        results = [result for _, _, result in entries]
        ready, _ = self._ray.wait(results, num_returns=len(results), timeout=seconds)
        return [one for one in entries if one[2] in ready]

    def resize(self, count: int) -> None:
        """Have so many slaves; those that are too many are told to leave."""
        options = self.options
        actor = self._ray.remote(
            num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=-1, max_task_retries=-1,
            scheduling_strategy="SPREAD" if options.strategy == "SPREAD" else "DEFAULT",
            max_concurrency=2,
        )(_Slave)  # fmt: skip
        while len(self._slaves) < count:
            name = f"ray-{next(self._numbers)}"
            one = actor.remote()
            self._slaves.append((name, one, one.serve.remote(self._offer.encode(), name)))
        while len(self._slaves) > count:
            entry = self._slaves.pop()
            entry[1].dismiss.remote()
            self._leaving.append(entry)

    def stop(self, grace: float) -> None:
        """Wait for the slaves to return, end the others, leave the cluster as it was."""
        all_ = [*self._slaves, *self._leaving]
        ended = self._ended(all_, grace)
        for entry in all_:  # those that never joined do not know that it is over
            if entry not in ended:
                entry[1].dismiss.remote()
        if len(ended) < len(all_):
            self._ended(all_, grace)
        for _, one, _ in all_:
            self._ray.kill(one)
        if self._is_own:
            self._ray.shutdown()


class _Slave:
    """The actor. While :meth:`serve` waits for its process, :meth:`dismiss` may be called."""

    def __init__(self) -> None:
        self._is_wanted = True

    def serve(self, offer: bytes, name: str) -> str:
        """Run a slave until its run is over."""
        return serve(offer, name, is_wanted=lambda: self._is_wanted)

    def dismiss(self) -> None:
        """Tell the slave to leave."""
        self._is_wanted = False
