"""What precision levels cost: products of matrices, and a step of training 784-100-10."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

import mlp_peers as peers
import numpy as np
import pytest

from veloflow.devices.numpy import NumpyDevice

pytestmark = pytest.mark.bench

TURNS = 7


def _report(capsys, what, calls, repeats):
    times = {name: [] for name in calls}
    for _ in range(TURNS + 1):  # the first one warms up
        for name, call in calls.items():
            began = time.perf_counter()
            call(repeats)
            times[name].append((time.perf_counter() - began) / repeats * 1e6)
    middle = {name: statistics.median(values[1:]) for name, values in times.items()}
    words = ", ".join(f"level {n}: {m:.0f} us ({m / middle[0]:.2f})" for n, m in middle.items())
    with capsys.disabled():
        print(f"\n{what}: {words}")


@pytest.mark.parametrize("shape", [(100, 784, 100), (512, 512, 512)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product(shape, dtype, capsys):
    rows, inner, columns = shape
    random = np.random.default_rng(0)
    device = NumpyDevice()
    a = device.asarray(random.normal(size=(rows, inner)), dtype)
    b = device.asarray(random.normal(size=(inner, columns)), dtype)
    out = device.zeros((rows, columns), dtype)
    calls = {}
    for level in (0, 1, 2):
        device.precision_level = level
        launch = device.gemm(a, b, out)
        calls[level] = lambda count, launch=launch: [launch() for _ in range(count)]
    _report(capsys, f"{rows} x {inner} x {columns} {dtype}", calls, 50)


def test_a_training_step(capsys):
    with ExitStack() as stack:
        contestants = {
            level: peers.Veloflow("numpy", stack, precision_level=level).steps
            for level in (0, 1, 2)
        }
        _report(capsys, "training step", contestants, 100)
