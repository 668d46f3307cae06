"""A folder of checkpoints belongs to one run at a time, until it ends in whatever way."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import veloflow
from veloflow.errors import StorageError
from veloflow.runtime.storage.claim import claimed

HOLDS = """
import pathlib, sys, time
from veloflow.runtime.storage.claim import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_in_another_process_is_in_the_way_until_it_is_killed(tmp_path):
    folder = tmp_path / "saved"
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="another run"):
            veloflow.run("digits_mlp", options={"epochs": 1}, checkpoint=folder)
        assert list(folder.iterdir()) == []
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate(timeout=30)
    with claimed(folder):
        pass
    veloflow.run("digits_mlp", options={"epochs": 1}, checkpoint=folder)


def test_a_folder_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "new"):
        _ = 1 / 0
    with claimed(tmp_path / "new"):
        pass
