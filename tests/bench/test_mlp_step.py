"""A training step of 784-100-10, batch 100, SGD with momentum, beside what users would pick else.

Everybody gathers shuffled minibatches, and veloflow and the NumPy by hand also count loss and
errors. The limit is the step's FLOP at the rate of the best product of matrices of this machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import mlp_peers as peers
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from turns import begin_turn

pytestmark = [
    pytest.mark.bench,
    pytest.mark.filterwarnings("ignore"),  # other programs' own affairs
]

STEPS, TURNS = 200, 7
#: multiplications and additions: two products forward, three back
FLOP = 2 * peers.BATCH * (2 * peers.INPUTS * peers.HIDDEN + 3 * peers.HIDDEN * peers.CLASSES)


class Child:
    """tinygrad in a process of its own, on the OpenCL device."""

    name = "tinygrad, OpenCL"

    def __init__(self, stack, vendors):
        # tinygrad uses the loader of the system, which must be told where PoCL's library is
        places = [Path(find_spec(name).origin).parent / ".libs"
                  for name in ("pyopencl", "pocl_binary_distribution")]  # fmt: skip
        library = next(path for place in places for path in place.glob("libpocl*.so*"))
        (vendors / "pocl.icd").write_text(f"{library}\n")
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, peers.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={**os.environ, "DEV": "CL", "OCL_ICD_VENDORS": str(vendors)},
            )
        )  # fmt: skip
        stack.callback(self.process.stdin.close)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("tinygrad does not run here")

    def timed(self, count):
        print(count, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def _timed(contestant, count):
    if isinstance(contestant, Child):
        return contestant.timed(count)
    began = time.perf_counter()
    contestant.steps(count)
    return time.perf_counter() - began


def _gemm_rate():
    a = np.random.default_rng(0).random((1024, 1024), np.float32)
    out = np.zeros_like(a)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        np.matmul(a, a, out)
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / statistics.median(times)


def _contestants(stack, vendors):
    import torch

    torch.set_num_threads(2)
    makers = [
        lambda: peers.Veloflow("numpy", stack), lambda: peers.Veloflow("opencl", stack),
        peers.Torch, lambda: peers.Torch(is_compiled=True), peers.HandWritten, peers.ScikitLearn,
        lambda: Child(stack, vendors),
    ]  # fmt: skip
    for make in makers:
        try:
            contestant = make()
            _timed(contestant, 100)
        except Exception as error:  # whatever another program lacks here, it does not take part
            print(f"\nleft out: {type(error).__name__}: {str(error).splitlines()[:1]}")
            continue
        yield contestant


def test_a_training_step_beside_others(capsys, tmp_path):
    with capsys.disabled(), ExitStack() as stack:
        contestants = list(_contestants(stack, tmp_path))
        times = {one.name: [] for one in contestants}
        for _ in range(TURNS):
            for one in contestants:
                steps = 100 if one.name == "scikit-learn" else STEPS
                begin_turn(partial(_timed, one, 100))
                times[one.name].append(_timed(one, steps) / steps * 1e6)
        rate = _gemm_rate()
    middle = {name: statistics.median(values) for name, values in times.items()}
    with capsys.disabled():
        print(f"\n{'limit':20} {FLOP / rate * 1e6:7.0f} us ({rate / 1e9:.0f} GFLOP/s)")
        for name, values in times.items():
            print(
                f"{name:20} {middle[name]:7.0f} us ({min(values):.0f} to {max(values):.0f}), "
                f"of torch eager {middle[name] / middle['torch eager']:.2f}"
            )
    assert middle["veloflow, numpy"] < middle["torch eager"]


def test_the_peers_learn_as_we_do():
    """A step that is quick because it is wrong would be no rival."""
    by_hand = peers.HandWritten()
    by_hand.steps(100)
    by_hand.wrong = 0
    by_hand.steps(100)
    assert by_hand.wrong < 0.25 * peers.SAMPLES
    with ExitStack() as stack:
        ours = peers.Veloflow("numpy", stack)
        ours.steps(200)
        assert ours.decision.epochs[-1]["train"]["n_errors"] < 0.25 * peers.SAMPLES
