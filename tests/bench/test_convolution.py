"""A step of training a small convolutional network, beside torch in the same run."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from veloflow.devices.selection import open_device
from veloflow.units import conv, max_pool, relu, softmax, standard_workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from harness import workflow_on
from networks import Given, minibatch

pytestmark = pytest.mark.bench

BATCH, ROUNDS = 100, 7
LAYERS = [
    conv(32, 5, "relu", padding=2),
    max_pool(2),
    conv(64, 5, "relu", padding=2),
    max_pool(2),
    relu(128),
    softmax(10),
]
#: multiplications and additions of a step: forward, and by weights and inputs (not by the image)
FLOP = 2 * BATCH * (
    2 * 28 * 28 * 32 * 25 + 3 * (14 * 14 * 64 * 25 * 32 + 7 * 7 * 64 * 128 + 128 * 10)
)  # fmt: skip


def ours(name):
    device = open_device(name)
    wf = workflow_on(device, dtype="float32")
    images = np.random.default_rng(0).random((BATCH, 28, 28, 1), np.float32)
    given = Given(wf, **minibatch(images, labels=np.arange(BATCH) % 10))
    units = standard_workflow(wf, loader=given, layers=LAYERS, gradient_moment=0.9)
    wf.set_up()
    order = [*units.forwards, units.evaluator, *reversed(units.gradients)]

    def step():
        for unit in order:
            unit.run()
        device.synchronize()

    return step


def theirs(torch, threads):
    torch.set_num_threads(threads)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(7 * 7 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loss = nn.CrossEntropyLoss()
    x, labels = torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10

    def step():
        optimizer.zero_grad()
        loss(net(x), labels).backward()
        optimizer.step()

    return step


def test_a_convolutional_step_beside_torch(capsys):
    torch = pytest.importorskip("torch")
    steps = {"numpy": ours("numpy"), "opencl": ours("opencl"), "torch": theirs(torch, 2)}
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            step()
            began = time.perf_counter()
            for _ in range(3):
                step()
            times[name].append((time.perf_counter() - began) / 3)
    middle = {name: statistics.median(values) for name, values in times.items()}
    with capsys.disabled():
        print("\nconvolutional step:", ", ".join(
            f"{name} {1e3 * one:.1f} ms ({1e-9 * FLOP / one:.0f} GFLOP/s, "
            f"{one / middle['torch']:.2f} of torch)" for name, one in middle.items()
        ))  # fmt: skip
