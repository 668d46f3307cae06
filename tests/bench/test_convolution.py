"""Steps of training convolutional networks, beside torch in the same run, and beside tinygrad."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from veloflow.units import (
    activation,
    avg_pool,
    conv,
    lrn,
    max_pool,
    softmax,
    tanh,
)

sys.path.insert(0, str(Path(__file__).parent))
from training_step import BATCH, LAYERS, ours
from turns import begin_turn

pytestmark = pytest.mark.bench

ROUNDS = 7
#: Caffe's quick network for CIFAR-10, as Veles had it
CIFAR = [
    conv(32, 5, "linear", padding=2),
    max_pool(3, 2),
    activation("relu"),
    lrn(alpha=5e-5, beta=0.75, k=1.0, n=3),
    conv(32, 5, "relu", padding=2),
    avg_pool(3, 2),
    lrn(alpha=5e-5, beta=0.75, k=1.0, n=3),
    conv(64, 5, "relu", padding=2),
    avg_pool(3, 2),
    softmax(10),
]


def theirs(torch, net, image):
    torch.set_num_threads(2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()
    x, labels = torch.rand(BATCH, image[2], *image[:2]), torch.arange(BATCH) % 10

    def step():
        optimizer.zero_grad()
        loss(net(x), labels).backward()
        optimizer.step()

    return step


def compare(steps, what, flop, capsys):
    """Let the steps take turns; print the middle of their times."""
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begin_turn(step)
            began = time.perf_counter()
            for _ in range(2):
                step()
            times[name].append((time.perf_counter() - began) / 2)
    middle = {name: statistics.median(values) for name, values in times.items()}
    parts = []
    for name, one in middle.items():
        low, high = 1e3 * min(times[name]), 1e3 * max(times[name])
        parts.append(
            f"{name} {1e3 * one:.1f} ms ({low:.1f}-{high:.1f}; {1e-9 * flop / one:.0f} GFLOP/s, "
            f"{one / middle['torch']:.2f} of torch)"
        )
    with capsys.disabled():
        print(f"\n{what}: {', '.join(parts)}")


def test_a_convolutional_step_beside_torch(capsys):
    torch = pytest.importorskip("torch")
    nn, image = torch.nn, (28, 28, 1)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(7 * 7 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    # multiplications and additions: forward, and by weights and inputs (not by the image)
    flop = 2 * BATCH * (
        2 * 28 * 28 * 32 * 25 + 3 * (14 * 14 * 64 * 25 * 32 + 7 * 7 * 64 * 128 + 128 * 10)
    )  # fmt: skip
    steps = {name: ours(name, image, LAYERS) for name in ("numpy", "opencl")}
    compare({**steps, "torch": theirs(torch, net, image)}, "conv step", flop, capsys)


def test_a_step_of_caffe_s_cifar_network_beside_torch(capsys):
    torch = pytest.importorskip("torch")
    nn, image = torch.nn, (32, 32, 3)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(),
        nn.LocalResponseNorm(3, 1.5e-4, 0.75, 1.0),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(3, 1.5e-4, 0.75, 1.0),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(4 * 4 * 64, 10),
    )  # fmt: skip
    flop = 2 * BATCH * (
        2 * 32 * 32 * 32 * 75 + 3 * (16 * 16 * 32 * 800 + 8 * 8 * 64 * 800 + 1024 * 10)
    )  # fmt: skip
    steps = {name: ours(name, image, CIFAR) for name in ("numpy", "opencl")}
    compare({**steps, "torch": theirs(torch, net, image)}, "cifar_caffe step", flop, capsys)


def tell_of_drivers(folder):
    """Write what the system's OpenCL loader reads: where the drivers of pyopencl's wheel lie."""
    pyopencl = pytest.importorskip("pyopencl")
    site = Path(pyopencl.__file__).parents[1]
    for known in (site / "pyopencl" / ".libs").glob("*.icd"):
        for library in site.glob(f"*/.libs/{known.read_text().strip()}"):
            (folder / known.name).write_text(f"{library}\n")


@pytest.mark.parametrize(
    ("name", "image", "layers"),
    [("conv", (28, 28, 1), LAYERS), ("mlp", (784,), [tanh(100), softmax(10)])],
)
def test_a_step_beside_tinygrad_on_the_same_device(name, image, layers, tmp_path, capsys):
    pytest.importorskip("tinygrad")
    tell_of_drivers(tmp_path)
    script = Path(__file__).parent / "tinygrad_step.py"
    env = {**os.environ, "DEV": "CL", "OCL_ICD_VENDORS": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, str(script), name], env=env,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    if run.returncode:
        pytest.skip(f"tinygrad does not run here: {run.stderr.strip().splitlines()[-1:]}")
    other = float(run.stdout)
    step, times = ours("opencl", image, layers), []
    for _ in range(30):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    own = statistics.median(times[5:])
    with capsys.disabled():
        print(f"\n{name} step on OpenCL: {1e3 * own:.2f} ms, tinygrad {1e3 * other:.2f} ms, "
              f"{own / other:.2f}")  # fmt: skip
