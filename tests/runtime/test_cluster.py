"""Real slaves: the same bits whatever happens to them, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import veloflow
from tests.runtime.slaves import VELOFLOW, Trouble, resumed_after_a_kill
from veloflow.core import EpochDone, Message
from veloflow.errors import ClusterError, DefinitionError, InputError, OptionError

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OPTIONS = {"epochs": 3, "hidden": 20}


@pytest.fixture(scope="module")
def alone():
    """The parameters of a run alone with the same shards."""
    run = veloflow.run("digits_mlp", device="numpy", sharing="sync:shards=4", **OPTIONS)
    return run.parameters_sha256


@pytest.fixture(autouse=True)
def leaves_nothing():
    before = set(leftovers())
    yield
    until = time.monotonic() + 5
    while set(leftovers()) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert set(leftovers()) - before == set()


def is_ours(janitor):
    """Whether the run that a janitor works for is of this installation, or gone."""
    try:
        parent = Path("/proc") / (janitor / "stat").read_text().rsplit(")", 1)[1].split()[1]
        word = (parent / "cmdline").read_bytes().split(b"\0")[0].decode()
        where = os.path.normpath((parent / "cwd").readlink() / word)
    except (OSError, IndexError):
        return True
    return parent.name == "1" or where == sys.executable


def leftovers():
    """Processes of slaves and folders of runs, without those of other installations."""
    found, foreign = {}, set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            folders = set(re.findall(r"/dev/shm/veloflow-\w+", " ".join(words)))
            if ("slave" in words and words[0] != sys.executable) or (
                "veloflow-janitor" in words and not is_ours(process)
            ):
                foreign |= folders
            elif "slave" in words or "veloflow-janitor" in words:
                found[f"process {process.name}: {' '.join(words)}"] = folders
    yield from (text for text, folders in found.items() if not folders & foreign)
    yield from {str(one) for one in Path("/dev/shm").glob("veloflow-*")} - foreign


def run(**options):
    given = {"device": "numpy", "sharing": "sync:shards=4", **OPTIONS, **options}
    return veloflow.run("digits_mlp", **given)


def until_here(count, said=None):
    """Return what makes a run pause after its epochs until so many slaves have joined.

    What it says is added to ``said``. It needs some epochs, for who comes is seen between them.
    """
    said = [] if said is None else said

    def pause(done):
        if sum(" joined" in one for one in said) < count:
            time.sleep(0.5)

    def watch(session):
        session.events.subscribe(Message, lambda one: said.append(one.text))
        session.events.subscribe(EpochDone, pause)

    return watch


@pytest.mark.parametrize("slaves", [1, 2, 4])
def test_the_same_bits_with_any_number_of_slaves(alone, slaves):
    result = run(slaves=slaves)
    assert result.parameters_sha256 == alone
    assert len(result.more["slaves"]) <= slaves
    assert result.more["jobs"]["accepted"] < 4 * (24 + 6) * 3 + 4 * 6  # a piece for each shard
    assert result.more["ahead"]["blocks"] >= 3
    assert result.more["ahead"]["abandoned"] == 0


def test_the_same_bits_over_tcp_without_shared_memory(alone, monkeypatch):
    """A slave that cannot reach the folder gets parameters in frames."""
    master = subprocess.Popen(
        [*VELOFLOW, "run", "digits_mlp", "--device", "numpy", "--sharing", "sync:shards=4",
         "--listen", "tcp://127.0.0.1:0", "--json", *(f"{k}={v}" for k, v in OPTIONS.items())],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = iter(master.stdout)
    address = next(line for line in lines if "slaves join with" in line).split()[-1].strip('"}')
    hidden = {**os.environ, "VELOFLOW_NO_SHARED_MEMORY": "1"}
    joined = [
        subprocess.Popen([*VELOFLOW, "slave", address, "--device", "numpy", "-q"], env=hidden)
        for _ in range(2)
    ]
    ends = [json.loads(line) for line in lines]
    assert master.wait(60) == 0
    assert [one.wait(10) for one in joined] == [0, 0]
    master.stdout.close()
    result = next(one for one in ends if "parameters_sha256" in str(one))
    assert alone in json.dumps(result)


def test_async_applies_each_sample_once_and_tells_staleness():
    result = run(slaves=2, sharing="async")
    assert [record["train"]["samples"] for record in result.epochs[1:]] == [1437] * 3
    assert result.more["staleness"]["max"] >= 0
    assert sum(result.more["staleness"]["counts"].values()) == 24 * 3
    assert result.best["validation_error_percent"] < 15


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_the_same_bits_when_slaves_are_killed_stopped_or_asked_to_leave(number):
    expected = run(epochs=40).parameters_sha256
    trouble = Trouble("slave", number, 0.3, 3)
    trouble.start()
    result = run(epochs=40, slaves=3, patience=0.5, watch=trouble.watch)
    trouble.over.set()
    trouble.join()
    assert trouble.done >= 2
    assert result.parameters_sha256 == expected


def test_a_definition_that_slaves_cannot_find_is_refused():
    def build(wf):
        wf.start >> wf.end

    with pytest.raises(DefinitionError, match=r"put build\(\) into a file"):
        veloflow.run(build, slaves=1)


def test_a_device_that_slaves_do_not_have_ends_the_run_with_their_reason():
    with pytest.raises(ClusterError, match="no device"):
        run(slaves=1, device="nonsense", patience=0.1)


def test_a_busy_address_is_named():
    with pytest.raises(
        InputError, match=r"cannot listen on tcp://127\.0\.0\.1:99999: there is no such port"
    ):
        run(listen=["tcp://127.0.0.1:99999"])


def test_a_wrong_mode_is_named():
    with pytest.raises(OptionError, match="no mode 'sink'"):
        run(slaves=1, sharing="sink")


def test_a_stranger_with_another_definition_is_refused(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        "from veloflow.workflows.digits_mlp import build as whole\n"
        "def build(wf, *, epochs: int = 200) -> None:\n    whole(wf, epochs=epochs)\n"
    )
    command = [*VELOFLOW, "run", str(own), "--slaves", "1", "--listen", "tcp://127.0.0.1:0",
               "--device", "numpy", "--json"]  # fmt: skip
    master = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = iter(master.stdout)
    address = next(line for line in lines if "slaves join with" in line).split()[-1].strip('"}')
    next(line for line in lines if " joined: " in line)
    own.write_text(own.read_text() + "# changed\n")
    late = subprocess.run(
        [*VELOFLOW, "slave", address, "--device", "numpy"], capture_output=True, text=True
    )
    rest = list(lines)
    assert master.wait(60) == 0
    master.stdout.close()
    assert late.returncode == 1
    assert "its definition, its options or its version" in late.stderr
    assert any("is refused" in line for line in rest)


def test_ctrl_c_stops_cleanly_and_resume_gives_the_same_bits(tmp_path):
    expected = run(epochs=60).parameters_sha256
    command = [*VELOFLOW, "run", "digits_mlp", "epochs=60", "hidden=20", "--device", "numpy",
               "--sharing", "sync:shards=4", "--slaves", "2", "--checkpoint", str(tmp_path / "c"),
               "--result", str(tmp_path / "r.json")]  # fmt: skip
    master = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
    for line in master.stdout:
        if '"epoch": 5' in line:
            master.send_signal(signal.SIGINT)
            break
    master.stdout.read()
    master.stdout.close()
    assert master.wait(30) == 130
    subprocess.run([*command, "--resume", "-q"], check=True)
    assert json.loads((tmp_path / "r.json").read_text())["parameters_sha256"] == expected


def test_a_killed_master_takes_its_slaves_back(tmp_path):
    """ray-project/kuberay#1141, ray#46814: slaves outlive their master and serve the next one."""
    expected = run(epochs=200).parameters_sha256
    result = resumed_after_a_kill(
        tmp_path, 2, ["epochs=200", "hidden=20", "--sharing", "sync:shards=4"], timeout=90
    )
    assert result["parameters_sha256"] == expected
    assert len(result["slaves"]) == 2


def test_a_run_that_is_paused_with_ctrl_z_goes_on(tmp_path):
    """SIGTSTP stops the master; its slaves wait for it, and nobody is judged for the silence."""
    expected = run(epochs=60).parameters_sha256
    command = [*VELOFLOW, "run", "digits_mlp", "epochs=60", "hidden=20", "--device", "numpy",
               "--sharing", "sync:shards=4", "--slaves", "2", "--json",
               "--result", str(tmp_path / "r.json")]  # fmt: skip
    master = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    said = []
    for line in master.stdout:
        said.append(line)
        if '"epoch": 5' in line:
            os.kill(master.pid, signal.SIGSTOP)  # a shell's Ctrl-Z, without its terminal
            time.sleep(5)
            os.kill(master.pid, signal.SIGCONT)
            break
    said += list(master.stdout)
    assert master.wait(60) == 0, said[-3:]
    master.stdout.close()
    assert not [line for line in said if " is lost" in line or "put out" in line]
    assert json.loads((tmp_path / "r.json").read_text())["parameters_sha256"] == expected
