"""Arrays that are never alive together share memory, and the bits stay what they were."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import veloflow
from veloflow import Bool, Input, Workflow
from veloflow.cli import main
from veloflow.devices import Array
from veloflow.devices.memory import Declared, share_memory
from veloflow.devices.null import NullDevice
from veloflow.errors import GraphError
from veloflow.runtime.api import prepare
from veloflow.units import ArrayLoader, DeviceUnit, conv, max_pool, softmax, standard_workflow
from veloflow.units import tanh as tanh_layer

_DEVICE = NullDevice()


@given(
    st.lists(
        st.tuples(
            st.integers(1, 1000), st.integers(0, 9), st.integers(0, 9), st.sampled_from("fd")
        ),
        max_size=30,
    )
)
def test_no_two_arrays_of_a_piece_are_alive_together(cases):
    spans = [
        (Declared("unit", _DEVICE.array((size,), dtype)), (min(one, two), max(one, two)))
        for size, one, two, dtype in cases
    ]
    slots = share_memory(spans)
    assert sum(len(slot.members) for slot in slots) == len(spans)
    for slot in slots:
        alive = [place for _, (first, last) in slot.members for place in range(first, last + 1)]
        assert len(alive) == len(set(alive))
        assert len({one.array.dtype for one, _ in slot.members}) == 1
    most = max(
        (sum(one.array.nbytes for one, (first, last) in spans if first <= place <= last)
         for place in range(10)), default=0,
    )  # fmt: skip
    assert most <= sum(slot.nbytes for slot in slots)


def _network(wf: Workflow) -> None:
    random = np.random.default_rng(3)
    data = random.normal(size=(60, 12, 12, 2)).astype(np.float32)
    loader = ArrayLoader(wf, data, random.integers(0, 4, 60), minibatch_size=20)
    layers = [
        conv(6, 3, activation="tanh"), max_pool(2), conv(8, 3, activation="tanh"),
        max_pool(2), tanh_layer(30), tanh_layer(20), softmax(4),
    ]  # fmt: skip
    standard_workflow(
        wf, loader=loader, layers=layers, learning_rate=0.05, gradient_moment=0.9, max_epochs=3
    )


@pytest.mark.parametrize("device", ["numpy", pytest.param("opencl", marks=pytest.mark.opencl)])
@pytest.mark.slow
def test_sharing_changes_no_bit(device, monkeypatch):
    if device == "opencl":  # the arrays of this network are small
        monkeypatch.setattr("veloflow.devices.opencl.OpenCLDevice.least_shared", 0)
    shared = veloflow.run(_network, device=device)
    alone = veloflow.run(_network, device=device, reuse_memory=False)
    assert shared.parameters_sha256 == alone.parameters_sha256
    assert shared.epochs == alone.epochs
    memory, whole = shared.more["memory"], alone.more["memory"]
    assert memory["saved_by_sharing"] > 0
    assert memory["arrays"] + memory["saved_by_sharing"] == whole["arrays"]
    assert whole["saved_by_sharing"] == 0
    assert memory["peak_of_process"] > memory["arrays"]


def _errors(session):
    shared = {one for slot in session.memory.slots for one, _ in slot.members}
    return {one.owner for one in shared}


def test_errors_of_a_straight_network_share_in_turns():
    with prepare(_network, device="numpy") as session:
        assert "EvaluatorSoftmax" in _errors(session)
        for slot in session.memory.slots:
            memories = {one.array.memory.ctypes.data for one, _ in slot.members}
            assert len(memories) == 1
        plan = session.describe_memory()
    error = next(one for one in plan if one["unit"] == "EvaluatorSoftmax")
    assert error["array"] == "err_output"
    assert error["until"] == "GDSoftmax"
    assert [one["shares"] for one in plan if one["array"] == "output"] == [None] * 7


class Onlooker(DeviceUnit):
    """Reads an array, wherever it stands."""

    seen = Input[Array]("batch ...")

    def run(self) -> None:
        """Read."""
        self.last = np.array(self.seen.read())


@pytest.mark.parametrize("place", ["side branch", "next in the round"])
def test_what_an_onlooker_reads_later_is_kept(place):
    def build(wf: Workflow) -> None:
        _network(wf)
        onlooker = Onlooker(wf)
        onlooker.link_data(wf["EvaluatorSoftmax"], seen="err_output")
        if place == "side branch":
            wf["GDTanh"] >> onlooker
        else:
            onlooker.insert_after(wf["Repeater"])  # it reads what the round before has left

    with prepare(build, device="numpy") as session:
        assert "EvaluatorSoftmax" not in _errors(session)
        assert "GDSoftmax" in _errors(session)


def test_a_unit_that_may_be_skipped_alone_shares_nothing():
    def build(wf: Workflow) -> None:
        _network(wf)
        wf.skipping = Bool()
        wf["GDTanh"].gate_skip = wf.skipping

    with prepare(build, device="numpy") as session:
        error = session.workflow["GDTanh"].err_input
        assert not session.memory.shares(error)
        assert session.memory.shares(session.workflow["GDTanh_2"].err_input)


@pytest.mark.parametrize("source", ["GDTanh_2", "All2AllTanh"])
def test_a_unit_that_comes_while_running_must_not_want_what_is_gone(source):
    with prepare(_network, device="numpy") as session:
        wf = session.workflow
        attribute = "err_input" if source == "GDTanh_2" else "output"
        onlooker = Onlooker(wf)
        onlooker.link_data(wf[source], seen=attribute)
        onlooker.insert_after(wf["GDConvTanh"])
        if attribute == "output":
            assert session.run().epochs
        else:
            with pytest.raises(GraphError, match="--no-reuse-memory"):
                session.run()


def test_a_dry_run_shows_who_shares_and_the_peak(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = CliRunner().invoke(main, ["run", "digits_mlp", "--device", "numpy", "--dry-run"])
    assert result.exit_code == 0, result.output
    for words in ("checked, and not run", "err_output", "peak", "parameters", "60 × 100"):
        assert words in result.output
