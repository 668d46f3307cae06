"""What slaves cost and bring: empty jobs beside bare ZeroMQ, parameters beside a copy, training."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import zmq
from two_processes import CONVOLUTION, IMAGES, NETWORK, torch_rate

import veloflow
from veloflow.devices.copying import copy_into
from veloflow.protocol.codec import encode
from veloflow.protocol.messages import Job, LeaseId, Piece, Update
from veloflow.runtime.transport.shared_memory import Board, make_folder, remove_folder

pytestmark = [pytest.mark.bench, pytest.mark.cluster]

JOBS = 5000

EMPTY = f"""
import time
from veloflow import Unit, Workflow
from veloflow.core import Farm

class Empty(Unit):
    def run(self):
        raise AssertionError("this is for slaves")
    def run_as_master(self):
        farm = self.service(Farm)
        list(farm.map(self, [{{}}] * 500))  # everybody is there and warm
        began = time.perf_counter()
        list(farm.map(self, [{{}}] * {JOBS}))
        self.rate = {JOBS} / (time.perf_counter() - began)
    def results(self):
        return {{"rate": self.rate}}

def build(wf: Workflow) -> None:
    wf.start >> Empty(wf) >> wf.end
"""

#: a slave that does nothing but answer
BARE = """
import sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
answer = bytes.fromhex(sys.argv[2])
socket.send(b"ready")
while socket.recv():
    socket.send(answer)
"""


def bare_rate(ahead):
    """Jobs per second of a loop that sends frames of the same size and counts answers."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    job = encode(Job(LeaseId(1000, 0), Piece(1000, 0, -1, 1000, 1), {"Empty": {}}))
    answer = encode(Update(LeaseId(1000, 0), {"Empty": {}}, (), 1e-5))
    command = [sys.executable, "-c", BARE, f"tcp://127.0.0.1:{port}", answer.hex()]
    slaves = [subprocess.Popen(command) for _ in range(2)]
    clients = [socket.recv_multipart()[0] for _ in slaves]
    began = 0.0
    for client in clients * ahead:
        socket.send_multipart([client, job])
    for number in range(JOBS + 500):
        if number == 500:
            began = time.perf_counter()
        client, _ = socket.recv_multipart()
        socket.send_multipart([client, job])
    rate = JOBS / (time.perf_counter() - began)
    for client in clients:
        socket.send_multipart([client, b""])
    for slave in slaves:
        slave.kill()
        slave.wait()
    context.destroy(linger=0)
    return rate


def test_empty_jobs_beside_bare_zeromq(tmp_path, capsys):
    own = tmp_path / "empty.py"
    own.write_text(EMPTY)
    ours, bare = [], []
    for _ in range(5):
        result = veloflow.run(str(own), slaves=2, device="numpy")
        ours.append(result.more["rate"])
        bare.append(bare_rate(ahead=2))
    rates = [statistics.median(one) for one in (ours, bare)]
    with capsys.disabled():
        print(f"\nempty jobs/s: {rates[0]:.0f}, bare ZeroMQ {rates[1]:.0f}, "
              f"ratio {rates[0] / rates[1]:.2f} ({min(ours):.0f}-{max(ours):.0f}, "
              f"{min(bare):.0f}-{max(bare):.0f})")  # fmt: skip


PEERS = {
    "distributed": """
import time
from distributed import Client, LocalCluster
if __name__ == "__main__":
    web = "127.0.0.1:0"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=web) as cluster:
        with Client(cluster) as client:
            client.wait_for_workers(2)
            client.gather(client.map(int, range(200)))
            began = time.perf_counter()
            client.gather(client.map(int, range(1000, 3000)))
            print("rate", 2000 / (time.perf_counter() - began))
""",
    "ray": """
import time, ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
task = ray.remote(lambda number: number)
ray.get([task.remote(n) for n in range(200)])
began = time.perf_counter()
ray.get([task.remote(n) for n in range(2000)])
print("rate", 2000 / (time.perf_counter() - began))
""",
}


def test_empty_jobs_beside_dask_and_ray(tmp_path, capsys):
    """dask/distributed#2327: ten times slower than processes for small tasks."""
    (tmp_path / "empty.py").write_text(EMPTY)
    rates = {"veloflow": []}
    for _ in range(3):
        ours = veloflow.run(str(tmp_path / "empty.py"), slaves=2, device="numpy")
        rates["veloflow"].append(ours.more["rate"])
        for name, script in PEERS.items():
            if importlib.util.find_spec(name) is None:
                continue
            own = tmp_path / f"{name}_rate.py"
            own.write_text(script)
            done = subprocess.run(
                [sys.executable, str(own)], capture_output=True, text=True, timeout=120, check=True
            )
            rates.setdefault(name, []).append(float(done.stdout.split("rate ")[-1]))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    with capsys.disabled():
        print("\nempty jobs/s:", ", ".join(
            f"{name} {rate:.0f} (ours {middle['veloflow'] / rate:.1f} times that)"
            for name, rate in middle.items()
        ))  # fmt: skip


def test_parameters_beside_a_copy(capsys):
    folder = make_folder()
    values, out = np.random.default_rng(1).random(10_000_000, np.float32), np.empty(
        10_000_000, np.float32
    )  # fmt: skip
    board = Board(folder / "b", values.size, np.float32, create=True)
    reader = Board(folder / "b", values.size, np.float32)
    copies, crossings = [], []
    for version in range(1, 12):
        began = time.perf_counter()
        np.copyto(out, values)
        copies.append(time.perf_counter() - began)
        began = time.perf_counter()
        board.write(version, values)
        copy_into(out, reader.look(version))
        crossings.append(time.perf_counter() - began)
    remove_folder(folder)
    one, two = statistics.median(copies), statistics.median(crossings)
    with capsys.disabled():
        print(f"\n40 MB: {1e3 * two:.1f} ms from master to slave, a copy {1e3 * one:.1f} ms, "
              f"ratio {two / one:.2f}")  # fmt: skip


def veloflow_rate(path, batch, samples=20480, device="numpy"):
    """Samples per second of two slaves in sync mode: the best epoch of a run."""
    ends = []

    def watch(session):
        session.events.subscribe(
            veloflow.core.EpochDone, lambda e: ends.append(time.perf_counter())
        )

    veloflow.run(str(path), batch=batch, slaves=2, sharing="sync:shards=2", device=device,
                 watch=watch)  # fmt: skip
    return samples / min(b - a for a, b in itertools.pairwise(ends))


def beside_torch(kind, batch, ours, turns):
    """Measure in turns; return medians: of ours by name, the better torch process, DDP."""
    rates = {name: [] for name in [*ours, "torch", "DDP"]}
    for _ in range(turns):
        for name, measure in ours.items():
            rates[name].append(measure())
        rates["torch"].append(max(torch_rate(kind, batch, threads) for threads in (1, 2)))
        rates["DDP"].append(torch_rate(kind, batch, 1, processes=2))
    return {name: statistics.median(one) for name, one in rates.items()}


def words_of(found):
    """Say all rates, and each beside torch's."""
    return ", ".join(
        f"{name} {rate:.0f} ({rate / found['torch']:.2f})" for name, rate in found.items()
    )


@pytest.mark.parametrize("batch", [64, 512])
def test_two_slaves_beside_torch(batch, tmp_path, capsys):
    pytest.importorskip("torch")
    own = tmp_path / "net.py"
    own.write_text(NETWORK)
    found = beside_torch("mlp", batch, {"2 slaves": lambda: veloflow_rate(own, batch)}, turns=3)
    with capsys.disabled():
        print(f"\nMLP 784-128-10, batch {batch}, samples/s: {words_of(found)}")


def test_two_slaves_with_a_convolutional_network_beside_torch(tmp_path, capsys):
    pytest.importorskip("torch")
    own = tmp_path / "net.py"
    own.write_text(CONVOLUTION)
    ours = {
        f"2 slaves, {device}": lambda device=device: veloflow_rate(own, 64, IMAGES, device)
        for device in ("numpy", "opencl")
    }
    found = beside_torch("conv", 64, ours, turns=3)
    with capsys.disabled():
        print(f"\nconvolutional net, batch 64, samples/s: {words_of(found)}")
