"""One value of ``parameters_sha256`` for real MNIST, whoever computes and whatever dies."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import veloflow
from tests.runtime.test_cluster import leaves_nothing  # noqa: F401
from tests.workflows.test_mnist import _DATA

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.stress,
    pytest.mark.skipif(not _DATA.is_dir(), reason="the MNIST files are not beside the checkout"),
]


def run(**options):
    given = {"data": _DATA, "epochs": 2, "device": "numpy", "sharing": "sync"}
    return veloflow.run("mnist_mlp", **{**given, **options}).parameters_sha256


@pytest.fixture(scope="module")
def alone():
    return run()


@pytest.mark.parametrize("slaves", [1, 2, 4, 8])
def test_with_any_number_of_slaves(alone, slaves):
    assert run(slaves=slaves) == alone


@pytest.mark.parametrize("slaves", [2, 4])
def test_with_slaves_that_are_killed_stopped_and_slow_at_random(alone, slaves):
    assert run(slaves=slaves, faults="kill=0.003,hang=0.001,slow=0.001", audit=0.05) == alone


def test_with_a_master_that_is_killed_twice_and_resumed(alone, tmp_path):
    command = [
        *(sys.executable, "-P", "-m", "veloflow", "run", "mnist_mlp", f"data={_DATA}", "epochs=2"),
        *("--device", "numpy", "--sharing", "sync", "--slaves", "2", "--checkpoint-every", "0.1"),
        *("--checkpoint", str(tmp_path / "c"), "--result", str(tmp_path / "r.json"), "--json"),
    ]
    resume: list[str] = []
    for _ in range(2):
        master = subprocess.Popen([*command, *resume], stdout=subprocess.PIPE, text=True)
        for line in master.stdout:
            if '"epoch": ' in line:
                master.kill()
                break
        master.wait()
        master.stdout.close()
        resume = ["--resume"] if (tmp_path / "c" / "last.safetensors").exists() else []
    subprocess.run([*command, *resume], check=True, capture_output=True, timeout=120)
    assert json.loads((tmp_path / "r.json").read_text())["parameters_sha256"] == alone


def test_a_convolutional_network_with_one_of_three_slaves_killed():
    options = {"data": _DATA, "epochs": 1, "device": "numpy", "sharing": "sync"}
    whole = veloflow.run("mnist_caffe", **options).parameters_sha256
    result = veloflow.run("mnist_caffe", slaves=3, faults="kill=slave2@job40", **options)
    assert result.parameters_sha256 == whole
    assert result.more["jobs"]["lost"] == 1
