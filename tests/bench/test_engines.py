"""Slaves on engines: from the command to the first job, and from a kill to a new slave's first."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_runs import LONG, children_running, has_child
from local_engines import dask_on_this_machine, ray_on_this_machine, spark_on_this_machine

import veloflow
from veloflow.core import EpochDone
from veloflow.errors import UnitError, VeloflowError

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

_ROUNDS = 5
#: seconds in which each thing that is waited for has to happen
_LIMIT = 60.0


@pytest.fixture
def dask_client():
    """Give a client of a Dask cluster of two worker processes."""
    with dask_on_this_machine() as client:
        yield client


@pytest.fixture
def ray_cluster():
    """Give the module ray, connected to a cluster of this machine."""
    with ray_on_this_machine() as ray:
        yield ray


@pytest.fixture
def spark_context():
    """Give a Spark context with two threads on this machine."""
    with spark_on_this_machine() as context:
        yield context


def slaves_at_work(story: Path) -> set[str]:
    """Return the slaves that have got a job, as the master tells while it runs."""
    if not story.exists():
        return set()
    lines = story.read_text().splitlines()
    return {line.split()[1] for line in lines if " got " in line}


def wait_for_another(story: Path, known: set[str]) -> None:
    until = time.monotonic() + _LIMIT
    while slaves_at_work(story) <= known:
        assert time.monotonic() < until, "no new slave got a job"
        time.sleep(0.005)


def seconds_to_first_job(folder: Path, *words: str) -> float:
    """Run the command, and return after how long a slave had its first job."""
    story = folder / "story"
    story.unlink(missing_ok=True)
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "veloflow", "run", "digits_mlp", "epochs=1", "--device", "numpy",
         "--slaves", "1", "--story", str(story), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        wait_for_another(story, set())
        found = time.monotonic() - began
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    return found


def report_start(engine: str, folder: Path, *words: str) -> None:
    """Measure starts on an engine and on this machine in turns, and print both."""
    options = ("--on", engine, *words)
    rounds = [(seconds_to_first_job(folder), seconds_to_first_job(folder, *options))
              for _ in range(_ROUNDS)]  # fmt: skip
    for name, seconds in zip(("a local slave", engine), zip(*rounds, strict=True), strict=True):
        print(f"\n{name}: first job {show(seconds)} after the command", end="")


def report_kills(engine: object, folder: Path, find) -> None:
    """Kill what ``find`` returns in a run of two slaves, again; print when others worked."""
    story, found, faults = folder / "kills", [], []

    def strike():
        try:
            wait_for_another(story, set())
            time.sleep(1.0)
            for _ in range(_ROUNDS):
                known = slaves_at_work(story)
                victim = find()
                began = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                wait_for_another(story, known)
                found.append(time.monotonic() - began)
                time.sleep(1.0)
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=strike)

    class EnoughError(VeloflowError):
        """All was seen."""

    def look(event):
        time.sleep(0.02)  # leaves some of the two cores to the one that starts
        if not thread.is_alive():
            raise EnoughError

    def watch(session):
        session.events.subscribe(EpochDone, look)
        thread.start()

    with contextlib.suppress(UnitError, EnoughError):
        veloflow.run(LONG, epochs=10**6, device="numpy", on=engine, slaves=2, story=story,
                     watch=watch)  # fmt: skip
    thread.join()
    assert not faults, faults
    print(f"\na new slave's first job {show(found)} after the kill")


def show(seconds) -> str:
    rounds = ", ".join(f"{one:.2f}" for one in seconds)
    return f"{statistics.median(seconds):.2f} s ({rounds})"


def test_start_on_dask(dask_client, tmp_path):
    report_start("dask", tmp_path, "--engine-option", f"address={dask_client.scheduler.address}")


def test_a_worker_of_dask_dies(dask_client, tmp_path):
    def find():
        return next(iter(dask_client.run(os.getpid).values()))

    report_kills(dask_client, tmp_path, find)


def test_start_on_ray(ray_cluster, tmp_path):
    address = ray_cluster.get_runtime_context().gcs_address
    report_start("ray", tmp_path, "--engine-option", f"address={address}")


def test_an_actor_of_ray_dies(ray_cluster, tmp_path):
    def find():
        return children_running("_Slave")[0]

    report_kills(ray_cluster, tmp_path, find)


def test_start_on_spark(tmp_path):
    pytest.importorskip("pyspark")
    report_start("spark", tmp_path)


def test_a_worker_of_spark_dies(spark_context, tmp_path):
    def find():
        workers = children_running("pyspark.daemon")
        return next(one for one in workers if has_child(one, "veloflow"))

    report_kills(spark_context, tmp_path, find)
