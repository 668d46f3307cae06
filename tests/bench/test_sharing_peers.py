"""Training with two processes in each mode, beside torch DDP and Ray Train here.

A perceptron 784-128-10, minibatches of 64, as in test_cluster.py. Ray Train is measured
where it is installed: ``pip install 'ray[train]'``.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time

import pytest
from two_processes import NETWORK, torch_rate

import veloflow

pytestmark = [pytest.mark.bench, pytest.mark.cluster]

SAMPLES, BATCH = 20480, 64
MODES = ("sync:shards=2", "async", "average:20", "elastic:0.9,10")

TRAIN = """
import time, torch
nn = torch.nn
SAMPLES, BATCH = 20480, 64

def rate(net, own, barrier, step):
    "Samples a second of the best of four epochs; each of two processes takes its half."
    torch.set_num_threads(1)
    data, labels = torch.rand(SAMPLES, 784), torch.randint(0, 10, (SAMPLES,))
    loss, best = nn.CrossEntropyLoss(), 1e9
    for _ in range(4):
        began = time.perf_counter()
        for first in range(0, SAMPLES // 2, own):
            step.zero_grad()
            loss(net(data[first : first + own]), labels[first : first + own]).backward()
            step.step()
        barrier()
        best = min(best, time.perf_counter() - began)
    return SAMPLES / best

def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10))
"""

RAY = (
    TRAIN
    + """
import os, sys
import ray, ray.train, ray.train.torch

def work(config):
    import torch.distributed as dist
    net = ray.train.torch.prepare_model(network())
    step = torch.optim.SGD(net.parameters(), lr=0.01)
    found = rate(net, BATCH // 2, dist.barrier, step)
    if dist.get_rank() == 0:
        print("rate", found, file=open(config["out"], "w"))

ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
trainer = ray.train.torch.TorchTrainer(
    work, train_loop_config={"out": sys.argv[1] + "/found"},
    scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
    run_config=ray.train.RunConfig(storage_path=sys.argv[1], name="rate"))
trainer.fit()
print(open(sys.argv[1] + "/found").read())
"""
)


def veloflow_rate(path, mode):
    """Samples a second of two slaves: the best epoch of four."""
    ends = []

    def watch(session):
        session.events.subscribe(
            veloflow.core.EpochDone, lambda event: ends.append(time.perf_counter())
        )

    veloflow.run(path, batch=BATCH, slaves=2, sharing=mode, device="numpy", watch=watch)
    return SAMPLES / min(after - before for before, after in itertools.pairwise(ends))


def peer_rate(script, folder):
    """Samples a second that a script prints."""
    own = folder / "peer.py"
    own.write_text(script)
    done = subprocess.run(
        [sys.executable, str(own), str(folder)], capture_output=True, text=True, timeout=150
    )
    if done.returncode:
        pytest.fail(done.stderr[-2000:])
    return float(done.stdout.split("rate ")[-1].split()[0])


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_beside_ddp(mode, tmp_path, capsys):
    pytest.importorskip("torch")
    own = tmp_path / "net.py"
    own.write_text(NETWORK)
    ours, ddp = [], []
    for _ in range(2):
        ours.append(veloflow_rate(own, mode))
        ddp.append(torch_rate("mlp", BATCH, 1, processes=2))
    one, other = statistics.median(ours), statistics.median(ddp)
    with capsys.disabled():
        print(f"\n{mode}: {one:.0f} samples/s, DDP {other:.0f}, {one / other:.2f} times as fast")


def test_ray_train_beside_ddp(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("ray.train")
    found, ddp = [], []
    for _ in range(2):
        found.append(peer_rate(RAY, tmp_path))
        ddp.append(torch_rate("mlp", BATCH, 1, processes=2))
    one, other = statistics.median(found), statistics.median(ddp)
    with capsys.disabled():
        print(f"\nRay Train: {one:.0f} samples/s, DDP {other:.0f}, {one / other:.2f} times as fast")
