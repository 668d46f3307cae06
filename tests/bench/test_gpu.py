"""Products and steps of training on an OpenCL GPU, beside torch with CUDA on the same one."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from veloflow.devices.opencl import OpenCLDevice
from veloflow.devices.selection import list_devices
from veloflow.units import softmax, tanh

sys.path.insert(0, str(Path(__file__).parent))
from training_step import BATCH, LAYERS, ours

pytestmark = pytest.mark.bench

ROUNDS = 9


@pytest.fixture(scope="module")
def gpu():
    """Return the first OpenCL device that is no processor; skips without one."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    for info in list_devices():
        if info.kind == "opencl":
            device = OpenCLDevice.open(info.name)
            if not device._engine.hardware.is_cpu:
                return device
            device.close()
    pytest.skip("there is no OpenCL GPU here")


def compare(capsys, what, calls, repeats, flop=0):
    """Let both take turns; print the middle of their times."""
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (call, wait) in calls.items():
            call()
            wait()
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            wait()
            times[name].append((time.perf_counter() - began) / repeats)
    middle = {name: statistics.median(values) for name, values in times.items()}
    parts = [
        f"{name} {1e6 * one:.0f} us" + (f" ({1e-12 * flop / one:.1f} TFLOP/s)" if flop else "")
        for name, one in middle.items()
    ]
    with capsys.disabled():
        print(f"\n{what}: {', '.join(parts)}, {middle['veloflow'] / middle['torch']:.2f} of torch")


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)], ids=str)
def test_a_product_beside_cublas(gpu, size, transposed, capsys):
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False  # float32 on both sides
    left, right = transposed
    a, b = (np.random.default_rng(n).random((size, size), np.float32) for n in (0, 1))
    own = gpu.gemm(
        gpu.asarray(a), gpu.asarray(b), out := gpu.zeros((size, size)), transpose_a=left,
        transpose_b=right,
    )  # fmt: skip
    x, y = torch.tensor(a, device="cuda"), torch.tensor(b, device="cuda")
    x, y = (x.T if left else x), (y.T if right else y)
    z = torch.empty(size, size, device="cuda")
    own()
    np.testing.assert_allclose(out.read(), torch.mm(x, y).cpu().numpy(), rtol=1e-4)
    calls = {
        "veloflow": (own, gpu.synchronize),
        "torch": (lambda: torch.mm(x, y, out=z), torch.cuda.synchronize),
    }
    compare(capsys, f"{size} x {size} x {size} {transposed}", calls, 10, 2 * size**3)


def network(torch, name):
    nn = torch.nn
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.Tanh(), nn.Linear(100, 10))
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(7 * 7 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_a_step_beside_torch_on_the_gpu(gpu, name, capsys):
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = network(torch, name).cuda()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()
    x = torch.rand(BATCH, 1, 28, 28, device="cuda")
    labels = (torch.arange(BATCH) % 10).cuda()

    def step():
        optimizer.zero_grad()
        loss(net(x), labels).backward()
        optimizer.step()

    layers, image = (LAYERS, (28, 28, 1)) if name == "conv" else ([tanh(100), softmax(10)], (784,))
    own = ours(gpu.name, image, layers)
    calls = {"veloflow": (own, lambda: None), "torch": (step, torch.cuda.synchronize)}
    compare(capsys, f"{name} step", calls, 20)
