"""Checkpoints: whole or not at all, and a resumed run ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import veloflow
from veloflow.core import EpochDone
from veloflow.errors import CheckpointError, Interrupted, NotFoundError, StorageError
from veloflow.runtime.storage.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from veloflow.runtime.storage.files import write_atomically

if TYPE_CHECKING:
    from veloflow.runtime import Session


def _checkpoint() -> Checkpoint:
    return Checkpoint(
        workflow="w",
        options={"hidden": 3},
        settings={"seed": 1, "dtype": "float32"},
        flow={"queue": ["Repeater"], "arrived": {}},
        units={"Loader": {"order": np.arange(5, dtype=np.int32), "deep": [{"x": np.ones(2)}, 7]}},
        parameters={"fc/weights": np.full((2, 3), 0.5, np.float32)},
        seconds=1.5,
        reason="interval",
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    write_checkpoint(_checkpoint(), path)
    back = read_checkpoint(path)
    assert back.options == {"hidden": 3}
    assert back.flow == {"queue": ["Repeater"], "arrived": {}}
    assert back.units["Loader"]["order"].tolist() == [0, 1, 2, 3, 4]
    assert back.units["Loader"]["deep"][0]["x"].tolist() == [1, 1]
    assert back.units["Loader"]["deep"][1] == 7
    np.testing.assert_array_equal(back.parameters["fc/weights"], np.full((2, 3), 0.5))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.safetensors"
    write_checkpoint(_checkpoint(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged or cut short"):
        read_checkpoint(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    write_checkpoint(_checkpoint(), path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="digest"):
        read_checkpoint(path)


def test_another_safetensors_file_is_no_checkpoint(tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.ones(2)}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of veloflow"):
        read_checkpoint(path)
    with pytest.raises(NotFoundError):
        read_checkpoint(tmp_path / "nothing.safetensors")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, [b"old"])

    def chunks():
        yield b"half of the new"
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="the disk is full"):
        write_atomically(path, chunks())
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    # a folder that cannot grow: a file where the folder of the result should be
    (tmp_path / "taken").write_text("")
    done = _veloflow("run", "digits_mlp", "epochs=1", "--device", "numpy",
                     "--result", str(tmp_path / "taken" / "result.json"))  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "taken" in done.stderr


def _interrupted_after(epoch: int, folder: Path, **options: object) -> None:
    """Run and interrupt as Ctrl-C does, at the end of an epoch."""

    def watch(session: Session) -> None:
        def on_epoch(event: EpochDone) -> None:
            if event.record["epoch"] == epoch:
                os.kill(os.getpid(), signal.SIGINT)

        session.events.subscribe(EpochDone, on_epoch)

    with pytest.raises(Interrupted, match="--resume"):
        veloflow.run("digits_mlp", device="numpy", checkpoint=folder, watch=watch, **options)


@pytest.mark.parametrize("epochs", [0, 2])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, epochs: int) -> None:
    whole = veloflow.run("digits_mlp", device="numpy", hidden=20, epochs=4)
    _interrupted_after(epochs, tmp_path, hidden=20, epochs=4)
    assert read_checkpoint(tmp_path / "last.safetensors").reason == "interrupted"
    rest = veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, resume=True)
    assert rest.parameters_sha256 == whole.parameters_sha256
    assert rest.epochs == whole.epochs
    assert rest.best == whole.best


@pytest.mark.parametrize("pause", [1, 2, 30, 77])
def test_a_run_cut_at_any_minibatch_ends_with_the_same_bits(tmp_path: Path, pause: int) -> None:
    whole = veloflow.run("digits_mlp", device="numpy", hidden=10, epochs=3)

    def watch(session: Session) -> None:
        loader = session.workflow["DigitsLoader"]
        served = 0
        run = loader.run

        def count() -> None:
            nonlocal served
            run()
            served += 1
            if served == pause:
                os.kill(os.getpid(), signal.SIGTERM)

        loader.run = count  # type: ignore[method-assign]

    with pytest.raises(Interrupted):
        veloflow.run(
            "digits_mlp", device="numpy", hidden=10, epochs=3, checkpoint=tmp_path, watch=watch
        )
    rest = veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, resume=True)
    assert rest.parameters_sha256 == whole.parameters_sha256
    assert rest.epochs == whole.epochs


def test_a_complete_run_is_not_run_again_but_may_be_prolonged(tmp_path: Path) -> None:
    first = veloflow.run("digits_mlp", device="numpy", hidden=10, epochs=2, checkpoint=tmp_path)
    again = veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, resume=True)
    assert again.parameters_sha256 == first.parameters_sha256
    longer = veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, resume=True, epochs=4)
    straight = veloflow.run("digits_mlp", device="numpy", hidden=10, epochs=4)
    assert longer.parameters_sha256 == straight.parameters_sha256
    assert longer.epochs == straight.epochs


def test_without_validation_a_finished_run_lacks_one_step_when_it_is_prolonged(
    tmp_path: Path,
) -> None:
    first = veloflow.run("wine", device="numpy", epochs=2, checkpoint=tmp_path)
    longer = veloflow.run("wine", device="numpy", checkpoint=tmp_path, resume=True, epochs=4)
    straight = veloflow.run("wine", device="numpy", epochs=4)
    assert longer.epochs[: len(first.epochs)] == first.epochs
    assert [one["epoch"] for one in longer.epochs] == [one["epoch"] for one in straight.epochs]
    # docs/assumptions.md says so; whoever cures it takes that sentence out too
    assert longer.parameters_sha256 != straight.parameters_sha256


def test_the_best_checkpoint_is_tested_without_training(tmp_path: Path) -> None:
    trained = veloflow.run("digits_mlp", device="numpy", hidden=20, epochs=3, checkpoint=tmp_path)
    tested = veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, test=True)
    entry = tested.epochs[-1]["validation"]
    assert entry["error_percent"] == trained.best["validation_error_percent"]
    assert "train" not in tested.epochs[-1]


def test_a_checkpoint_of_another_workflow_seed_or_size_is_refused(tmp_path: Path) -> None:
    def other(wf: veloflow.Workflow) -> None:
        raise AssertionError("it must be refused before it is built")

    veloflow.run("digits_mlp", device="numpy", hidden=10, epochs=1, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="'digits_mlp', not of 'other'"):
        veloflow.run(other, device="numpy", checkpoint=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="seed 0, not 5"):
        veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, resume=True, seed=5)
    with pytest.raises(CheckpointError, match="shape"):
        veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path, resume=True, hidden=11)
    with pytest.raises(CheckpointError, match="start without --resume"):
        veloflow.run("digits_mlp", device="numpy", checkpoint=tmp_path / "none", resume=True)


def _veloflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "veloflow", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_stops_cleanly_and_the_run_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-P", "-m", "veloflow", "run", "digits_mlp", "epochs=100000",
               "rate=1e-7", "--device", "numpy", "--checkpoint", str(tmp_path)]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "best.safetensors").exists():  # with an epoch in it
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(number)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "--resume" in said
    assert len(said.strip().splitlines()) == 1
    reached = read_checkpoint(tmp_path / "last.safetensors").units["DecisionGD"]["epochs"][-1]
    done = _veloflow("run", "digits_mlp", f"epochs={reached['epoch'] + 1}", "--device", "numpy",
                     "--checkpoint", str(tmp_path), "--resume", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["epochs"][-1]["epoch"] == reached["epoch"] + 1


def dropping(wf: veloflow.Workflow, *, epochs: int = 4) -> None:
    """Wire a network with dropout, momentum, and a rate that changes."""
    from veloflow.units import DigitsLoader, Inv, dropout, softmax, standard_workflow, tanh

    standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=60),
        layers=[tanh(20), dropout(0.5), softmax(10)],
        learning_rate=0.1,
        gradient_moment=0.5,
        policy=Inv(0.01, 0.75),
        max_epochs=epochs,
    )


@pytest.mark.opencl
@pytest.mark.parametrize("device", ["numpy", "opencl"])
def test_dropout_momentum_and_rates_resume_to_the_same_bits(tmp_path: Path, device: str) -> None:
    whole = veloflow.run(dropping, device=device)

    def watch(session: Session) -> None:
        def on_epoch(event: EpochDone) -> None:
            if event.record["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

        session.events.subscribe(EpochDone, on_epoch)

    with pytest.raises(Interrupted):
        veloflow.run(dropping, device=device, checkpoint=tmp_path, watch=watch)
    rest = veloflow.run(dropping, device=device, checkpoint=tmp_path, resume=True)
    assert rest.parameters_sha256 == whole.parameters_sha256
    assert rest.epochs == whole.epochs
