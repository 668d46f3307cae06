"""A crew of simulated slaves: real arithmetic in this process, and virtual time.

So modes of sharing can be tried on a workflow of one's own with more slaves than there are cores,
and on a network that is not there. A piece takes what its samples take, times what a straggler
adds; parameters and updates take latency + bytes / bandwidth, on a link of each slave's own.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from veloflow.devices.random import generator
from veloflow.protocol.clocks import Clocks
from veloflow.protocol.ledger import Ledger
from veloflow.runtime.jobs.inspection import TRAIN
from veloflow.runtime.master.crew import Crew, Done
from veloflow.runtime.slaves.job_form import JobForm, Workers
from veloflow.sharing.words import read_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from veloflow.protocol.messages import Piece
    from veloflow.runtime.slaves.worker import Jobs, Worker
    from veloflow.runtime.transport.found_vector import FoundVector
    from veloflow.sharing.policies import Policy

__all__ = ["SimulatedCrew", "VirtualCluster", "parse_cluster"]


@dataclass(frozen=True)
class VirtualCluster:
    """Slaves and a network that are simulated.

    Args:
        slaves: how many.
        sample: seconds that a sample takes.
        latency: seconds that a message takes besides its bytes.
        bandwidth: bytes a second, of each slave's own link.
        transient: the probability that a piece takes ``factor`` times as long; of a stretch, each
            of its minibatches.
        slow: how many slaves are always ``factor`` times as slow.
        factor: see there.
    """

    slaves: int = 4
    sample: float = 2e-5
    latency: float = 5e-4
    bandwidth: float = 1.25e8
    transient: float = 0.0
    slow: int = 0
    factor: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.slaves <= 4096:
            raise ValueError(f"slaves is {self.slaves}; give a number from 1 to 4096")
        if not (self.sample > 0 and self.latency >= 0 and self.bandwidth > 0 and self.factor >= 1):
            raise ValueError(
                "sample and bandwidth must be above 0, latency 0 and factor 1 at least"
            )
        if not (0 <= self.transient <= 1 and 0 <= self.slow <= self.slaves):
            raise ValueError(
                "transient must be from 0 to 1, and slow no more than there are slaves"
            )


def parse_cluster(text: str) -> VirtualCluster:
    """Read ``8``, or ``8,latency=0.001,transient=0.05``.

    Raises:
        OptionError: there is no such option, or a value does not fit.
    """
    return read_word(f"slaves:{text}", {"slaves": VirtualCluster}, "--simulate", "simulation")


@dataclass
class _Slave:
    """A simulated slave: its own residual, and what it has done."""

    name: str
    vector: FoundVector
    is_slow: bool
    is_idle: bool = True
    seconds: float = 0.0
    version: int = 0  # of the parameters that it has; 0 for none of the master's


@dataclass(order=True)
class _End:
    """A piece that will be done."""

    when: float
    order: int
    slave: _Slave = field(compare=False)
    done: Done = field(compare=False)


class SimulatedCrew(Crew):
    """Computes each piece when a simulated slave begins it; hands it out when that one is done.

    Args:
        worker: what computes.
        cluster: what is simulated.
        seed: of the stragglers.
        bound: how many clocks a slave may be ahead of the slowest; None for no bound.
    """

    def __init__(
        self,
        worker: Worker | Workers,
        cluster: VirtualCluster,
        *,
        seed: int = 0,
        bound: int | None = None,
    ) -> None:
        self.now = 0.0  #: seconds of virtual time
        self.training = 0.0  #: those of them that went by while pieces of training were awaited
        self._worker = worker
        self._cluster = cluster
        self._random = generator(seed, "simulated crew")
        self._slaves = [
            _Slave(f"s{number}", worker.vector.renewed(), number < cluster.slow)
            for number in range(cluster.slaves)
        ]
        self._ledger = Ledger()
        self._clocks = Clocks(self._ledger, bound)
        self._waiting: deque[tuple[Piece, Jobs, NDArray[Any] | None]] = deque()
        self._wishes: dict[int, str] = {}
        self._coming: list[_End] = []
        self._order = count()
        self._values: NDArray[Any] | None = None
        self._version = 0
        self._traffic: Counter[str] = Counter()
        self._limits = threadpool_limits(1, "blas")

    # -- what a farm sees ---------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """A piece for each slave."""
        return self._cluster.slaves

    @property
    def slaves(self) -> int:
        """How many there are."""
        return self._cluster.slaves

    @property
    def is_simulated(self) -> bool:
        """Always."""
        return True

    @property
    def device(self) -> str:
        """The worker's device."""
        return self._worker.device

    def adopt(self, policy: Policy, codec: str) -> None:
        """Let the slaves do jobs of that form; their residuals are empty."""
        if not isinstance(self._worker, Workers):
            super().adopt(policy, codec)
            return
        self._worker.use(JobForm.of_policy(policy, codec))
        for slave in self._slaves:
            slave.vector = self._worker.vector.renewed()
        self._clocks.change(policy.bound)

    def publish(self, values: NDArray[np.floating], version: int) -> None:
        """Let pieces that are begun from now on be computed with these parameters."""
        self._values, self._version = np.array(values), version

    @property
    def names(self) -> list[str]:
        """The names of all."""
        return [f"s{number}" for number in range(self._cluster.slaves)]

    def submit(
        self,
        piece: Piece,
        jobs: Jobs,
        start: NDArray[np.floating] | None = None,
        wish: str = "",
    ) -> None:
        """Put the piece last."""
        self._ledger.add([piece])
        self._waiting.append((piece, jobs, start))
        self._wishes[piece.number] = wish

    def applied(self, number: int) -> None:
        """Let those go on who were held back by this piece."""
        self._clocks.applied(number)

    def next(self) -> Done:
        """Go to when the next piece is done."""
        self._deal()
        end = heapq.heappop(self._coming)
        if end.done.piece.kind == TRAIN:
            self.training += end.when - self.now
        self.now = end.when
        end.slave.is_idle = True
        number = end.done.piece.number
        lease = self._ledger[number].leases[0]
        self._ledger.complete(lease.id, lease.slave)
        self._ledger.forget(number)
        return end.done

    def _deal(self) -> None:
        """Let idle slaves begin, those that are idle longest first."""
        while self._waiting:
            idle = [one for one in self._slaves if one.is_idle]
            free = [one for one in idle if self._clocks.may_begin(one.name)]
            if not free:
                return
            wish = self._wishes.pop(self._waiting[0][0].number)
            slave = next((one for one in free if one.name == wish), free[0])
            self._begin(slave, *self._waiting.popleft())

    def _begin(
        self, slave: _Slave, piece: Piece, jobs: Jobs, start: NDArray[np.floating] | None
    ) -> None:
        self._clocks.granted(slave.name, piece.number, again=False)
        self._ledger.lease_this(piece.number, slave.name)
        if start is None and self._values is not None:
            self._worker.load(self._values)
        updates = self._worker.work(piece.kind, jobs, start)
        down_bytes = self._down(slave, start)
        self._traffic["parameters"] += down_bytes
        up_bytes, vector = 0, None
        if self._worker.has_gradients(piece.kind):
            up_bytes, vector = self._send(slave, piece)
        seconds = self._seconds(slave, piece, _steps_in(jobs))
        slave.seconds += seconds
        slave.is_idle = False
        wire = 2 * self._cluster.latency + (down_bytes + up_bytes) / self._cluster.bandwidth
        done = Done(
            piece,
            updates,
            vector,
            self._version,
            seconds,
            slave=slave.name,
            wire=wire,
            nbytes=down_bytes + up_bytes,
        )
        self._slaves.remove(slave)  # who has just begun is the last to begin again
        self._slaves.append(slave)
        end = self.now + seconds + wire
        heapq.heappush(self._coming, _End(end, next(self._order), slave, done))

    def _down(self, slave: _Slave, start: NDArray[Any] | None) -> int:
        """Return the bytes of the parameters that a slave is sent; it keeps those that it has."""
        if start is not None:
            slave.version = 0
            return start.nbytes
        if self._values is None or slave.version == self._version:
            return 0
        slave.version = self._version
        return self._values.nbytes

    def _send(self, slave: _Slave, piece: Piece) -> tuple[int, NDArray[Any] | None]:
        """Return the bytes of what was found, and what arrives."""
        way, found = slave.vector, self._worker.found
        factors = self._worker.factors(piece.count) if way.needs_factors else None
        headers, arrays = way.write(found, factors)
        nbytes = sum(array.nbytes for array in arrays)
        self._traffic["updates"] += nbytes
        self._traffic["uncoded"] += found.nbytes
        return nbytes, way.read(None, headers, [array.data for array in arrays])

    def _seconds(self, slave: _Slave, piece: Piece, steps: int) -> float:
        """Return what a piece takes; of a stretch each minibatch may be late for itself."""
        a_step = self._cluster.sample * max(piece.count, 1) / steps
        if slave.is_slow:
            return steps * a_step * self._cluster.factor
        late = sum(self._random.random() < self._cluster.transient for _ in range(steps))
        return a_step * (steps + late * (self._cluster.factor - 1))

    def left_out(self) -> list[NDArray[np.floating]]:
        """Return the residual of each, in the order of their names."""
        slaves = sorted(self._slaves, key=lambda one: int(one.name[1:]))
        return [one.vector.residual.copy() for one in slaves if one.vector.residual is not None]

    def inherit(self, residuals: Sequence[NDArray[np.floating]]) -> None:
        """Let each add one to its own; those that are too many go round again."""
        for number, one in enumerate(residuals):
            self._slaves[number % len(self._slaves)].vector.inherit(one)

    def results(self) -> dict[str, object]:
        """Return virtual seconds, bytes and waiting."""
        here = self.now * len(self._slaves)
        idle = max(0.0, here - sum(one.seconds for one in self._slaves))
        return {
            "virtual_seconds": self.now,
            "bytes": dict(self._traffic),
            "waiting": {"seconds": idle, "share": idle / here if here else 0.0},
        }

    def close(self) -> None:
        """Give the threads back."""
        self._limits.restore_original_limits()


def _steps_in(jobs: Jobs) -> int:
    """Return how many minibatches a piece has: those of a stretch are numbered."""
    return max(1, len({key.partition("|")[0] for key in jobs if key.partition("|")[0].isdecimal()}))
