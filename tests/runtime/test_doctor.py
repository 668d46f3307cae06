"""The doctor: what is well, what is missing, and that every finding that is not well has a cure."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

import pytest

from veloflow.devices import selection
from veloflow.devices.base import DeviceInfo
from veloflow.devices.selection import DeviceReport
from veloflow.errors import StorageError
from veloflow.runtime import doctor

NUMPY = DeviceReport(DeviceInfo("numpy", "numpy", "a processor", "NumPy", 1, 2), (), 100.0, 0.001)
OPENCL = DeviceReport(DeviceInfo("opencl:0:0", "opencl", "a", "b", 1, 2), (), 100.0, 0.001)
BROKEN = DeviceReport(DeviceInfo("opencl:0:0", "opencl", "a", "b", 1, 2), ("sum is wrong",))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Leave out the measuring of devices."""
    monkeypatch.setattr(selection, "examine_devices", lambda: [NUMPY, OPENCL])


def found(name):
    return [finding for finding in doctor.examine() if finding.name == name]


def test_all_is_well_here_and_each_thing_was_looked_at():
    findings = doctor.examine()
    assert [one for one in findings if one.status == "fail"] == []
    names = {one.name for one in findings}
    wanted = {"veloflow", "Python", "libraries", "processor", "BLAS", "numpy", "opencl:0:0"}
    assert names >= wanted | {"ZeroMQ", "Graphviz", "cache folder"}
    assert all(one.value for one in findings)


def test_what_is_not_well_has_a_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(selection, "examine_devices", lambda: [NUMPY, BROKEN])
    monkeypatch.setattr(doctor, "_embedded", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = doctor.examine()
    unwell = [one for one in findings if one.status != "ok"]
    assert {one.name for one in unwell} == {"opencl:0:0", "OpenCL", "Graphviz"}
    assert all(one.cure for one in unwell)


def test_missing_library_is_a_failure(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    (finding,) = found("rich")
    assert (finding.status, finding.cure) == ("fail", "pip install 'rich>=13'")
    assert "rich" not in found("libraries")[0].value


def test_library_that_cannot_be_imported_is_a_finding_and_not_the_end(monkeypatch):
    monkeypatch.setitem(sys.modules, "zmq", None)
    (finding,) = found("messaging")
    assert finding.status == "fail"
    assert "zmq" in finding.value
    assert found("cache folder")


def test_numpy_that_is_wrong_is_a_failure(monkeypatch):
    wrong = DeviceReport(NUMPY.info, ("1 + 1 is 3",))
    monkeypatch.setattr(selection, "examine_devices", lambda: [wrong, OPENCL])
    assert [(one.status, one.value) for one in found("numpy")] == [("fail", "1 + 1 is 3")]


def test_no_curve_is_a_warning(monkeypatch):
    import zmq

    monkeypatch.setattr(zmq, "has", lambda name: name != "curve")
    (finding,) = found("ZeroMQ")
    assert finding.status == "warn"
    assert "CURVE" in finding.value


def test_graphviz_that_does_not_run_is_told_and_the_next_one_taken(monkeypatch, tmp_path):
    dot = tmp_path / "dot"
    dot.write_text(f"#!{shutil.which('sh')}\necho broken >&2\nexit 3\n")
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    first, second = found("Graphviz")
    assert (first.status, second.status) == ("warn", "ok")
    assert "broken" in first.value


def test_no_layout_package_is_found_out(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    assert doctor._embedded() is None


@dataclass
class Usage:
    free: int


def test_scarce_disk_and_unwritable_cache_are_warnings(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(doctor.SCARCE - 1))
    assert found("cache folder")[0].status == "warn"

    def refuse():
        raise StorageError("cannot make the cache folder")

    monkeypatch.setattr("veloflow.devices.cache.cache_folder", refuse)
    (finding,) = found("cache folder")
    assert finding.status == "warn"
    assert "VELOFLOW_CACHE" in finding.cure
