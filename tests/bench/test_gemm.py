"""Products of matrices on OpenCL, by the kernel and by what is chosen, beside NumPy's BLAS."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from veloflow.devices.expressions import element, tanh
from veloflow.devices.opencl import gemm as module
from veloflow.devices.selection import open_device

pytestmark = pytest.mark.bench

ROUNDS = 7
#: rows, inner, columns, transpose_a, transpose_b, with bias and tanh
CASES = [
    *((size, size, size, False, False, False) for size in (256, 512, 1024, 2048)),
    (1024, 1024, 1024, True, False, False),
    (1024, 1024, 1024, False, True, False),
    (1024, 1024, 1024, True, True, False),
    (100, 784, 100, False, False, True),
]


def product(device, case):
    rows, inner, columns, left, right, is_layer = case
    random = np.random.default_rng(0)
    a = device.asarray(random.random((inner, rows) if left else (rows, inner), np.float32))
    b = device.asarray(random.random((columns, inner) if right else (inner, columns), np.float32))
    more = {}
    if is_layer:
        activation = 1.7159 * tanh(0.6666 * element("x"))
        more = {"bias": device.zeros((columns,)), "activation": activation}
    return device.gemm(
        a, b, device.zeros((rows, columns)), transpose_a=left, transpose_b=right, **more
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_product_beside_numpy(case, capsys, monkeypatch):
    host, device = open_device("numpy"), open_device("opencl")
    chosen = product(device, case)
    monkeypatch.setattr(module, "_BLAS", 1 << 62)
    calls = {"numpy": (host, product(host, case)), "kernel": (device, product(device, case)),
             "chosen": (device, chosen)}  # fmt: skip
    flop = 2 * case[0] * case[1] * case[2]
    repeats = max(1, min(300, int(3e8 / flop)))
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (place, call) in calls.items():
            call()
            place.synchronize()
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            place.synchronize()
            times[name].append((time.perf_counter() - began) / repeats)
    middle = {name: statistics.median(values) for name, values in times.items()}
    with capsys.disabled():
        words = (f"{name} {1e-9 * flop / one:.0f}" for name, one in middle.items())
        print(f"\n{case}: {', '.join(words)} GFLOP/s, chosen / numpy "
              f"{middle['numpy'] / middle['chosen']:.2f}")  # fmt: skip
