"""The journal: what was done is found again, whatever happened to the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import veloflow
from tests.runtime.test_cluster import leaves_nothing  # noqa: F401
from veloflow.errors import Interrupted
from veloflow.runtime.storage.journal import FileJournal

SLOW = """
import time
from pathlib import Path
from veloflow import Workflow
from veloflow.units import FarmMap

def call(number, log):
    time.sleep(0.03)
    with open(log, "a") as file:
        file.write(f"{number}\\n")
    return {"square": number * number}

def build(wf: Workflow, *, log: str, items: int = 60) -> None:
    given = [{"number": number, "log": log} for number in range(items)]
    farm = FarmMap(wf, call, items=given, name="map")
    wf.start >> farm >> wf.end
"""


class Unit:
    path = "map"


def journal(path, checksum="same", *, goes_on=True, said=None, is_stopping=lambda: False):
    say = [].append if said is None else said.append
    return FileJournal(path, checksum, goes_on=goes_on, say=say, is_stopping=is_stopping)


@pytest.fixture
def path(tmp_path):
    one = journal(tmp_path / "journal")
    one.add(Unit, {"x": 1}, {"y": 2.5, "row": np.arange(3)})
    one.add(Unit, {"x": np.ones(2)}, {"names": ["a", "b"]})
    one.close()
    return tmp_path / "journal"


def test_results_are_found_by_their_item(path):
    said = []
    one = journal(path, said=said)
    found = one.find(Unit, {"x": 1})
    assert found["y"] == 2.5
    assert found["row"].tolist() == [0, 1, 2]
    assert one.find(Unit, {"x": np.ones(2)}) == {"names": ["a", "b"]}
    assert one.find(Unit, {"x": 2}) is None
    assert said == ["2 results of the run before are in its journal"]
    one.close()


def test_another_definition_or_option_finds_nothing(path):
    one = journal(path, "other")
    assert one.find(Unit, {"x": 1}) is None
    one.close()


def test_a_run_that_is_not_resumed_begins_anew(path):
    one = journal(path, goes_on=False)
    assert one.find(Unit, {"x": 1}) is None
    one.close()
    assert path.stat().st_size == 0


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_record_that_was_cut_short_is_left_out(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    one = journal(path)
    assert one.find(Unit, {"x": 1}) is not None
    assert one.find(Unit, {"x": np.ones(2)}) is None
    one.add(Unit, {"x": np.ones(2)}, {"names": ["a", "b"]})
    one.close()
    assert path.read_bytes() == whole


def test_a_damaged_record_and_all_after_it_are_left_out(path):
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    one = journal(path)
    assert one.find(Unit, {"x": 1}) is None
    one.close()


def test_after_a_checkpoint_it_is_empty(path):
    one = journal(path)
    one.restart()
    assert one.find(Unit, {"x": 1}) is None
    one.close()
    assert path.stat().st_size == 0


def test_a_full_disk_is_told_once(path):
    said = []
    one = journal(path, goes_on=False, said=said)
    one.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        one._file = full
        for number in range(3):
            one.add(Unit, {"x": number}, {"y": 1})
    assert len(said) == 1
    assert "No space left" in said[0]


def test_the_user_may_end_the_run_between_two_items(path):
    one = journal(path, is_stopping=lambda: True)
    with pytest.raises(Interrupted, match="--resume"):
        one.add(Unit, {"x": 5}, {"y": 5})
    one.close()
    again = journal(path)
    assert again.find(Unit, {"x": 5}) == {"y": 5}
    again.close()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("slaves", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_amid_a_long_unit_does_nothing_twice(tmp_path, slaves, number):
    (tmp_path / "slow.py").write_text(SLOW)
    log, folder = tmp_path / "log", tmp_path / "saved"
    log.touch()
    command = [
        *(sys.executable, "-P", "-m", "veloflow", "run", str(tmp_path / "slow.py"), f"log={log}"),
        *("--device", "numpy", "--checkpoint", str(folder), "--slaves", str(slaves), "-q"),
    ]
    master = subprocess.Popen(command, stderr=subprocess.PIPE)
    while len(log.read_text().splitlines()) < 20:
        assert master.poll() is None
    os.kill(master.pid, number)
    _, errors = master.communicate(timeout=20)
    assert master.returncode == (-9 if number == signal.SIGKILL else 130)
    assert (b"--resume" in errors) == (number == signal.SIGINT)
    done = len(log.read_text().splitlines())
    assert done < 50
    graph = veloflow.run(
        tmp_path / "slow.py", log=str(log), device="numpy", checkpoint=folder, resume=True,
        slaves=slaves,
    ).graph  # fmt: skip
    assert [one["square"] for one in graph["map"].outputs] == [n * n for n in range(60)]
    calls = [int(line) for line in log.read_text().splitlines()]
    assert set(calls) == set(range(60))
    assert len(calls) <= 60 + 4 * max(slaves, 1)  # what was in flight, and no more
