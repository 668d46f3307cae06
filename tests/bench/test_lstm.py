"""A step of training an LSTM over the rows of images, beside torch in the same run."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from veloflow.devices.selection import open_device
from veloflow.units import lstm, softmax, standard_workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))
from harness import workflow_on
from networks import Given, minibatch
from turns import begin_turn

pytestmark = pytest.mark.bench

BATCH, TIME, INPUTS, CELLS, ROUNDS = 100, 28, 28, 128, 15
#: multiplications and additions of a step: the recurrent products three times, those with the
#: images twice (nobody asks for the gradient by the images), the last layer three times
FLOP = 2 * BATCH * (4 * CELLS * (3 * (TIME - 1) * CELLS + 2 * TIME * INPUTS) + 3 * CELLS * 10)


def ours(name):
    device = open_device(name)
    wf = workflow_on(device, dtype="float32")
    images = np.random.default_rng(0).random((BATCH, TIME, INPUTS), np.float32)
    given = Given(wf, **minibatch(images, labels=np.arange(BATCH) % 10))
    layers = [lstm(CELLS), softmax(10)]
    units = standard_workflow(wf, loader=given, layers=layers, gradient_moment=0.9)
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
    layer, last = nn.LSTM(INPUTS, CELLS, batch_first=True), nn.Linear(CELLS, 10)
    parameters = [*layer.parameters(), *last.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    loss = nn.CrossEntropyLoss()
    x, labels = torch.rand(BATCH, TIME, INPUTS), torch.arange(BATCH) % 10

    def step():
        optimizer.zero_grad()
        loss(last(layer(x)[0][:, -1]), labels).backward()
        optimizer.step()

    return step


def test_a_recurrent_step_beside_torch(capsys):
    torch = pytest.importorskip("torch")
    steps = {"numpy": ours("numpy"), "opencl": ours("opencl"), "torch": theirs(torch, 2)}
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begin_turn(step)
            began = time.perf_counter()
            for _ in range(5):
                step()
            times[name].append((time.perf_counter() - began) / 5)
    middle = {name: statistics.median(values) for name, values in times.items()}
    with capsys.disabled():
        print("\nLSTM step:", ", ".join(
            f"{name} {1e3 * one:.2f} ms ({1e-9 * FLOP / one:.0f} GFLOP/s, "
            f"{one / middle['torch']:.2f} of torch)" for name, one in middle.items()
        ))  # fmt: skip
