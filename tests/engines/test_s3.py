"""Data and checkpoints in S3, from a server of this machine that speaks its protocol."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from idx_files import write_idx

import veloflow
from veloflow.errors import CheckpointError, DataError, StorageError
from veloflow.places import place_of
from veloflow.runtime.storage.checkpoint import find_checkpoint, read_checkpoint

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def bucket():
    """Start a server with one bucket; set the environment so that everyone finds it."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        try:
            _wait_for(port)
            import s3fs

            s3fs.S3FileSystem().mkdir("bucket")
            yield place_of("s3://bucket")
        finally:
            server.terminate()
            server.wait(10)


def _wait_for(port):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not start")


def test_data_in_s3_gives_the_same_bits_to_slaves(bucket, tmp_path):
    counts = {"train": 300, "t10k": 100}
    write_idx(bucket / "mnist", counts)
    for one in (bucket / "mnist").iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    more = {"device": "numpy", "epochs": 2, "sharing": "sync"}
    here = veloflow.run("mnist_mlp", data=tmp_path, **more)
    there = veloflow.run("mnist_mlp", data="s3://bucket/mnist", slaves=2, **more)
    assert there.parameters_sha256 == here.parameters_sha256


def test_a_run_killed_while_it_writes_to_s3_goes_on(bucket, tmp_path):
    options = ["epochs=60", "--device", "numpy", "-q"]
    whole = veloflow.run("digits_mlp", device="numpy", epochs=60)
    place = "s3://bucket/run"
    line = [sys.executable, "-m", "veloflow", "run", "digits_mlp", *options, "--checkpoint", place]
    resume = []
    for seconds in (1.0, 1.3, 1.7):
        process = subprocess.Popen([*line, "--checkpoint-every", "0.1", *resume])
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            try:
                find_checkpoint(place_of(place))
            except CheckpointError:
                time.sleep(0.05)
            else:
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        read_checkpoint(find_checkpoint(place_of(place)))  # raises if it is not whole
        resume = ["--resume"]
    again = veloflow.run("digits_mlp", device="numpy", resume=place)
    assert again.parameters_sha256 == whole.parameters_sha256
    assert len(list((place_of(place) / "objects").iterdir())) <= 3


def test_what_is_wrong_in_s3_is_told(bucket):
    with pytest.raises(DataError, match=r"no data folder|no train.*s3://bucket/nothing"):
        veloflow.run("mnist_mlp", device="numpy", data="s3://bucket/nothing")
    with pytest.raises(StorageError, match=r"cannot write s3://no-such-bucket"):
        veloflow.run("digits_mlp", device="numpy", checkpoint="s3://no-such-bucket/run")
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
