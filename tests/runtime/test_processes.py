"""Local processes: their end is seen, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from veloflow.runtime.master.processes import Janitor, SlaveProcess, stop_all

pytestmark = pytest.mark.cluster


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true, limit=10.0):
    until = time.monotonic() + limit
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def janitor(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    one = Janitor(folder)
    yield one
    one.close()


def start(janitor, *arguments: str):
    return SlaveProcess.start(0, arguments, group=janitor.group, cores=1, environment={})


def test_the_end_of_a_process_is_seen_and_told(janitor):
    process = start(janitor, "nonsense", "--quiet")
    poller = __import__("select").poll()
    poller.register(process.sentinel)
    assert poller.poll(20_000)
    assert process.fate().startswith("exit code 2: veloflow: 'nonsense' is no address")
    process.close()


def test_a_killed_one_is_told_from_one_that_ended(janitor):
    process = start(janitor, "ipc:///nowhere/at/all")
    process.kill()
    assert process.fate() == "killed by SIGKILL"
    process.close()


def test_stopped_processes_are_ended_too(janitor):
    process = start(janitor, "ipc:///nowhere/at/all")
    os.kill(process.pid, signal.SIGSTOP)
    stop_all([process], grace=0.1)
    assert not is_alive(process.pid)


SCRIPT = """
import sys, time
from pathlib import Path
from veloflow.runtime.master.processes import Janitor, SlaveProcess
folder = Path(sys.argv[1])
janitor = Janitor(folder)
one = SlaveProcess.start(0, ["ipc:///nowhere"], group=janitor.group, cores=1, environment={})
print(janitor.group, one.pid, flush=True)
time.sleep(60)
"""


def test_when_the_master_is_killed_nothing_stays(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "board").write_text("x")
    master = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE)
    janitor, slave = map(int, master.stdout.readline().split())
    os.kill(slave, signal.SIGSTOP)
    master.kill()
    master.wait()
    master.stdout.close()
    wait_until(lambda: not is_alive(janitor) and not is_alive(slave) and not folder.exists())
