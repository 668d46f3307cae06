"""Opening, listing, examining and choosing devices, with devices that are made up for it."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

import veloflow.devices
from veloflow.devices import selection
from veloflow.devices.base import DeviceInfo
from veloflow.devices.cache import cache_folder
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.selection import Speed
from veloflow.errors import DeviceError, KernelError, NotFoundError, StorageError


class Abacus(NumpyDevice):
    """A device that an installed package adds."""

    def __init__(self, name="abacus"):
        self.name = name

    def info(self):
        return replace(super().info(), name=self.name, kind="abacus", hardware="beads")


class WrongAbacus(Abacus):
    """Multiplies wrongly."""

    def gemm(self, a, b, out, **options):
        return super().gemm(a, b, out, **{**options, "alpha": 1.5})


class BrokenAbacus(Abacus):
    """Cannot be used at all."""

    def gemm(self, a, b, out, **options):
        raise KernelError("a bead fell off")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VELOFLOW_CACHE", str(tmp_path))


@pytest.fixture
def opencl(monkeypatch):
    """Put a stand-in for the OpenCL backend in place; return the list of what it discovers."""
    module = types.ModuleType("veloflow.devices.opencl")
    module.found = []

    class OpenCLDevice:
        @staticmethod
        def open(name):
            if name not in [info.name for info in module.found]:
                raise DeviceError(f"no OpenCL platform for {name}")
            return Abacus(name)

    module.OpenCLDevice = OpenCLDevice
    module.discover = lambda: module.found
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.found


@pytest.fixture
def add(monkeypatch):
    """Return a function that installs kinds of devices, given as classes of this module."""

    def install(**classes):
        points = [
            EntryPoint(kind, f"{__name__}:{target}", selection.ENTRY_POINTS)
            for kind, target in classes.items()
        ]
        monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or this_module())
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)

    return install


def this_module():
    module = types.ModuleType(__name__)
    vars(module).update(globals())
    return module


# -- by name --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy", "null"])
def test_devices_open_by_name(name):
    device = veloflow.devices.open_device(name)
    assert device.name == name
    assert device.info().name == name


@pytest.mark.parametrize(
    ("wrong", "hint"), [("numpi", "'numpy'"), ("opencel", "'opencl'"), ("NULL", "auto, null")]
)
def test_unknown_name_is_answered_with_the_nearest(wrong, hint):
    with pytest.raises(NotFoundError, match=hint):
        veloflow.devices.open_device(wrong)


def test_opencl_without_a_platform_is_a_device_error(opencl):
    with pytest.raises(DeviceError, match="no OpenCL platform"):
        veloflow.devices.open_device("opencl:0:0")


def test_packages_add_devices(add, opencl):
    add(abacus="Abacus")
    assert veloflow.devices.open_device("abacus:7").name == "abacus:7"
    assert [info.name for info in veloflow.devices.list_devices()] == ["numpy", "abacus"]
    with pytest.raises(NotFoundError, match="did you mean 'abacus'"):
        veloflow.devices.open_device("abakus")


@pytest.mark.parametrize(
    ("target", "reason"),
    [("NoSuchThing", "AttributeError"), ("raising", "OSError: no beads"), ("dict_of", "no Device")],
)
def test_package_that_does_not_open_says_so(opencl, add, caplog, target, reason):
    add(abacus=target)
    with pytest.raises(DeviceError, match=reason):
        veloflow.devices.open_device("abacus")
    assert [info.name for info in veloflow.devices.list_devices()] == ["numpy"]
    assert reason in caplog.text
    abacus = veloflow.devices.examine_devices()[1]
    assert abacus.info.name == "abacus"
    assert reason in abacus.problems[0]


def raising(name):
    raise OSError("no beads")


def dict_of(name):
    return {"name": name}


def test_list_has_opencl_devices(opencl):
    opencl.append(DeviceInfo("opencl:0:0", "opencl", "gpu", "driver", 1, 1))
    assert [info.name for info in veloflow.devices.list_devices()] == ["numpy", "opencl:0:0"]


def test_import_is_light():
    code = (
        "import sys, veloflow.devices; veloflow.devices.open_device('numpy');"
        "print([m for m in ('pyopencl', 'platformdirs', 'networkx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- examined -------------------------------------------------------------------------------------


def test_examination_reports_figures_and_faults(add, opencl):
    add(abacus="WrongAbacus")
    numpy, abacus, no_opencl = veloflow.devices.examine_devices()
    assert numpy.problems == ()
    assert numpy.gemm_gflops > 0
    assert numpy.small_step_seconds > 0
    assert any(problem.startswith("gemm") for problem in abacus.problems)
    assert abacus.gemm_gflops is None
    assert no_opencl.info.kind == "opencl"
    assert no_opencl.problems == ("no OpenCL platform for opencl",)


def test_self_test_survives_a_broken_device():
    problems = veloflow.devices.self_test(BrokenAbacus())
    assert problems == ["gemm: KernelError: a bead fell off"]


# -- chosen ---------------------------------------------------------------------------------------


@pytest.fixture
def speeds(monkeypatch):
    """Replace measuring; return the speeds by name, to be filled by the test."""
    known = {}
    monkeypatch.setattr(selection, "speed_of", lambda device: known[device.name])
    return known


def test_the_only_device_is_chosen_without_measuring(opencl, speeds):
    device, why = veloflow.devices.choose_device()
    assert device.name == "numpy"
    assert why == "numpy: there is no other device on this machine"


def test_the_fastest_is_chosen_and_says_why(opencl, add, speeds):
    add(abacus="Abacus")
    opencl.append(DeviceInfo("opencl:0:0", "opencl", "gpu", "driver", 1, 1))
    speeds |= {
        "numpy": Speed(280e-6, 100.0),
        "opencl:0:0": Speed(210e-6, 200.0),
        "abacus": Speed(1.0, 1e-6),
    }
    device, why = veloflow.devices.choose_device()
    assert device.name == "opencl:0:0"
    assert why == (
        "opencl:0:0: 1.3 times faster than numpy in a small training step (210 us against 280 us), "
        "2.0 times faster in a product of matrices (200 against 100 GFLOP/s)"
    )
    speeds["opencl:0:0"] = Speed(280e-6, 90.0)
    assert "1.1 times faster in a product" in veloflow.devices.choose_device()[1]
    assert veloflow.devices.open_device("auto").name == "numpy"


def test_both_speeds_count(opencl, add, speeds):
    add(abacus="Abacus")
    speeds |= {"numpy": Speed(200e-6, 100.0), "abacus": Speed(400e-6, 10_000.0)}
    device, why = veloflow.devices.choose_device()
    assert device.name == "abacus"
    assert "2.0 times slower than numpy in a small training step" in why


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("WrongAbacus", "computes wrong numbers"), ("BrokenAbacus", "a bead fell off")],
)
def test_a_device_with_a_fault_is_not_chosen(opencl, add, kind, fault):
    add(abacus=kind)
    device, why = veloflow.devices.choose_device()
    assert device.name == "numpy"
    assert why.startswith("numpy: abacus")
    assert fault in why


def test_measurements_are_kept(opencl, add, monkeypatch):
    add(abacus="Abacus")
    first = veloflow.devices.choose_device()[1]
    files = sorted(cache_folder("devices").glob("*.json"))
    assert len(files) == 2
    monkeypatch.setattr(selection, "_measure", lambda device: pytest.fail("measured again"))
    assert veloflow.devices.choose_device()[1] == first


def test_damaged_measurements_are_made_again(opencl, add, monkeypatch):
    add(abacus="Abacus")
    monkeypatch.setattr(selection, "_measure", lambda device: Speed(1.0, 1.0))
    veloflow.devices.choose_device()
    for file in cache_folder("devices").glob("*.json"):
        file.write_text('{"small_step_seconds": "fast"}')
    monkeypatch.setattr(selection, "_measure", lambda device: Speed(2e-6, 1.0))
    assert "(2 us against 2 us)" in veloflow.devices.choose_device()[1]


def test_a_full_disk_does_not_stop_the_choice(opencl, add, monkeypatch, caplog):
    def full(folder, content=None):
        raise StorageError("disk full")

    add(abacus="Abacus")
    monkeypatch.setattr(selection, "write_json", full)
    monkeypatch.setattr(selection, "_measure", lambda device: Speed(1.0, 1.0))
    assert veloflow.devices.choose_device()[0].name == "numpy"
    assert "disk full" in caplog.text
    monkeypatch.setattr(selection, "cache_folder", full)
    assert veloflow.devices.choose_device()[0].name == "numpy"


def test_a_figure_of_a_busy_machine_is_made_anew_when_it_is_quiet(opencl, add, monkeypatch):
    add(abacus="Abacus")
    load, speeds = [5.0], {"numpy": Speed(100e-6, 100.0), "abacus": Speed(400e-6, 100.0)}
    measured = []

    def measure(device):
        measured.append(device.name)
        return speeds[device.name]

    monkeypatch.setattr(selection, "_load", lambda: load[0])
    monkeypatch.setattr(selection, "_measure", measure)
    assert veloflow.devices.choose_device()[0].name == "numpy"
    assert veloflow.devices.choose_device()[0].name == "numpy"
    assert measured == ["numpy", "abacus"], "as busy as then"
    load[0], speeds["abacus"] = 0.0, Speed(50e-6, 100.0)
    assert veloflow.devices.choose_device()[0].name == "abacus"
    assert veloflow.devices.choose_device()[0].name == "abacus"
    assert measured == ["numpy", "abacus"] * 2, "and then it is known"
