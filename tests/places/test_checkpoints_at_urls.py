"""Checkpoints at URLs: a pointer names what is whole, whenever the writer dies."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from web_folder import served

import veloflow
from veloflow.cli import main
from veloflow.errors import CheckpointError, DataError, InputError, OptionError
from veloflow.places import place_of
from veloflow.runtime.storage.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from veloflow.runtime.storage.store import CheckpointStore
from veloflow.units import digits

pytest.importorskip("fsspec")


def _checkpoint(number):
    return Checkpoint(
        workflow="w", options={}, settings={}, flow={}, units={"u": {"number": number}},
        parameters={"w": np.full(1000, number, np.float32)},
    )  # fmt: skip


def _number(place, *, best=False):
    return read_checkpoint(find_checkpoint(place, best=best)).units["u"]["number"]


def test_the_last_and_the_best_are_found_and_old_objects_go():
    folder = place_of("memory://kept/run")
    store = CheckpointStore(folder)
    assert not store.has_any
    for number in range(6):
        store.save(_checkpoint(number), is_best=number in (1, 2))
        assert store.has_any
        assert _number(folder) == number
        assert _number(folder, best=True) == (0 if number == 0 else min(number, 2))
    assert len(list((folder / "objects").iterdir())) == 3  # the last, the one before, the best


def test_what_a_dead_writer_left_is_removed_by_the_next():
    folder = place_of("memory://left/run")
    (folder / "objects" / "dead.safetensors").write([b"half"])
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        find_checkpoint(folder)
    CheckpointStore(folder).save(_checkpoint(1), is_best=False)
    assert len(list((folder / "objects").iterdir())) == 1
    assert _number(folder) == 1


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "last.json").write([b"{"]), "is no pointer"),
        (lambda folder: next((folder / "objects").iterdir()).unlink(), "which is gone"),
        (lambda folder: next((folder / "objects").iterdir()).write([b"x"]), "has 1 bytes"),
    ],
)
def test_a_damaged_folder_is_told(harm, says):
    folder = place_of("memory://harmed/run")
    CheckpointStore(folder).save(_checkpoint(1), is_best=False)
    harm(folder)
    with pytest.raises(CheckpointError, match=says):
        _number(folder)


# A store whose objects grow in their place; the writer dies before, in or after one of its writes.
_WRITER = """
import os, signal, sys
import fsspec, numpy as np
from fsspec.implementations.local import LocalFileSystem

where, left, when = sys.argv[1], None, sys.argv[3]

class Dying(LocalFileSystem):
    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(str(path).removeprefix("dying://"))

    def pipe_file(self, path, value, **more):
        global left
        left = None if left is None else left - 1
        share = {"before": None, "half": len(value) // 2, "after": len(value)}[when]
        if left != -1 or share is not None:
            with open(self._strip_protocol(path), "wb") as file:
                file.write(value if left != -1 else value[:share])
        if left == -1:
            os.kill(os.getpid(), signal.SIGKILL)

fsspec.register_implementation("dying", Dying)

from veloflow.places import place_of
from veloflow.runtime.storage.checkpoint import Checkpoint
from veloflow.runtime.storage.store import CheckpointStore

def checkpoint(number):
    arrays = {"w": np.full(1000, number, np.float32)}
    return Checkpoint("w", {}, {}, {}, {"u": {"number": number}}, arrays)

store = CheckpointStore(place_of("dying://" + where))
store.save(checkpoint(1), is_best=True)
left = int(sys.argv[2])
store.save(checkpoint(2), is_best=False)
"""


@pytest.mark.parametrize(
    ("writes", "when", "found"),
    [(0, "half", 1), (0, "after", 1), (1, "before", 1), (1, "after", 2)],
)
def test_a_writer_killed_in_the_middle_leaves_the_checkpoint_before(tmp_path, writes, when, found):
    folder = tmp_path / "run"
    line = [sys.executable, "-c", _WRITER, str(folder), str(writes), when]
    died = subprocess.run(line, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert len(list((folder / "objects").iterdir())) == 2
    with served(tmp_path) as (address, _):
        assert _number(place_of(f"{address}/run")) == found
        assert _number(place_of(f"{address}/run"), best=True) == 1


def test_a_resumed_run_ends_with_the_same_bits():
    whole = veloflow.run("digits_mlp", device="numpy", epochs=4)
    where = "memory://resumed/run"
    with pytest.raises(KeyboardInterrupt):
        veloflow.run("digits_mlp", device="numpy", epochs=4, checkpoint=where, watch=_stopping)
    again = veloflow.run("digits_mlp", device="numpy", resume=where)
    assert again.parameters_sha256 == whole.parameters_sha256
    assert again.epochs == whole.epochs


def _stopping(session):
    """Die in the third epoch, without a farewell."""
    from veloflow.core import EpochDone

    def hear(event):
        if event.record["epoch"] == 2:
            raise KeyboardInterrupt

    session.events.subscribe(EpochDone, hear)


def test_a_checkpoint_at_the_web_is_read_and_predicted_with(tmp_path):
    run = veloflow.run(
        "digits_mlp", device="numpy", epochs=2, checkpoint=tmp_path / "here", result=tmp_path / "r"
    )
    data, _ = digits()
    pl.DataFrame({f"p{n}": data[:, n] for n in range(data.shape[1])}).write_csv(tmp_path / "x.csv")
    with served(tmp_path) as (address, _):
        for source in (f"{address}/here", f"{address}/here/best.safetensors"):
            words = ["predict", source, f"{address}/x.csv", "-o", "memory://out/p.parquet", "-q"]
            done = CliRunner().invoke(main, [*words, "--device", "numpy"])
            assert done.exit_code == 0, done.output
        again = veloflow.run(
            "digits_mlp", device="numpy", resume=f"{address}/here/last.safetensors"
        )
    found = pl.read_parquet(place_of("memory://out/p.parquet").read_bytes())
    assert len(found) == len(data)
    assert again.parameters_sha256 == run.parameters_sha256


def test_the_command_line_takes_a_place_after_resume(tmp_path):
    def call(*words: str):
        found = CliRunner().invoke(main, ["run", *words, "--device", "numpy", "-q"])
        assert found.exit_code == 0, found.output

    call("digits_mlp", "epochs=1", "--checkpoint", "memory://cli/run")
    call("--resume", "memory://cli/run", "digits_mlp")
    call("digits_mlp", "--checkpoint", "memory://cli/run", "--resume")
    call("digits_mlp", "epochs=1", "--checkpoint", str(tmp_path / "saved"))
    call("--resume", str(tmp_path / "saved"), "digits_mlp", "--result", "memory://cli/r.json")
    call("--checkpoint", str(tmp_path / "saved"), "--resume", "digits_mlp")
    assert place_of("memory://cli/r.json").is_file()


def test_what_cannot_be_is_told():
    with pytest.raises(OptionError, match="local folder"):
        veloflow.run("digits_mlp", checkpoint="memory://x", undo_spoiled=True, audit=0.1, slaves=2)
    with pytest.raises(InputError, match="only read"):
        veloflow.run("digits_mlp", device="numpy", checkpoint="http://127.0.0.1:1/run")
    with pytest.raises(DataError, match="cannot read"):
        veloflow.run("digits_mlp", device="numpy", resume="http://127.0.0.1:1/run")
