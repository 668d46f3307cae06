"""Whole runs from the command line, start-up included, beside a minimal torch script."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import mnist_torch
import pytest

from checkout import ROOT

pytestmark = pytest.mark.bench

TURNS = 5
DATA = ROOT.parent / "shared" / "data" / "mnist"
_VELOFLOW = (sys.executable, "-m", "veloflow")


def _seconds(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - began


def _alternating(commands):
    times = {name: [] for name in commands}
    for command in commands.values():  # fills caches of files, kernels and choices
        _seconds(command)
    for _ in range(TURNS):
        for name, command in commands.items():
            times[name].append(_seconds(command))
    return times


def _report(capsys, times):
    with capsys.disabled():
        print()
        for name, values in times.items():
            print(
                f"{name:34} {statistics.median(values):.3f} s "
                f"({min(values):.3f} to {max(values):.3f})"
            )
    return {name: statistics.median(values) for name, values in times.items()}


@pytest.mark.skipif(not DATA.exists(), reason="no MNIST")
def test_five_epochs_of_mnist_beside_torch(capsys):
    run = [*_VELOFLOW, "run", "mnist_mlp", f"data={DATA}", "epochs=5"]
    middle = _report(
        capsys,
        _alternating({
            "torch script": [sys.executable, Path(mnist_torch.__file__), DATA, "5"],
            "veloflow run mnist_mlp": run,
            "the same, --device numpy": [*run, "--device", "numpy"],
            "the same, --device opencl": [*run, "--device", "opencl"],
        }),
    )  # fmt: skip
    assert middle["veloflow run mnist_mlp"] < middle["torch script"]


def test_help_is_there_at_once(capsys):
    middle = _report(capsys, _alternating({"veloflow --help": [*_VELOFLOW, "--help"]}))
    assert middle["veloflow --help"] < 0.25
