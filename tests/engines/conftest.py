"""Real engines on this machine: their clusters."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from engine_runs import LONG, run_on
from local_engines import dask_on_this_machine, ray_on_this_machine, spark_on_this_machine


@pytest.fixture(scope="session")
def local():
    """Return the bits that local slaves give after 3 epochs."""
    return run_on(None).sha256


@pytest.fixture(scope="session")
def local_long():
    """Return the bits that local slaves give after 400 epochs."""
    return run_on(None, epochs=400, workflow=LONG).sha256


@pytest.fixture(scope="session")
def dask_client():
    """Give a client of a Dask cluster of two worker processes."""
    with dask_on_this_machine() as client:
        yield client


@pytest.fixture(scope="session")
def ray_cluster():
    """Give the module ray, connected to a cluster of this machine."""
    with ray_on_this_machine() as ray:
        yield ray


@pytest.fixture(scope="session")
def spark_context():
    """Give a Spark context with two threads on this machine."""
    with spark_on_this_machine() as context:
        yield context


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
        await process.wait_closed()

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
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=10)

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


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


# -- Kubernetes: kubectl and an API server of this machine's own -----------------------------------


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """Put a kubectl first in PATH whose pods are processes of this machine; give its folder."""
    import kubectl_here

    folder, program = tmp_path / "cluster", tmp_path / "bin" / "kubectl"
    folder.mkdir()
    program.parent.mkdir()
    words = shlex.join([sys.executable, kubectl_here.__file__, str(folder)])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return folder
