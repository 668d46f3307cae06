"""The same bits on every engine, and after a worker is killed by the engine's own means."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_runs import LONG, children_running, has_child, run_on

from veloflow.runtime.launcher_conformance import check_launcher

pytestmark = pytest.mark.engines


def test_dask(dask_client, local):
    assert run_on(dask_client).sha256 == local


def test_dask_by_address(dask_client, local):
    options = {"address": dask_client.scheduler.address}
    assert run_on("dask", engine_options=options, slaves=0).sha256 == local


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


# -- SSH: a server in this process ----------------------------------------------------------------


@pytest.fixture
def ssh_server(tmp_path):
    """Give the options that reach an SSH server of this test's own."""
    asyncssh = pytest.importorskip("asyncssh")
    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user.write_private_key(tmp_path / "user")
    (tmp_path / "user").chmod(0o600)
    user.write_public_key(tmp_path / "authorized")

    async def handle(process):
        child = await asyncio.create_subprocess_shell(
            process.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        await process.redirect(stdin=child.stdin, stdout=child.stdout)
        process.exit(await child.wait())

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen():
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], process_factory=handle, encoding=None,
            authorized_client_keys=str(tmp_path / "authorized"),
        )  # fmt: skip

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    port = server.get_port()
    public = host.export_public_key().decode().strip()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    yield {
        "hosts": "127.0.0.1:2", "port": port, "python": sys.executable,
        "known_hosts": str(tmp_path / "known"), "identity": str(tmp_path / "user"),
    }  # fmt: skip

    async def close():
        server.close()
        await server.wait_closed()

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_ssh(ssh_server, local):
    assert run_on("ssh", engine_options=ssh_server).sha256 == local


def test_ssh_refuses_a_host_that_it_does_not_know(ssh_server, tmp_path):
    from veloflow.errors import ClusterError

    (tmp_path / "known").write_text("")
    with pytest.raises(ClusterError, match="not trusted"):
        run_on("ssh", engine_options=ssh_server)


# -- Slurm: a controller and a daemon of this test's own -----------------------------------------


_SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/pgid
ReturnToService=2
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Start munge, a controller and a daemon of Slurm in a folder; give the folder."""
    import getpass
    import platform
    import socket

    for word in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(word, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"no {word}: apt-get install slurm-wlm munge")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    text = _SLURM.format(
        host=platform.node(), folder=folder, user=getpass.getuser(), cpus=os.cpu_count(),
        ctld=ports[0], slurmd=ports[1],
    )  # fmt: skip
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    subprocess.run(["munged", "--force", f"--socket={folder}/munge.socket", *munge], check=True)
    daemons = [subprocess.Popen([name, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for name in ("slurmctld", "slurmd")]  # fmt: skip
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
            if found.stdout.strip() == "idle":
                break
            time.sleep(0.2)
        monkeypatch.chdir(tmp_path)
        yield folder
    finally:
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:  # slurmd waits for what a job left, at its leisure
                daemon.kill()
                daemon.wait()
        os.kill(int((folder / "munge.pid").read_text()), signal.SIGTERM)


def test_slurm(slurm, local, tmp_path):
    assert run_on("slurm").sha256 == local
    assert [path for path in tmp_path.iterdir() if "veloflow" in path.name] == []


# -- more and fewer slaves in the middle of a run -------------------------------------------------


def test_dask_adds_and_takes_workers(local_long):
    import distributed

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as one,
        distributed.Client(one, set_as_default=False) as client,
    ):

        def scale():
            one.scale(3)
            client.wait_for_workers(3, timeout=60)
            time.sleep(5)
            one.scale(1)

        seen = run_on(client, kill=scale, slaves=0, epochs=400, workflow=LONG, pause=0.1)
    assert seen.sha256 == local_long
    assert len(seen.slaves) >= 2


def test_dask_conforms(dask_client):
    check_launcher("dask", {"address": dask_client.scheduler.address})


def test_ray_conforms(ray_cluster):
    check_launcher("ray", handle=ray_cluster)


def test_spark_conforms(spark_context):
    check_launcher("spark", handle=spark_context)


def test_ssh_conforms(ssh_server):
    check_launcher("ssh", ssh_server)


def test_mpi_conforms():
    beside = Path(sys.executable).parent / "mpiexec"
    if not (shutil.which("mpiexec") or beside.is_file()):
        pytest.skip("no mpiexec")
    check_launcher("mpi")


def test_slurm_conforms(slurm):
    check_launcher("slurm")
