"""Modes and codecs against each other on MNIST: real arithmetic, simulated slaves, virtual time.

Every claim stands beside its negative control: one bit and top-k without error feedback, bounded
staleness with a slave that is slow for good, plain asynchronous sums at long periods.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from small_mnist import write_small_mnist

import veloflow
from checkout import ROOT
from veloflow.core import EpochDone
from veloflow.errors import RunError
from veloflow.runtime.master.simulated_crew import VirtualCluster
from veloflow.sharing import policies
from veloflow.sharing.policies import LocalPolicy, Period

pytestmark = pytest.mark.bench

DATA = ROOT.parent / "shared" / "data" / "mnist"


def run(mode, cluster, *, codec="plain", seed=0, **options):
    """Return the result, and (virtual seconds, validation error) after each epoch."""
    curve = []

    def watch(session):
        def note(event):
            error = event.record["validation"]["error_percent"]
            curve.append((session.farm.crew.now, error))

        session.events.subscribe(EpochDone, note)

    given = {"moment": 0.0, "decay": 0.0, "minibatch": 50, **options}
    try:
        result = veloflow.run(
            "mnist_mlp", device="numpy", sharing=mode, codec=codec, cluster=cluster, seed=seed,
            data=Path(DATA), watch=watch, **given,
        )  # fmt: skip
    except RunError:  # it has diverged until numbers were not finite any more
        return None, curve
    return result, curve


def spread(values):
    """Return mean and standard deviation, as text."""
    return f"{statistics.mean(values):6.2f} +- {statistics.stdev(values):4.2f}"


@pytest.mark.parametrize("seeds", [5])
def test_codecs_with_error_feedback_lose_nothing_and_without_it_they_do(seeds):
    """Seide et al. 2014: one bit costs no accuracy, if what is left out is sent later."""
    found, less = {}, {}
    texts = ("plain", "int8", "onebit", "onebit:feedback=off", "topk", "topk:feedback=off")
    for text in texts:
        errors = []
        for seed in range(seeds):
            result, _ = run(
                "sync:shards=4", VirtualCluster(4), codec=text, seed=seed,
                minibatch=200, rate=0.1, epochs=5,
            )  # fmt: skip
            errors.append(result.epochs[-1]["validation"]["error_percent"])
        found[text] = statistics.mean(errors)
        counted = result.more["bytes"]
        less[text] = counted["uncoded"] / counted["updates"]
        print(f"\n{text:20s} {spread(errors)} % error, {less[text]:6.1f} x fewer bytes", end="")
    assert less["onebit"] > 28
    assert less["topk"] > 40
    for text in ("onebit", "topk"):
        assert found[text] < found["plain"] + 0.3
        assert found[f"{text}:feedback=off"] > found[text] + 0.5


PROFILES = {
    "all alike": {},
    "each piece 10 x longer with 5 %": {"transient": 0.05, "factor": 10.0},
    "one 4 x slower for good": {"slow": 1, "factor": 4.0},
    "one 20 x slower for good": {"slow": 1, "factor": 20.0},
}
BOUNDS = ("ssp:0", "ssp:1", "ssp:3", "ssp:10", "async")


def pace_and_time(mode, profile, folder, seed, target=25.0, epochs=5):
    """Return steps a time, the time until the error is below the target, and the staleness."""
    curve = []

    def watch(session):
        def note(event):
            error = event.record["validation"]["error_percent"]
            curve.append((session.farm.crew.training, error))

        session.events.subscribe(EpochDone, note)

    cluster = VirtualCluster(10, sample=0.1, latency=0.1, bandwidth=1e12, **PROFILES[profile])
    result = veloflow.run(
        "mnist_mlp", device="numpy", sharing=mode, cluster=cluster, seed=seed, data=folder,
        minibatch=10, rate=0.01, moment=0.0, decay=0.0, epochs=epochs, watch=watch,
    )  # fmt: skip
    when = next((now for now, error in curve if error <= target), float("inf"))
    return epochs * 200 / curve[-1][0], when, result.more["staleness"]["mean"]


def test_bounded_staleness_pays_with_transient_stragglers(tmp_path):
    """Ho et al. 2013, staleness against throughput and time to an error; 3 seeds.

    A piece of work takes 1, a round trip 0.2. A slave that is slow for good holds the others back
    where its piece takes longer than the bound's clocks of theirs: with 4 times, a bound of 3 and
    less; with 20 times, one of 10 as well.
    """
    write_small_mnist(tmp_path)
    pace, when = {}, {}
    for profile in PROFILES:
        for mode in BOUNDS:
            found = [pace_and_time(mode, profile, tmp_path, seed) for seed in range(3)]
            paces, times, stale = (list(one) for one in zip(*found, strict=True))
            pace[profile, mode], when[profile, mode] = map(statistics.mean, (paces, times))
            print(
                f"\n{profile:32s} {mode:7s} {spread(paces)} steps a time, 25 % error after "
                f"{spread(times)}, staleness {statistics.mean(stale):5.2f}",
                end="",
            )
    alike, late, slow, slower = PROFILES
    assert max(pace[alike, one] for one in BOUNDS) < 1.05 * min(pace[alike, one] for one in BOUNDS)
    for less, more in pairwise(BOUNDS):
        assert pace[late, less] < pace[late, more]
    assert when[late, "ssp:10"] < 0.7 * when[late, "ssp:0"]
    for mode in ("ssp:1", "ssp:3"):
        assert pace[slow, mode] < 1.15 * pace[slow, "ssp:0"]
    assert pace[slow, "ssp:10"] > 2 * pace[slow, "ssp:3"]
    assert pace[slower, "ssp:10"] < 1.5 * pace[slower, "ssp:0"]
    assert pace[slower, "async"] > 3 * pace[slower, "ssp:10"]


@dataclass(frozen=True)
class Downpour(LocalPolicy):
    """The control: each adds all that it has moved to the centre, as DistBelief's Downpour."""

    name: ClassVar[str] = "downpour"

    every: str = "1"

    @property
    def period(self):
        return Period(self.every)

    @property
    def waits(self):
        return False

    def replicas(self, slaves):
        return slaves

    def exchange(self, centre, found, starts, steps, replicas):
        for end, begin in zip(found, starts, strict=True):
            centre += end - begin


def test_elastic_averaging_is_flat_where_plain_sums_diverge(monkeypatch):
    """Zhang et al. 2015: stable for long periods; at a period of 1 it is the slower one."""
    known = {**policies.known_policies(), "downpour": Downpour}
    monkeypatch.setattr(policies, "known_policies", lambda: known)
    errors = {}
    for slaves in (4, 8):
        for every in (1, 4, 10, 16, 64):
            for mode in ("elastic:0.9,", "downpour:"):
                _, curve = run(f"{mode}{every}", VirtualCluster(slaves), rate=0.02, epochs=4)
                errors[slaves, every, mode[:7]] = curve[-1][1] if len(curve) == 5 else 90.0
            elastic, plain = errors[slaves, every, "elastic"], errors[slaves, every, "downpou"]
            print(
                f"\n{slaves} slaves, every {every:2d}: elastic {elastic:5.2f} % error, plain sums "
                f"{plain:5.2f} %",
                end="",
            )
    for slaves in (4, 8):
        flat = [errors[slaves, every, "elastic"] for every in (4, 10, 16, 64)]
        assert max(flat) < 20
        assert errors[slaves, 64, "downpou"] > errors[slaves, 64, "elastic"]
        assert errors[slaves, 1, "downpou"] < errors[slaves, 1, "elastic"]
