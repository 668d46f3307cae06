"""What a run can know of itself after its first steps: how quick slaves are, and the wire.

Pure: pieces that were done go in, one record of numbers comes out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import mean, median, median_low

__all__ = ["Gauge", "Measured"]

#: so many pieces of a slave are remembered, of each kind
_MEMORY = 64
#: a piece that takes so many times as long as is usual for its slave has met a transient straggler
_LATE = 3.0
#: a slave that is so many times as slow as the others is slow for good; its pieces of one kind are
#: looked at when there are so many
_SLOW, _KNOWN = 1.5, 3
#: pieces of training after which something is known, if each slave has done some of any kind
_ENOUGH = 2
#: kinds of pieces
_TRAIN = 2


@dataclass(frozen=True)
class Measured:
    """A run as the model sees it.

    Attributes:
        sample: seconds that a sample of training takes a slave of the usual speed.
        speeds: of each slave, the usual one being 1; one that is slow for good is below.
        late: the probability that a piece is late for once.
        factor: how many times as long such a piece takes.
        latency: seconds that a message takes besides its bytes.
        bandwidth: bytes a second, of each slave's own link.
        size: bytes of the parameters.
        state: bytes of the parameters and of what solvers keep.
        minibatch: samples in one.
        minibatches: of training in an epoch; 0 where that is not known.
        ratios: codec -> bytes of a coded vector, as a part of those of the vector.
        packing: codec -> seconds that it takes to pack and unpack a vector of ``size``.
        edge: κ of :mod:`veloflow.sharing.auto_edge`; None where that is not known.
    """

    sample: float
    speeds: tuple[float, ...]
    latency: float
    bandwidth: float
    size: int
    state: int
    minibatch: int
    late: float = 0.0
    factor: float = 1.0
    minibatches: int = 0
    ratios: Mapping[str, float] = field(default_factory=dict)
    packing: Mapping[str, float] = field(default_factory=dict)
    edge: float | None = None

    @property
    def slaves(self) -> int:
        """How many there are."""
        return len(self.speeds)

    def words(self) -> str:
        """Return what was measured, for people."""
        slow = [one for one in self.speeds if one < 1 / _SLOW]
        parts = [
            f"{self.slaves} slaves" if self.slaves > 1 else "1 slave",
            f"{_time(self.sample)} a sample",
            f"{self.size / 1e6:.2g} MB of parameters",
            f"{_time(self.latency)} + {self.bandwidth * 8e-9:.2g} Gbit/s",
        ]
        if slow:
            parts.append(f"{len(slow)} slow for good ({1 / min(slow):.1f} times)")
        if self.edge is not None:
            parts.append(f"at least {self.edge:.2g} of the way to where one stale step diverges")
        if self.late:
            parts.append(f"{100 * self.late:.0f} % of pieces {self.factor:.1f} times longer")
        return ", ".join(parts)


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} us" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"


class Gauge:
    """Gathers what pieces took."""

    def __init__(self) -> None:
        #: slave, kind -> seconds a sample
        self._paces: dict[tuple[str, int], deque[float]] = {}
        self._wire: deque[tuple[int, float]] = deque(maxlen=512)  # bytes, seconds
        self.pieces = 0  #: of training

    def add(
        self, slave: str, kind: int, count: int, seconds: float, wire: float | None, nbytes: int
    ) -> None:
        """Take in a piece of ``count`` samples; see :class:`~veloflow.runtime.master.crew.Done`."""
        if kind < 0 or not count:
            return
        pace = self._paces.setdefault((slave, kind), deque(maxlen=_MEMORY))
        pace.append(seconds / count)
        self.pieces += kind == _TRAIN
        if wire is not None:
            self._wire.append((nbytes, wire))

    def forget(self, here: Iterable[str]) -> None:
        """Forget slaves that are not here any more."""
        known = set(here)
        self._paces = {key: pace for key, pace in self._paces.items() if key[0] in known}

    def knows(self, slaves: int) -> bool:
        """Whether each slave has done some pieces of any kind, so that the slow ones are known."""
        done: dict[str, int] = {}
        for (slave, _), pace in self._paces.items():
            done[slave] = done.get(slave, 0) + len(pace)
        return sum(count >= _KNOWN for count in done.values()) >= slaves

    def is_enough(self, slaves: int) -> bool:
        """Whether there were some pieces of training, and enough of each slave."""
        return self.pieces >= _ENOUGH and (self.knows(slaves) or self.pieces >= 16 * slaves)

    def by_slave(self) -> dict[str, float]:
        """Return the speed of each slave that is known, the usual one being 1."""
        relative: dict[str, list[float]] = {}
        for kind in {kind for _, kind in self._paces}:
            middles = {
                one: median(p)
                for (one, k), p in self._paces.items()
                if k == kind and len(p) >= _KNOWN
            }
            if not middles:
                continue
            usual = median_low(middles.values())  # of two the quicker one
            for slave, middle in middles.items():
                relative.setdefault(slave, []).append(usual / middle if middle else 1.0)
        speeds = {slave: mean(found) for slave, found in relative.items()}
        return {one: 1.0 if 1 / _SLOW < speed < _SLOW else speed for one, speed in speeds.items()}

    def speeds(self, slaves: int) -> tuple[float, ...]:
        """Return the speeds of slaves, the usual one being 1; of unknown ones 1."""
        found = sorted(self.by_slave().values(), reverse=True)[:slaves]
        return (*found, *[1.0] * (slaves - len(found)))

    def slowness(self) -> dict[str, int]:
        """Return how many times as slow as the usual one each slave is that is slow for good."""
        found = {slave: round(1 / speed) for slave, speed in self.by_slave().items() if speed}
        return {slave: times for slave, times in found.items() if times > 1}

    def sample(self, kind: int = _TRAIN) -> float:
        """Return the seconds that a sample takes the usual slave; 0 if unknown.

        Args:
            kind: of the sample; those of training have a way back, others the way there alone.
        """
        middles = [median(p) for (_, one), p in self._paces.items() if one == kind]
        return median_low(middles) if middles else 0.0

    def lateness(self) -> tuple[float, float]:
        """Return the share of pieces that were late for once, and how many times as long."""
        total, ratios = 0, []
        for pace in self._paces.values():
            middle = median(pace)
            total += len(pace)
            ratios += [one / middle for one in pace if middle and one > _LATE * middle]
        if not ratios:
            return 0.0, 1.0
        return len(ratios) / total, mean(ratios)

    def wire(self) -> tuple[float, float]:
        """Return latency (of one way) and bandwidth: a line through small and large transfers.

        Where all are of one size, or the large ones are no slower, the wire is its latency alone.
        """
        if not self._wire:
            return 0.0, float("inf")
        middle = (min(size for size, _ in self._wire) + max(size for size, _ in self._wire)) / 2
        small = [one for one in self._wire if one[0] <= middle]
        large = [one for one in self._wire if one[0] > middle]
        low = median(wire for _, wire in small)
        if not large:
            return low / 2, float("inf")
        high = median(wire for _, wire in large)
        apart = mean(size for size, _ in large) - mean(size for size, _ in small)
        if high <= low or apart <= 0:
            return low / 2, float("inf")
        bandwidth = apart / (high - low)
        latency = max(0.0, low - mean(size for size, _ in small) / bandwidth) / 2
        return latency, bandwidth
