"""Time to a fixed validation error: modes and codecs, a perceptron beside a convolutional network.

Real arithmetic, simulated slaves, virtual time: a sample takes what it takes a slave here, a link
of each slave's own carries 1 or 10 Gbit/s. ``pytest -m bench -s tests/bench/test_time_to_error.py``
takes about half an hour; lines come as they are found, and a chart of the curves at the end.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

import veloflow
from checkout import ROOT
from veloflow.core import EpochDone
from veloflow.errors import RunError
from veloflow.runtime.master.simulated_crew import VirtualCluster
from veloflow.views.chart import Curve, draw_chart

pytestmark = pytest.mark.bench

DATA = ROOT.parent / "shared" / "data" / "mnist"

CONVOLUTION = """
from pathlib import Path
from veloflow.units import *

def build(wf, *, data: Path = Path("."), rate: float = 0.1, minibatch: int = 50, epochs: int = 3):
    layers = [conv(8, 5), max_pool(2), conv(16, 5), max_pool(2), softmax(10)]
    standard_workflow(wf, loader=IDXLoader(wf, data, minibatch_size=minibatch), layers=layers,
                      learning_rate=rate, weights_decay=0.0, max_epochs=epochs)
"""

#: seconds of a sample on a slave (docs/performance.md, training on slaves), error %, epochs
NETWORKS = {"mlp": (1.2e-5, 12.0, 6), "conv": (1.3e-4, 8.0, 3)}
#: mode -> minibatch and rate, that of the updates that are as stale as there are slaves divided
MODES = {
    "sync": (200, 0.1),
    "async": (50, 0.08),
    "ssp:3": (50, 0.08),
    "groups:2": (100, 0.08),
    "average:20": (50, 0.1),
    "elastic:0.9,10": (50, 0.1),
}
CODECS = ("float16", "int8", "onebit", "topk", "factors")
#: network -> slaves of each mode, codecs of sync with 4 slaves, Gbit/s
SETTINGS = {
    "mlp": ((1, 2, 4, 8), CODECS, (1, 10)),
    "conv": ((1, 4, 8), ("onebit", "topk", "factors"), (1,)),
}


def rate_of(mode, slaves):
    """Return minibatch and rate."""
    minibatch, rate = MODES[mode]
    return minibatch, rate / slaves if mode in ("async", "ssp:3") else rate


def train(network, mode, codec, slaves, gbit, folder):
    """Return the curve of (virtual seconds of training, error), and the bytes of a sample."""
    sample, _, epochs = NETWORKS[network]
    minibatch, rate = rate_of(mode, slaves)
    curve = []

    def watch(session):
        def note(event):
            error = event.record["validation"]["error_percent"]
            curve.append((session.farm.crew.now, error))

        session.events.subscribe(EpochDone, note)

    own = folder / "convolution.py"
    own.write_text(CONVOLUTION)
    more = {"moment": 0.0, "decay": 0.0} if network == "mlp" else {}
    cluster = VirtualCluster(slaves, sample=sample, latency=5e-5, bandwidth=gbit * 1.25e8)
    try:
        result = veloflow.run(
            "mnist_mlp" if network == "mlp" else own, device="numpy", codec=codec,
            sharing=f"sync:shards={slaves}" if mode == "sync" else mode,
            cluster=cluster, data=Path(DATA), watch=watch, minibatch=minibatch, rate=rate,
            epochs=epochs, **more,
        )  # fmt: skip
    except RunError:  # it has diverged
        return [], float("nan")
    first = curve[0][0]  # evaluation before training; as long after each epoch
    times = [(seconds - (number + 1) * first, error) for number, (seconds, error) in
             enumerate(curve)]  # fmt: skip
    counted = result.more["bytes"]
    return times, (counted["updates"] + counted["parameters"]) / (epochs * 10_000)


def time_to(curve, target):
    """Return when the error was first as low, between epochs by a straight line."""
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return float("inf")


@pytest.mark.parametrize(
    ("network", "gbit"),
    [(network, gbit) for network, (*_, links) in SETTINGS.items() for gbit in links],
)
def test_time_to_a_fixed_error(network, gbit, tmp_path):
    _, target, _ = NETWORKS[network]
    by_mode, codecs, _ = SETTINGS[network]
    settings = [(mode, "plain", slaves) for mode in MODES for slaves in by_mode]
    settings += [("sync", codec, 4) for codec in codecs]
    lone, curves = {}, []
    for mode, codec, slaves in settings:
        curve, nbytes = train(network, mode, codec, slaves, gbit, tmp_path)
        seconds = time_to(curve, target)
        lone.setdefault(mode, seconds)
        print(
            f"\n{network} {gbit:2d} Gbit/s {slaves} slaves {mode:14s} {codec:8s} {seconds:7.3f} s "
            f"to {target:g} %, {lone[mode] / seconds:5.2f} times as fast as one, "
            f"{nbytes:8.0f} bytes a sample, at the end {curve[-1][1] if curve else 90:5.2f} %",
            end="",
            flush=True,
        )
        if slaves == 4:
            curves.append(Curve(f"{mode} {codec}".removesuffix(" plain"), curve[1:]))
    chart = Path(os.environ.get("VELOFLOW_CHARTS", tmp_path))
    draw_chart(
        chart / f"time-to-error-{network}-{gbit}.svg", f"{network}, 4 slaves, {gbit} Gbit/s",
        "seconds of training", "error %", curves,
    )  # fmt: skip
