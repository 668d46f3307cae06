"""One step of training a network of ours, for benches that put another's beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from veloflow.devices.selection import open_device
from veloflow.units import conv, max_pool, relu, softmax, standard_workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from harness import workflow_on
from networks import Given, minibatch

BATCH = 100
#: the "conv step"
LAYERS = [
    conv(32, 5, "relu", padding=2),
    max_pool(2),
    conv(64, 5, "relu", padding=2),
    max_pool(2),
    relu(128),
    softmax(10),
]


def ours(name, image, layers):
    device = open_device(name)
    wf = workflow_on(device, dtype="float32")
    images = np.random.default_rng(0).random((BATCH, *image), np.float32)
    given = Given(wf, **minibatch(images, labels=np.arange(BATCH) % 10))
    units = standard_workflow(wf, loader=given, layers=layers, gradient_moment=0.9)
    wf.set_up()
    order = [*units.forwards, units.evaluator, *reversed(units.gradients)]

    def step():
        for unit in order:
            unit.run()
        device.synchronize()

    return step
