"""Wait-free backpropagation over a real, paced network: a step with and without it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.cluster]

SCRIPT = Path(__file__).with_name("paced_training.py")


@pytest.fixture(scope="module")
def namespace():
    """What begins a command in a network namespace of its own, where this machine has them."""
    wanted = ["unshare", "-rn"]
    test = "ip link set lo up && tc qdisc add dev lo root handle 1: htb"
    try:
        tried = subprocess.run([*wanted, "sh", "-c", test], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no network namespaces here: {error}")
    if tried.returncode:
        pytest.skip(f"no paced network namespaces here: {tried.stderr.strip()}")
    return wanted


def train(namespace, folder, network, gbit, slaves, *, overlap=True, **options):
    """Return what the training says of itself."""
    words = [f"{name}={value}" for name, value in options.items()]
    command = [*namespace, sys.executable, str(SCRIPT), network, str(gbit), str(slaves), *words]
    environment = {**os.environ, "PACED_FOLDER": str(folder)}
    if not overlap:
        environment["VELOFLOW_NO_OVERLAP"] = "1"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=140, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("network", ["conv", "mlp"])
@pytest.mark.parametrize("gbit", [1, 10])
def test_a_step_with_and_without_overlap(namespace, tmp_path, capsys, network, gbit):
    """The same bits; medians of the better half of epochs, when both slaves are there."""
    steps, shas = {True: [], False: []}, set()
    for turn in range(4):
        found = train(
            namespace, tmp_path, network, gbit, 2, overlap=turn % 2 == 0, sharing="sync:shards=2"
        )
        steps[turn % 2 == 0] += sorted(found["steps"][1:])[:3]
        shas.add(found["sha"])
    with_it, without = (1e3 * statistics.median(steps[one]) for one in (True, False))
    with capsys.disabled():
        print(f"\n{network}, 2 slaves, {gbit} Gbit/s: a step {with_it:.1f} ms with overlap, "
              f"{without:.1f} without, {without / with_it:.2f} times as fast")  # fmt: skip
    assert len(shas) == 1


@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_modes_and_codecs_over_a_real_network(namespace, tmp_path, capsys, network):
    """A few real points of what test_time_to_error.py simulates: two slaves, 1 Gbit/s."""
    for sharing, codec in (
        ("sync:shards=2", "plain"),
        ("sync:shards=2", "onebit"),
        ("async", "plain"),
        ("average:3", "plain"),
    ):
        found = train(namespace, tmp_path, network, 1, 2, sharing=sharing, codec=codec)
        step = statistics.median(sorted(found["steps"][1:])[:3])
        counted = found["bytes"]
        up, down = (counted[one] / 1e6 for one in ("updates", "parameters"))
        with capsys.disabled():
            print(f"\n{network}, 2 slaves, 1 Gbit/s, {sharing} {codec}: {1e3 * step:.1f} ms a "
                  f"minibatch, {up:.1f} MB up, {down:.1f} MB down")  # fmt: skip
