"""Two networks in veloflow and in torch, and how fast torch trains them: for benches."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NETWORK = """
from veloflow import Workflow
from veloflow.units import ArrayLoader, softmax, standard_workflow, tanh
import numpy as np

def build(wf: Workflow, *, batch: int = 64, epochs: int = 4) -> None:
    random = np.random.default_rng(1)
    data = random.random((batch * (20480 // batch), 784), np.float32)
    loader = ArrayLoader(wf, data, random.integers(0, 10, len(data)), minibatch_size=batch)
    standard_workflow(wf, loader=loader, layers=[tanh(128), softmax(10)], learning_rate=0.01,
                      max_epochs=epochs)
"""


IMAGES = 5120
CONVOLUTION = f"""
from veloflow import Workflow
from veloflow.units import ArrayLoader, conv, max_pool, softmax, standard_workflow
import numpy as np

def build(wf: Workflow, *, batch: int = 64, epochs: int = 3) -> None:
    random = np.random.default_rng(1)
    data = random.random(({IMAGES}, 28, 28), np.float32)
    loader = ArrayLoader(wf, data, random.integers(0, 10, len(data)), minibatch_size=batch)
    layers = [conv(16, 5), max_pool(2), conv(32, 5), max_pool(2), softmax(10)]
    standard_workflow(wf, loader=loader, layers=layers, learning_rate=0.01, max_epochs=epochs)
"""

#: networks, their data and their training, for one process of torch and for two with DDP
TORCH = """
import os, sys, time, torch
import torch.distributed as dist
kind, batch, threads, images = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
torch.set_num_threads(threads)
torch.manual_seed(1)
nn = torch.nn
if kind == "mlp":
    count = batch * (20480 // batch)
    net = nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10))
    data = torch.rand(count, 784)
else:
    count = images
    net = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5),
                        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10))
    data = torch.rand(count, 1, 28, 28)
labels = torch.randint(0, 10, (count,))
if world > 1:
    dist.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
loss = nn.CrossEntropyLoss()
best, own = 1e9, batch // world
for _ in range(4):
    began = time.perf_counter()
    order = torch.randperm(count)
    for first in range(rank * own, count, batch):
        rows = order[first : first + own]
        optimizer.zero_grad()
        loss(net(data[rows]), labels[rows]).backward()
        optimizer.step()
    if world > 1:
        dist.barrier()
    best = min(best, time.perf_counter() - began)
if rank == 0:
    print("rate", count / best, flush=True)
if world > 1:  # who leaves first would have the other one abort
    dist.barrier()
    time.sleep(0.5)
    os._exit(0)
"""


def torch_rate(kind, batch, threads, processes=1):
    """Samples per second of torch: the best of four epochs, in a process or with DDP over gloo."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "train.py"
        own.write_text(TORCH)
        command = [sys.executable, str(own), kind, str(batch), str(threads), str(IMAGES)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if processes > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            command[1:1] = [*launch, str(processes)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=True, env=environment
        )
    return float(done.stdout.split("rate ")[-1])
