"""Which mode, codec and period a run should take: a model of its time, from what was measured.

Pure: :class:`~veloflow.sharing.auto_measure.Measured` goes in, a :class:`Choice` comes out. The
cost of a mode is the time of a minibatch divided by what a minibatch is worth in that mode, one of
sync being worth 1. The time follows from the bytes and from who waits for whom (Moritz et al.,
SparkNet, ICLR 2016, section 3; Ho et al., NIPS 2013):

- *sync* waits for its slowest shard; *groups* too, with several minibatches under way;
- *async* waits for nobody, *ssp* for whoever is its bound behind;
- *average* moves parameters once in so many minibatches and waits for its slowest stretch;
- *elastic* does not wait.

A slave that is slow for good holds back whoever waits for it by its whole slowness, at any bound;
it wants smaller pieces. A piece that is late for once holds back less the more clocks there are to
make up for it: a bound pays, or not to wait.

What a minibatch is worth is no arithmetic: it depends on the problem. The numbers below are
fitted to the runs in docs/performance.md (and agree with the table of SparkNet's tau that was
reproduced there); a run corrects them by what it sees.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import exp, log, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veloflow.sharing.auto_measure import Measured


__all__ = ["CODECS", "Choice", "Prediction", "choose", "predict"]

#: a minibatch of one of K replicas that are averaged is worth 1 / (1 + ((K - 1) / a)^1.5)
_AVERAGED = 2.4
#: … and 1 + (K - 1)^2 tau / b times less where they are tau minibatches apart, which matters to
#: many replicas only (the table of SparkNet's tau)
_APART = 4000.0
#: … where κ is this; a grows as κ^0.4, for nearer to the edge noise is more of what is in the way
_USUAL, _NOISY = 0.08, 0.4
#: replicas of elastic averaging are tied to the centre loosely
_ELASTIC = 1.2
#: a gradient that is s steps stale is worth 1 / (1 + (s κ / c)^6)
_STALE = 0.16
#: … and (1 + s)^-d where it is damped, so that it stays stable for longer
_DAMPED = 0.6
#: waiting for late pieces under a bound of s clocks goes like exp(-s / c): fitted to the table of
#: bounded staleness in docs/sharing.md
_JITTER, _MENDED = 0.81, 3.6
#: periods that are looked at, in minibatches
_PERIODS = (5, 10, 20, 50, 100)
#: a codec must save so much of the time to be worth its loss, per cent
_CODEC_GAIN = 3.0
#: so many pieces are played through to see who waits for whom
_PLAYED = 240
#: a mode that is to be tried must promise so much, per cent, for the trial may be undone; half as
#: much where two steps have said how near the edge is
_TRIAL_GAIN = 10.0
#: codecs that are looked at besides none, and what a minibatch is worth with them: what error
#: feedback leaves out comes later
CODECS = {"onebit": 0.95, "int8": 1.0}
#: … of a mode whose stretches are coded, momenta and all
_STRETCHES = {"onebit": 0.75, "int8": 1.0}
#: modes whose updates may be stale
_STALE_MODES = ("async", "ssp", "groups")


@dataclass(frozen=True)
class Prediction:
    """What the model says of one mode with one codec.

    Attributes:
        sharing, codec: which.
        seconds: of a minibatch.
        worth: of a minibatch, one of sync being 1.
        waiting: the part of the seconds that goes to the wire and to stragglers.
    """

    sharing: str
    codec: str
    seconds: float
    worth: float
    waiting: float

    @property
    def cost(self) -> float:
        """Seconds for what a minibatch of sync is worth."""
        return self.seconds / self.worth

    @property
    def is_stale(self) -> bool:
        """Whether its updates may be stale."""
        return self.sharing.partition(":")[0] in _STALE_MODES


@dataclass(frozen=True)
class Choice:
    """What is taken, and why.

    Attributes:
        taken: the prediction for it.
        reason: one plain line.
        others: all predictions, the cheapest first.
    """

    taken: Prediction
    reason: str
    others: tuple[Prediction, ...] = field(default=(), repr=False)


def choose(
    measured: Measured,
    *,
    margin: float = 5.0,
    codecs: bool = True,
    codec: str | None = None,
    stale: bool = True,
    barred: frozenset[str] = frozenset(),
) -> Choice:
    """Return the mode to take.

    Args:
        measured: the run.
        margin: sync is taken where it is within so many per cent of the cheapest.
        codecs: whether codecs that lose something may be taken.
        codec: the one that the user wants; it is taken.
        stale: whether modes with stale updates may be taken.
        barred: names of modes that are not to be taken.
    """
    found = sorted(predict(measured, codecs=codecs, codec=codec), key=_cost)
    found = [
        one
        for one in found
        if (stale or not one.is_stale) and one.sharing.partition(":")[0] not in barred
    ]
    best = found[0]
    steady = next(one for one in found if not one.is_stale)
    gain = _TRIAL_GAIN if measured.edge is None else _TRIAL_GAIN / 2
    if steady.cost <= best.cost * (1 + gain / 100):
        best = steady
    exact = next(one for one in found if one.sharing == "sync" and one.codec == (codec or "plain"))
    close = exact.cost <= best.cost * (1 + margin / 100)
    taken = exact if close else _plain_if_close(best, found, codec)
    return Choice(taken, _reason(taken, exact, measured, is_close=close), tuple(found))


def _cost(one: Prediction) -> float:
    return one.cost


def _plain_if_close(best: Prediction, found: list[Prediction], codec: str | None) -> Prediction:
    """Return the same mode without a codec, unless the codec pays."""
    if codec is not None or best.codec == "plain":
        return best
    plain = next(one for one in found if (one.sharing, one.codec) == (best.sharing, "plain"))
    return plain if plain.cost <= best.cost * (1 + _CODEC_GAIN / 100) else best


def _reason(taken: Prediction, exact: Prediction, measured: Measured, *, is_close: bool) -> str:
    times = exact.cost / taken.cost
    if is_close:
        why = "nothing else is predicted to be much quicker, and it gives the same bits again"
    else:
        share = 100 * exact.waiting / exact.seconds
        why = f"predicted {times:.1f} times as quick as sync, which would wait {share:.0f} %"
    name = taken.sharing + ("" if taken.codec == "plain" else f" with {taken.codec}")
    return f"auto takes {name}: {why} ({measured.words()})"


# -- predictions ----------------------------------------------------------------------------------


def predict(
    measured: Measured,
    *,
    codecs: bool = True,
    codec: str | None = None,
) -> Iterator[Prediction]:
    """Yield what the model says of each mode and codec."""
    names = [codec] if codec is not None else ["plain", *(CODECS if codecs else ())]
    for name in [one for one in names if one == codec or one == "plain" or one in measured.ratios]:
        wire = _Wire(measured, name)
        for sharing, seconds, worth in _modes(measured, wire):
            ideal = measured.sample * measured.minibatch / sum(measured.speeds)
            yield Prediction(
                sharing,
                name,
                seconds,
                worth * (_STRETCHES if _has_stretches(sharing) else CODECS).get(name, 1.0),
                max(0.0, seconds - ideal),
            )


def _has_stretches(sharing: str) -> bool:
    return sharing.startswith(("average", "elastic"))


@dataclass(frozen=True)
class _Wire:
    """What travelling takes with a codec."""

    measured: Measured
    codec: str

    @property
    def ratio(self) -> float:
        """Bytes of a coded update as a part of those of a plain one."""
        return self.measured.ratios.get(self.codec, 1.0)

    @property
    def packing(self) -> float:
        """Seconds to pack and unpack an update of the size of the parameters."""
        return self.measured.packing.get(self.codec, 0.0)

    def gradient(self, *, fresh: bool = True) -> float:
        """Return the seconds that a piece of a gradient mode takes besides its computing."""
        one = self.measured
        down = one.size if fresh else 0
        moved = (down + one.size * self.ratio) / one.bandwidth
        return 2 * one.latency + moved + self.packing

    def stretch(self) -> float:
        """Return the same of a stretch, with which all that solvers keep travels."""
        one = self.measured
        parts = one.state / one.size if one.size else 1.0
        moved = one.state * (1 + self.ratio) / one.bandwidth
        return 2 * one.latency + moved + parts * self.packing


def _modes(measured: Measured, wire: _Wire) -> Iterator[tuple[str, float, float]]:
    """Yield each mode, the seconds of a minibatch, and what that is worth."""
    slaves, batch = measured.slaves, measured.minibatch
    for shards in sorted({0, 2, slaves, 2 * slaves}):
        count = shards or max(2, min(8, batch // 32))
        if count <= max(2, batch // 4):
            name = f"sync:shards={shards}" if shards else "sync"
            yield name, _sync(measured, wire, count, 1), 1.0
    whole = measured.sample * batch
    mean = 1 + measured.late * (measured.factor - 1)
    alone = [whole * mean / speed + wire.gradient() for speed in measured.speeds]
    rate = sum(1 / one for one in alone)
    if slaves > 1:
        # of the slowest, whose updates are the stalest
        stalest = rate * max(alone) - 1
        stale = _worth_of_stale(measured, stalest)
        damped = slaves**-_DAMPED * _worth_of_stale(measured, stalest / (1 + stalest))
        yield "async:damping=1", 1 / rate, damped
        yield "async", 1 / rate, stale
        yield "ssp:s=3", _bounded(measured, alone, 3), stale
        for shards in sorted({0, slaves // 2}):
            count = shards or max(2, min(8, batch // 32))
            if 2 <= count <= max(2, batch // 4):
                name = f"groups:g=2,shards={shards}" if shards else "groups:g=2"
                yield name, _sync(measured, wire, count, 2), _worth_of_stale(measured, 1)
    for period in _periods(measured):
        yield (
            f"average:every={period}",
            _average(measured, wire, period),
            _worth_of_replicas(measured, _AVERAGED, period),
        )
        if slaves > 1:
            length = min(period, _of_epoch(measured) or period)
            each = [length / (length * whole * mean / v + wire.stretch()) for v in measured.speeds]
            yield (
                f"elastic:every={period}",
                1 / sum(each),
                _worth_of_replicas(measured, _ELASTIC, period),
            )


def _edge(measured: Measured) -> float:
    return _USUAL if measured.edge is None else measured.edge


def _later_edge(measured: Measured) -> float:
    """Return what κ becomes: curvature grows while a network learns, from wherever it begins.

    So a low start tells less than a high one (Cohen et al., Gradient descent on neural networks
    typically occurs at the edge of stability, ICLR 2021).
    """
    edge = _edge(measured)
    return max(edge, sqrt(edge * _USUAL))


def _worth_of_replicas(measured: Measured, scale: float, period: int) -> float:
    lengths = _lengths(measured, period)
    # a replica with a short stretch has little weight in the mean: so many there are in effect
    others = sum(lengths) ** 2 / sum(one * one for one in lengths) - 1
    scale *= (_edge(measured) / _USUAL) ** _NOISY
    apart = 1 + others**2 * max(lengths) / _APART
    return float(1 / (1 + (others / scale) ** 1.5) / apart)


def _worth_of_stale(measured: Measured, staleness: float) -> float:
    return float(1 / (1 + (staleness * _later_edge(measured) / _STALE) ** 6))


def _periods(measured: Measured) -> Iterator[int]:
    """Yield periods, up to the first with which an epoch is one round."""
    for period in _PERIODS:
        yield period
        if period >= (_of_epoch(measured) or 20):
            return


def _of_epoch(measured: Measured) -> int:
    """Return how many minibatches of an epoch there are for each slave; 0 if nobody knows."""
    return -(-measured.minibatches // measured.slaves)


def _longest(measured: Measured, steps: int) -> float:
    """Return how many times as long the slowest stretch takes as an undisturbed one.

    Each of its minibatches may be late for itself, so long stretches are more alike.
    """
    mean = 1 + (measured.factor - 1) * measured.late
    spread = (measured.factor - 1) * sqrt(measured.late * (1 - measured.late) / steps)
    return mean + spread * sqrt(2 * log(max(measured.slaves, 1)))


def _sync(measured: Measured, wire: _Wire, shards: int, groups: int) -> float:
    """Return the seconds of a minibatch that waits for its shards, with so many under way.

    Some minibatches are played through: each shard goes to whoever is idle longest.
    """
    piece = measured.sample * measured.minibatch / shards
    fresh, again = wire.gradient(), wire.gradient(fresh=groups > 1)
    idle = [(0.0, number) for number in range(measured.slaves)]  # since when, who
    begin = [0.0] * groups  # when each group's next minibatch begins
    turns = max(8, _PLAYED // shards) * groups
    late = 0.0
    for _ in range(turns):
        group = begin.index(min(begin))
        ends, known = 0.0, set()
        for _ in range(shards):
            since, slave = heapq.heappop(idle)
            late += measured.late
            times = measured.factor if late >= 1 else 1.0
            late -= late >= 1
            seconds = piece / measured.speeds[slave] * times
            end = max(since, begin[group]) + seconds + (again if slave in known else fresh)
            known.add(slave)
            ends = max(ends, end)
            heapq.heappush(idle, (end, slave))
        begin[group] = ends
    return max(begin) / turns


def _bounded(measured: Measured, alone: list[float], bound: int) -> float:
    """Return the seconds of a minibatch where nobody is more than so many clocks ahead."""
    slaves, slowest = len(alone), max(alone)
    free = 1 / sum(1 / one for one in alone)
    held = slowest / slaves
    whole = measured.sample * measured.minibatch
    spread = whole * (measured.factor - 1) * sqrt(measured.late * (1 - measured.late))
    jitter = _JITTER * spread * sqrt(2 * log(max(slaves, 2))) * exp(-bound / _MENDED) / slaves
    return max(free, held) + jitter


def _lengths(measured: Measured, period: int) -> list[int]:
    """Return the minibatches in a stretch of each slave, the quick ones' being a period."""
    period = min(period, _of_epoch(measured) or period)
    return [max(1, period // max(1, round(1 / speed))) for speed in measured.speeds]


def _average(measured: Measured, wire: _Wire, period: int) -> float:
    """Return the seconds of a minibatch of rounds; stretches are as long as slaves are quick."""
    whole = measured.sample * measured.minibatch
    lengths = _lengths(measured, period)
    longest = max(n * whole / speed for n, speed in zip(lengths, measured.speeds, strict=True))
    longest *= _longest(measured, max(lengths))
    return (longest + wire.stretch()) / sum(lengths)
