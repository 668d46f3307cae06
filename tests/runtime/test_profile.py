"""``--profile``: the trace is whole, its rows are nested, and when it is off nothing is paid."""

from __future__ import annotations

import gzip
import inspect
import json
from collections import Counter, defaultdict

import pytest

import veloflow
from veloflow.devices.base import Device
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.tracing import traced
from veloflow.errors import StorageError
from veloflow.runtime.profile import Profile


def _events(path):
    raw = path.read_bytes()
    document = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    assert document["otherData"] == {"dropped": 0}
    return document["traceEvents"]


def _check_structure(events):
    """Check what the Trace Event Format wants, and that spans of a thread nest.

    Perfetto drops what lacks one of these; numbers must be plain ones, for JSON has no NaN.
    """
    rows, named = defaultdict(list), set()
    for event in events:
        assert event["ph"] in ("X", "C", "M"), event
        assert isinstance(event["name"], str), event
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            assert event["args"]["name"]
            if event["name"] == "thread_name":
                named.add((event["pid"], event["tid"]))
            continue
        assert _is_number(event["ts"]), event
        if event["ph"] == "C":
            assert event["args"], event
            assert all(_is_number(one) for one in event["args"].values()), event
        else:
            assert _is_number(event["dur"]), event
            assert isinstance(event["cat"], str)
            rows[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert rows.keys() <= named  # every row of spans says what it is
    for spans in rows.values():
        open_until = []
        for began, ended in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_until and open_until[-1] <= began + 0.002:  # times are rounded to ns
                open_until.pop()
            assert not open_until or ended <= open_until[-1] + 0.002
            open_until.append(ended)


def _is_number(value):
    return type(value) in (int, float) and 0 <= value < float("inf")


def _names(events, category):
    return Counter(one["name"] for one in events if one.get("cat", "").startswith(category))


@pytest.mark.slow
def test_units_and_operations_of_a_run_are_in_the_trace(tmp_path):
    path = tmp_path / "trace.json"
    result = veloflow.run("digits_mlp", device="numpy", epochs=1, profile=path)
    events = _events(path)
    _check_structure(events)
    units = _names(events, "unit")
    assert units["All2AllTanh"] == result.graph.times()["All2AllTanh"].runs
    assert units["GDTanh"] == result.graph.times()["GDTanh"].runs
    operations = [one for one in events if one.get("cat") == "operation"]
    softmax = next(one for one in operations if one["name"] == "softmax 60x10")
    assert softmax["args"] == {"bytes_read": 2400, "bytes_written": 2400 + 240}
    counted = [one["args"] for one in events if one["ph"] == "C"]
    totals = Counter()
    for one in operations:
        totals.update(one["args"])
    assert counted[-1] == {"read": totals["bytes_read"], "written": totals["bytes_written"]}
    assert [one["read"] for one in counted] == sorted(one["read"] for one in counted)


@pytest.mark.opencl
def test_kernels_and_waits_of_opencl_have_their_own_times(tmp_path, opencl_device):
    path = tmp_path / "trace.json.gz"
    plain = veloflow.run("digits_mlp", device=opencl_device, epochs=1)
    traced = veloflow.run("digits_mlp", device=opencl_device, epochs=1, profile=path)
    assert traced.parameters_sha256 == plain.parameters_sha256
    events = _events(path)
    _check_structure(events)
    kernels = [one for one in events if one.get("cat") == "kernel"]
    assert kernels
    assert {one["tid"] for one in kernels} == {0}
    assert all(one["args"]["operation"] for one in kernels)
    units = [one for one in events if one.get("cat", "").startswith("unit")]
    first, last = units[0]["ts"], max(one["ts"] + one["dur"] for one in units)
    # the driver's clock was set right: kernels run while units do
    assert all(first - 1e4 <= one["ts"] <= last + 1e4 for one in kernels)
    assert _names(events, "wait")
    again = veloflow.run("digits_mlp", device=opencl_device, epochs=1)
    assert again.parameters_sha256 == plain.parameters_sha256


@pytest.mark.cluster
@pytest.mark.slow
def test_each_slave_has_its_rows(tmp_path):
    path = tmp_path / "trace.json"
    veloflow.run("digits_mlp", device="numpy", epochs=1, slaves=2, profile=path)
    events = _events(path)
    _check_structure(events)
    processes = {one["args"]["name"] for one in events if one["name"] == "process_name"}
    master, slaves = "veloflow digits_mlp", {"slave slave1", "slave slave2"}
    assert processes - {master} <= slaves  # one that came too late has none
    assert processes > {master}
    by_process = Counter(one["pid"] for one in events if one.get("cat") == "operation")
    assert len(by_process) == len(processes) - 1
    assert len(_names([one for one in events if one.get("cat") == "unit,trainer"], "unit")) == 2


def test_what_does_not_fit_is_counted(tmp_path):
    path = tmp_path / "trace.json"
    with Profile(path, "test", limit=2) as profile:
        for number in range(5):
            profile.wait(number, number + 1)
    document = json.loads(path.read_text())
    assert document["otherData"] == {"dropped": 3}
    assert sum(one["ph"] == "X" for one in document["traceEvents"]) == 2


def test_a_run_that_does_not_start_leaves_no_file(tmp_path):
    path = tmp_path / "trace.json"
    with pytest.raises(veloflow.VeloflowError):
        veloflow.run("digits_mlp", device="numpy", rate=-1.0, profile=path)
    assert not path.exists()
    with pytest.raises(StorageError, match="it is a folder"):
        veloflow.run("digits_mlp", device="numpy", profile=tmp_path)


def test_without_a_profile_nothing_stands_in_between(tmp_path):
    found = []
    veloflow.run("digits_mlp", device="numpy", epochs=0, watch=found.append)
    session = found[0]
    assert isinstance(session.device, NumpyDevice)
    steps = session.workflow.flow._steps
    assert all(step.run == unit.run for unit, step in steps.items())


def test_every_method_of_a_device_is_passed_on():
    class Observer:
        operation_name = ""

    front = traced(NumpyDevice(), Observer())
    public = {name for name, value in vars(Device).items() if callable(value) and name[0] != "_"}
    made_of_others = {"zeros", "asarray", "copy", "observe"}
    own = set(vars(type(front))) | set(vars(type(front).__base__))
    assert public - own == made_of_others


def test_every_trait_of_a_device_is_that_of_the_one_behind():
    class Observer:
        operation_name = ""

    behind = NumpyDevice()
    front = traced(behind, Observer())
    traits = set(inspect.get_annotations(Device)) - {"name"}
    assert traits
    for name in traits:
        setattr(front, name, "seen")
        assert getattr(behind, name) == "seen"
