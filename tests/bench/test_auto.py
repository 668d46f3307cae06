"""auto against every fixed mode: the time to a validation error, over a grid of settings.

Real arithmetic, simulated slaves and a simulated network with virtual time, so no machine is in the
figures: {perceptron, convolutional net} x {1, 2, 4, 8 slaves} x {1, 10 Gbit/s} x {all alike, pieces
that are late for once, one slow for good}. The time is that of training; auto's has its measuring
and its trials in it. A mode is stopped when it is far behind the best, so all that is known of it
then is that it is slower.

    VELOFLOW_GRID=rows.jsonl pytest -m bench tests/bench/test_auto.py -s

keeps the rows there and goes on with them when it is started again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from pathlib import Path

import pytest
from small_mnist import write_small_mnist

import veloflow
from veloflow.core import EpochDone
from veloflow.errors import RunError
from veloflow.runtime.simulated_crew import VirtualCluster

pytestmark = pytest.mark.bench

CONV = """
from pathlib import Path
from veloflow import Workflow
from veloflow.units import FanIn, IDXLoader, conv, softmax, standard_workflow


def build(wf: Workflow, *, data: Path, epochs: int = 3, minibatch: int = 20, rate: float = 0.01,
          moment: float = 0.9, decay: float = 5e-4) -> None:
    standard_workflow(wf, loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=[conv(8, 5, "tanh", stride=2, weights_filling=FanIn()),
                conv(16, 3, "tanh", stride=2, weights_filling=FanIn()),
                softmax(10, weights_filling=FanIn())],
        max_epochs=epochs, learning_rate=rate, gradient_moment=moment, weights_decay=decay)
"""
#: seconds that a sample takes (measured here, one thread), and the error to reach, per cent
NETS = {"mlp": (1e-5, 15.0), "conv": (1e-4, 15.0)}
#: seconds a message, bytes a second
WIRES = {1: (5e-4, 1.25e8), 10: (5e-5, 1.25e9)}
PROFILES = {
    "alike": {},
    "late": {"transient": 0.05, "factor": 10.0},
    "slow": {"slow": 1, "factor": 4.0},
}
EPOCHS = 24
GRID = list(itertools.product(NETS, (4, 8, 2, 1), WIRES, PROFILES))


def modes(slaves):
    """Return the fixed choices, those that are often good first."""
    found = ["average:20", "average:50 int8", "average:5", "sync", "sync onebit", "groups:2"]
    found.append(f"sync:shards={max(2, slaves)}")
    return found + ["elastic:0.9,10", "async", "async:damping=1", "ssp:3"] * (slaves > 1)


class Reached(BaseException):
    """The error is reached, or the run is far behind another."""


def seconds_to(net, slaves, wire, profile, mode, folder, *, limit=math.inf, seed=0):
    """Return the virtual seconds of training until the error is reached, and what auto took."""
    sample, target = NETS[net]
    latency, bandwidth = WIRES[wire]
    curve = []

    def watch(session):
        def note(event):
            now = session.farm.crew.training
            curve.append((now, event.record["validation"]["error_percent"]))
            if curve[-1][1] <= target or now > limit:
                auto = session.farm.results().get("auto", {"sharing": "", "codec": "plain"})
                took.append(f"{auto['sharing']} {auto['codec']}".removesuffix(" plain"))
                raise Reached

        session.events.subscribe(EpochDone, note)

    took = []
    sharing, _, codec = mode.partition(" ")
    cluster = VirtualCluster(
        slaves, sample=sample, latency=latency, bandwidth=bandwidth, **PROFILES[profile]
    )
    workflow = "mnist_mlp" if net == "mlp" else folder / "small_conv.py"
    with contextlib.suppress(Reached, RunError):
        veloflow.run(
            workflow, device="numpy", sharing=sharing, codec=codec or None, cluster=cluster,
            seed=seed, data=folder,
            epochs=EPOCHS, minibatch=20, rate=0.01, moment=0.9, watch=watch,
        )  # fmt: skip
    if len(curve) < 2 or curve[-1][1] > target:
        return math.inf, took
    (before, high), (after, low) = curve[-2:]
    part = math.log(high / target) / math.log(high / max(low, 0.1))
    return before + (after - before) * part, took


def row_of(cell, folder, times):
    """Return the times of auto and of all fixed modes in one setting, some of which are known."""
    auto, took = seconds_to(*cell, "auto", folder)
    best = min([auto, *times.values()])
    for mode in [one for one in modes(cell[1]) if one not in times]:
        times[mode] = seconds_to(*cell, mode, folder, limit=1.3 * best)[0]
        best = min(best, times[mode])
    return {"cell": list(cell), "auto": auto, "took": took, "times": times}


@pytest.mark.parametrize("share", [0.9])
def test_auto_is_about_as_quick_as_the_best_fixed_mode(share, tmp_path):
    write_small_mnist(tmp_path)
    (tmp_path / "small_conv.py").write_text(CONV)
    kept = Path(os.environ.get("VELOFLOW_GRID", tmp_path / "rows.jsonl"))
    lines = kept.read_text().splitlines() if kept.exists() else []
    rows = {tuple(one["cell"]): one for one in map(json.loads, lines)}
    again = "VELOFLOW_GRID_AUTO" in os.environ  # auto was changed, and the others were not
    wanted = os.environ.get("VELOFLOW_GRID_NETS", " ".join(NETS)).split()
    good = 0
    cells = [cell for cell in GRID if cell[0] in wanted]
    for cell in cells:
        if cell not in rows or again:
            rows[cell] = row_of(cell, tmp_path, rows[cell]["times"] if cell in rows else {})
            with kept.open("a") as file:
                file.write(json.dumps(rows[cell]) + "\n")
        auto, times = rows[cell]["auto"], rows[cell]["times"]
        best = min(times, key=times.get)
        good += auto <= 1.1 * times[best]
        took = ", ".join(rows[cell]["took"])
        print(
            f"\n{cell[0]:4s} {cell[1]} slaves {cell[2]:2d} Gbit/s {cell[3]:5s} auto {auto:6.3f} s "
            f"({took}), best fixed {times[best]:6.3f} s ({best}): {auto / times[best]:.2f}",
            end="",
        )
    print(f"\n{good} of {len(cells)} within 10 %")
    assert good >= share * len(cells)
