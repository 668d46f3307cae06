"""Products of matrices on OpenCL, by the kernel and by what is chosen, beside NumPy's BLAS."""

from __future__ import annotations

import statistics
import time

import msgspec
import numpy as np
import pytest

from veloflow.devices.expressions import element, tanh
from veloflow.devices.opencl import OpenCLDevice
from veloflow.devices.opencl.platforms import open_hardware
from veloflow.devices.opencl.tiles import Blas
from veloflow.devices.opencl.tuning import Tuning
from veloflow.devices.selection import open_device

pytestmark = pytest.mark.bench

ROUNDS = 7
#: seconds before each turn: threads of OpenBLAS spin for some 25 ms after a product, on cores that
#: the next contestant needs
_PAUSE = 0.08
#: seconds of work before each turn: after a pause the system has both threads of the driver on one
#: core, until its scheduler sees that another is idle
_WARM_UP = 0.05
#: rows, inner, columns, transpose_a, transpose_b, with bias and tanh
CASES = [
    *(
        (size, size, size, left, right, False)
        for size in (256, 512, 1024, 2048)
        for left in (False, True)
        for right in (False, True)
    ),
    (100, 784, 100, False, True, True),
    (100, 784, 100, False, False, True),
    (60, 100, 10, False, True, False),
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


def without_blas():
    """Return the OpenCL device with the kernels of its built-in choice for all sizes."""
    hardware = open_hardware("opencl")
    builtin = Tuning.builtin(hardware.identity, hardware.facts)
    kernels = tuple(one for one in builtin.gemm if not isinstance(one.method, Blas))
    return OpenCLDevice(hardware, tuning=msgspec.structs.replace(builtin, gemm=kernels))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_product_beside_numpy(case, capsys):
    devices = {"numpy": open_device("numpy"), "kernel": without_blas(),
               "chosen": open_device("opencl")}  # fmt: skip
    calls = {name: (device, product(device, case)) for name, device in devices.items()}
    flop = 2 * case[0] * case[1] * case[2]
    repeats = max(2, min(1000, int(1.5e9 / flop)))
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (place, call) in calls.items():
            time.sleep(_PAUSE)
            ready = time.perf_counter() + _WARM_UP
            while time.perf_counter() < ready:
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
