"""Slaves on engines: from the command to the first slave, and from a kill to the next one."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time

import pytest
from engine_runs import LONG, children_running, run_on

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

_ROUNDS = 3


@pytest.fixture(scope="module")
def dask_client():
    """Give a client of a Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def ray_cluster():
    """Give the module ray, connected to a cluster of this machine."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def seconds_to_first_slave(*words: str):
    """Run the command, and return after how long its first slave had joined."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "veloflow", "run", "digits_mlp", "epochs=1", "--device", "numpy",
         "--slaves", "2", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        found = [time.monotonic() - began for line in process.stdout if "joined" in line]
    assert process.returncode == 0
    return found[0]


def report(what, local, engine):
    print(
        f"\n{what}: {statistics.median(engine):.2f} s to the first slave "
        f"(local slaves {statistics.median(local):.2f} s)"
    )


def test_start_on_dask(dask_client):
    words = ("--on", "dask", "--engine-option", f"address={dask_client.scheduler.address}")
    rounds = [(seconds_to_first_slave(), seconds_to_first_slave(*words)) for _ in range(_ROUNDS)]
    report("Dask", *zip(*rounds, strict=True))


def test_start_on_ray(ray_cluster):
    words = (
        "--on",
        "ray",
        "--engine-option",
        f"address={ray_cluster.get_runtime_context().gcs_address}",
    )
    rounds = [(seconds_to_first_slave(), seconds_to_first_slave(*words)) for _ in range(_ROUNDS)]
    report("Ray", *zip(*rounds, strict=True))


def seconds_to_next_slave(engine, kill):
    seen = run_on(engine, kill=kill, epochs=400, workflow=LONG)
    killed = seen.when("KILLED")
    return seen.when("joined", after=killed) - killed


def test_a_worker_of_dask_dies(dask_client):
    def kill():
        os.kill(next(iter(dask_client.run(os.getpid).values())), signal.SIGKILL)

    found = [seconds_to_next_slave(dask_client, kill) for _ in range(_ROUNDS)]
    print(f"\nDask: a new slave {statistics.median(found):.2f} s after the kill")


def test_an_actor_of_ray_dies(ray_cluster):
    def kill():
        os.kill(children_running("_Slave")[0], signal.SIGKILL)

    found = [seconds_to_next_slave(ray_cluster, kill) for _ in range(_ROUNDS)]
    print(f"\nRay: a new slave {statistics.median(found):.2f} s after the kill")
