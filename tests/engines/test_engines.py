"""The same bits on every engine, and after a worker is killed by the engine's own means."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from engine_runs import LONG, children_running, has_child, run_on

from veloflow.errors import EngineError
from veloflow.runtime.engine import Engine
from veloflow.runtime.launcher_conformance import check_launcher

pytestmark = pytest.mark.engines


def test_dask(dask_client, local):
    assert run_on(dask_client).sha256 == local


def test_dask_by_address(dask_client, local):
    options = {"address": dask_client.scheduler.address}
    assert run_on("dask", engine_options=options, slaves=0).sha256 == local


def test_slaves_that_the_command_has_dask_start_early(dask_client, local, tmp_path):
    address = f"address={dask_client.scheduler.address}"
    words = [sys.executable, "-P", "-m", "veloflow", "run", "digits_mlp", "--device", "numpy",
             "--on", "dask", "--engine-option", address]  # fmt: skip
    result = tmp_path / "result.json"
    more = ["epochs=3", "--slaves", "2", "--result", str(result)]
    subprocess.run([*words, *more], check=True, timeout=60)
    assert msgspec.json.decode(result.read_bytes())["parameters_sha256"] == local
    done = subprocess.run([*words, "hiden=3"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    until = time.monotonic() + 5  # its worker looks four times a second whether it is wanted
    while children_running("veloflow slave") and time.monotonic() < until:
        time.sleep(0.1)
    assert children_running("veloflow slave") == []


def test_dask_loses_a_worker(dask_client, local_long):
    def kill():
        pids = dask_client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    seen = run_on(dask_client, kill=kill, epochs=400, workflow=LONG)
    assert seen.sha256 == local_long
    assert seen.when("joined", after=seen.when("KILLED")) > 0


def test_ray(ray_cluster, local):
    assert run_on(ray_cluster).sha256 == local


def test_ray_loses_an_actor(ray_cluster, local_long):
    def kill():
        for pid in children_running("_Slave"):
            os.kill(pid, signal.SIGKILL)
            return
        raise AssertionError("no actor of Ray has a slave")

    seen = run_on(ray_cluster, kill=kill, epochs=400, workflow=LONG)
    assert seen.sha256 == local_long
    assert seen.when("joined", after=seen.when("KILLED")) > 0


def test_spark(spark_context, local):
    assert run_on(spark_context).sha256 == local


def test_spark_loses_a_worker(spark_context, local_long):
    def kill():
        for pid in children_running("pyspark.daemon"):
            if has_child(pid, "veloflow"):
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError("no worker of Spark has a slave")

    seen = run_on(spark_context, kill=kill, epochs=400, workflow=LONG)
    assert seen.sha256 == local_long
    assert seen.when("joined", after=seen.when("KILLED")) > 0


def test_mpi(local):
    beside = Path(sys.executable).parent / "mpiexec"
    if not (shutil.which("mpiexec") or beside.is_file()):
        pytest.skip("no mpiexec")
    assert run_on("mpi").sha256 == local


def test_ssh(ssh_server, local):
    assert run_on("ssh", engine_options=ssh_server).sha256 == local


def test_ssh_refuses_a_host_that_it_does_not_know(ssh_server, tmp_path):
    from veloflow.errors import ClusterError

    (tmp_path / "known").write_text("")
    with pytest.raises(ClusterError, match="not trusted"):
        run_on("ssh", engine_options=ssh_server)


def test_slurm(slurm, local, tmp_path):
    assert run_on("slurm").sha256 == local
    assert [path for path in tmp_path.iterdir() if "veloflow" in path.name] == []


# -- more and fewer slaves in the middle of a run -------------------------------------------------


def test_dask_adds_and_takes_workers(local_long):
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as one,
        distributed.Client(one, set_as_default=False) as client,
    ):

        def scale():
            one.scale(3)
            client.wait_for_workers(3, timeout=60)
            time.sleep(5)
            one.scale(1)

        seen = run_on(client, kill=scale, slaves=0, epochs=400, workflow=LONG, pause=0.4)
    assert seen.sha256 == local_long
    assert len(seen.slaves) >= 2


def test_dask_conforms(dask_client):
    check_launcher("dask", {"address": dask_client.scheduler.address})


def test_ray_conforms(ray_cluster):
    check_launcher("ray", handle=ray_cluster)


def test_ssh_conforms(ssh_server):
    check_launcher("ssh", ssh_server)


def test_mpi_conforms():
    beside = Path(sys.executable).parent / "mpiexec"
    if not (shutil.which("mpiexec") or beside.is_file()):
        pytest.skip("no mpiexec")
    check_launcher("mpi")


def test_slurm_conforms(slurm):
    check_launcher("slurm")


def test_spark_conforms(spark_context):
    check_launcher("spark", handle=spark_context)


KUBERNETES = {"image": "none", "host": "127.0.0.1", "python": sys.executable}


def test_kubernetes(kubectl, local):
    assert run_on("kubernetes", engine_options=KUBERNETES).sha256 == local
    assert list(kubectl.rglob("*.json")) == [], "the secret and the job are deleted"


def test_kubernetes_conforms(kubectl):
    check_launcher("kubernetes", KUBERNETES)


# -- what is wrong is said in one line, and nothing is left running --------------------------------


@pytest.mark.parametrize("fixture", ["dask_client", "ray_cluster", "spark_context"])
def test_nodes_with_another_version_end_the_run(request, fixture, monkeypatch):
    handle, offer = request.getfixturevalue(fixture), Engine.offer

    def of_another_version(self, address, **more):
        return msgspec.structs.replace(offer(self, address, **more), version="0.0.1")

    monkeypatch.setattr(Engine, "offer", of_another_version)
    with pytest.raises(EngineError, match=r"has veloflow .*the master has 0\.0\.1; install the"):
        run_on(handle)
    assert children_running("veloflow slave") == []


def test_a_node_with_another_python_is_told(dask_client, local, monkeypatch):
    offer = Engine.offer

    def of_another_python(self, address, **more):
        return msgspec.structs.replace(offer(self, address, **more), python="3.1")

    monkeypatch.setattr(Engine, "offer", of_another_python)
    seen = run_on(dask_client)
    assert seen.when("not 3.1) on") > 0
    assert seen.sha256 == local


def test_a_cluster_without_room_ends_the_run(ray_cluster, monkeypatch):
    with pytest.raises(EngineError, match="a slave needs 99 CPU and the cluster has 4; ask for"):
        run_on(ray_cluster, engine_options={"cpus": 99})
    import distributed

    monkeypatch.setattr("veloflow.runtime.launchers.dask._ANSWER", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        distributed.Client(empty, set_as_default=False) as client,
        pytest.raises(EngineError, match="had no worker for 1 s; start one with dask worker tcp"),
    ):
        run_on(client)
