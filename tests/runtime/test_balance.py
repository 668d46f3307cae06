"""Who gets how much: stretches by speed, late pieces twice in every mode, devices mixed."""

from __future__ import annotations

import threading

import pytest

import veloflow
from tests.runtime.slaves import join_when_it_listens
from veloflow.core import Message
from veloflow.protocol.events import Grant, Heard, WorkAdded
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import PROTOCOL, Hello, Piece
from veloflow.runtime.master.simulated_crew import VirtualCluster
from veloflow.sharing import parse_sharing
from veloflow.testing import FaultPlan, Simulation

SLOW = VirtualCluster(4, sample=1e-3, latency=0.0, bandwidth=1e12, slow=1, factor=4.0)


WORKFLOW = """
from veloflow.units import *

def build(wf, *, epochs: int = 4) -> None:
    standard_workflow(wf, loader=DigitsLoader(wf, minibatch_size=10),
        layers=[tanh(20), softmax(10)], learning_rate=0.1, max_epochs=epochs)
"""


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(WORKFLOW)

    def go(mode, cluster=SLOW):
        return veloflow.run(path, device="numpy", sharing=mode, cluster=cluster)

    return go


def test_a_slow_slave_gets_shorter_stretches(run):
    balanced, alike = run("average:8"), run("average:every=8,parts=4")
    ideal = (4 * 1437 + 5 * 360) * 1e-3 / 3.25  # three slaves, and a quarter of one
    assert balanced.more["virtual_seconds"] < 1.3 * ideal
    assert alike.more["virtual_seconds"] > 2.2 * ideal  # everybody waits for the slow one
    for one in (balanced, alike):
        assert [epoch["train"]["samples"] for epoch in one.epochs[1:]] == [1437] * 4
    errors = [one.epochs[-1]["validation"]["error_percent"] for one in (balanced, alike)]
    assert errors[0] < errors[1] + 5


def test_slaves_that_are_alike_get_the_same(run):
    alike = VirtualCluster(3)
    one, other = run("average:4", alike), run("average:every=4,parts=3", alike)
    assert one.parameters_sha256 == other.parameters_sha256


def test_a_piece_that_is_cut_for_a_slave_goes_there_and_to_others_if_it_is_not_free():
    master = Master(MasterSettings("run", "same", prefetch=1))
    for name in (b"a", b"b"):
        hello = Hello(PROTOCOL, "same", name.decode(), "null", "cpu", "host", 1, capacity=1)
        master.handle(Heard(name, hello), 0.0)
    pieces = tuple(Piece(number, 0, 2, 10 * number, 10) for number in range(3))
    actions = master.handle(WorkAdded(pieces, wishes=("s2", "s1", "s9")), 0.0)
    granted = {one.piece.number: one.client for one in actions if isinstance(one, Grant)}
    assert granted == {0: b"b", 1: b"a"}
    master.validate()


@pytest.mark.parametrize(
    "mode", ["sync", "async", "ssp:1", "groups:2", "average:3", "elastic:0.9,2", "auto"]
)
def test_late_pieces_are_given_twice_in_every_mode(mode):
    plan = FaultPlan(slow=0.05, hang=0.02)
    given = sum(
        Simulation(seed, plan=plan, slaves=4, policy=parse_sharing(mode), audit=0.0, works=False)
        .run()
        .counters["speculated"]
        for seed in range(5)
    )
    assert given > 0


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "average:4", "auto"])
def test_numpy_and_opencl_slaves_in_one_run(mode):
    address = f"memory://mixed-{mode}"
    slow, quick = [
        threading.Thread(target=join_when_it_listens, args=(address, one))
        for one in ("opencl", "numpy")
    ]

    def follow(event):
        if "slave s1 joined" in event.text:  # its kernels are compiled
            quick.start()

    slow.start()
    result = veloflow.run(
        "digits_mlp", device="numpy", sharing=mode, listen=[address], epochs=20, hidden=20,
        watch=lambda session: session.events.subscribe(Message, follow),
    )  # fmt: skip
    for thread in (slow, quick):
        thread.join(30)
        assert not thread.is_alive()
    assert [one["train"]["samples"] for one in result.epochs[1:]] == [1437] * 20
    assert result.epochs[-1]["validation"]["error_percent"] < 15
    done = {one["device"].partition(":")[0]: one["jobs"] for one in result.more["slaves"]}
    assert done.keys() == {"numpy", "opencl"}
    assert min(done.values()) > 0
