"""Which devices there are, how one is opened by name, and which is the fastest here."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.base import Device, DeviceInfo
from veloflow.devices.benchmark import SmallStep, gemm_gflops, small_step_seconds
from veloflow.devices.cache import cache_folder, read_json, write_json
from veloflow.devices.null import NullDevice
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.selftest import self_test
from veloflow.devices.speeds import Speed, cost, merged, to_measure_again
from veloflow.errors import DeviceError, NotFoundError, StorageError, VeloflowError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["DeviceReport", "choose_device", "examine_devices", "list_devices", "open_device"]

#: an installed package adds a kind of device here: its name, and a callable that takes the full
#: name ("tpu:1") and returns a Device
ENTRY_POINTS = "veloflow.devices"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceReport:
    """A device, what its self-test found, and how fast it is.

    ``problems`` is empty if all is well. The figures are None where the device does not work.
    """

    info: DeviceInfo
    problems: tuple[str, ...] = ()
    gemm_gflops: float | None = None
    small_step_seconds: float | None = None


# -- by name --------------------------------------------------------------------------------------


def open_device(name: str) -> Device:
    """Return the device of that name.

    ``name`` is "numpy", "opencl" (the first one), "opencl:PLATFORM:DEVICE", "null" (computes
    nothing), "auto" (the fastest, see :func:`choose_device`), or what an installed package adds.

    Raises:
        NotFoundError: no kind of device has that name.
        DeviceError: there is no such device on this machine, or it does not work.
    """
    kind = name.partition(":")[0]
    if name == "numpy":
        return NumpyDevice()
    if name == "null":
        return NullDevice()
    if name == "auto":
        return choose_device()[0]
    if kind == "opencl":
        from veloflow.devices.opencl import OpenCLDevice

        return OpenCLDevice.open(name)
    added = _added_kinds()
    if kind in added:
        return _open_added(added[kind], name)
    known = ["auto", "null", "numpy", "opencl", *sorted(added)]
    raise NotFoundError(
        f"there is no device {name!r}{nearest(name, known)}; "
        f"a device is one of {', '.join(known)}, or opencl:PLATFORM:DEVICE"
    )


def list_devices() -> list[DeviceInfo]:
    """Return every device of this machine that computes, NumPy first.

    A device of an installed package that does not open is left out, with a warning in the log.
    """
    from veloflow.devices.opencl import discover

    found = [NumpyDevice().info(), *discover()]
    for kind, entry_point in sorted(_added_kinds().items()):
        try:
            device = _open_added(entry_point, kind)
        except DeviceError as error:
            _log.warning("%s", error)
            continue
        found.append(device.info())
        device.close()
    return found


def examine_devices() -> list[DeviceReport]:
    """Test and measure every device of this machine, NumPy first.

    Of each kind that has no device here there is a report that says why.
    """
    reports = [_examine(info) for info in list_devices()]
    missing = {"opencl", *_added_kinds()} - {
        report.info.name.partition(":")[0] for report in reports
    }
    reports += [_examine(DeviceInfo(kind, kind, "none", "none", 0, 0)) for kind in sorted(missing)]
    return reports


def _examine(info: DeviceInfo) -> DeviceReport:
    try:
        device = open_device(info.name)
    except VeloflowError as error:
        return DeviceReport(info, (str(error),))
    try:
        problems = tuple(self_test(device))
        if problems:
            return DeviceReport(device.info(), problems)
        return DeviceReport(
            device.info(), (), gemm_gflops(device), small_step_seconds(device, 0.05)
        )
    finally:
        device.close()


def _added_kinds() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _open_added(entry_point: EntryPoint, name: str) -> Device:
    where = f"device {name!r} of {entry_point.value!r}"
    try:
        opener: Callable[[str], object] = entry_point.load()
        device = opener(name)
    except VeloflowError:
        raise
    except Exception as error:  # whatever another's code may do is a device that does not work
        raise DeviceError(f"{where} does not open: {type(error).__name__}: {error}") from error
    if not isinstance(device, Device):
        raise DeviceError(f"{where} is a {type(device).__name__}, which is no Device")
    return device


# -- by speed -------------------------------------------------------------------------------------


def choose_device() -> tuple[Device, str]:
    """Return the fastest device of this machine, and one sentence that says why.

    Each device trains a small network for a moment and multiplies matrices; what counts is the
    geometric mean of both speeds. The figures are kept in the cache folder for each device and
    driver, so the next choice is the same and costs nothing; figures of a busy machine, close ones
    and old ones are made anew, see :func:`veloflow.devices.speeds.to_measure_again`.
    """
    found = list_devices()
    if [info.name for info in found] == ["numpy"]:
        return NumpyDevice(), "numpy: there is no other device on this machine"
    # what is known already needs no device to be opened, which takes longer than a short run
    known = {info.name: _known_speed(info) for info in found}
    kept = {name: speed for name, speed in known.items() if speed is not None}
    again = to_measure_again(kept, now=time.time(), load=_load())
    speeds = {
        name: _speed_of_named(name, anew=name in again) if speed is None or name in again else speed
        for name, speed in known.items()
    }
    best, why = _judge(speeds)
    return open_device(best), why


def _judge(speeds: dict[str, Speed]) -> tuple[str, str]:
    """Return the best device's name and the sentence that says why."""
    sound = [name for name, speed in speeds.items() if not speed.problem]
    ranked = sorted(sound, key=lambda name: cost(speeds[name]))
    best, *others = ranked
    failures = [f"{name} {speed.problem}" for name, speed in speeds.items() if speed.problem]
    if not others:
        return best, f"{best}: " + "; ".join(failures)
    return best, f"{best}: " + "; ".join([_comparison(speeds, best, others[0]), *failures])


def _comparison(speeds: dict[str, Speed], best: str, other: str) -> str:
    ours, theirs = speeds[best], speeds[other]
    step = _times(theirs.small_step_seconds / ours.small_step_seconds)
    product = _times(ours.gemm_gflops / theirs.gemm_gflops)
    return (
        f"{step} than {other} in a small training step ({ours.small_step_seconds * 1e6:.0f} us "
        f"against {theirs.small_step_seconds * 1e6:.0f} us), {product} in a product of matrices "
        f"({ours.gemm_gflops:.0f} against {theirs.gemm_gflops:.0f} GFLOP/s)"
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"


def _known_speed(info: DeviceInfo) -> Speed | None:
    try:
        return _speed_from(read_json(_speed_file(info)))
    except StorageError:  # said by whoever measures
        return None


def _speed_file(info: DeviceInfo) -> Path:
    return cache_folder("devices") / f"{_identity(info)}.json"


def _speed_of_named(name: str, *, anew: bool) -> Speed:
    """Open a device and measure it; what is wrong with it becomes part of the answer."""
    try:
        device = open_device(name)
    except VeloflowError as error:
        return Speed(problem=f"does not work here ({error})")
    try:
        return speed_of(device, anew=True) if anew else speed_of(device)
    finally:
        device.close()


def speed_of(device: Device, *, anew: bool = False) -> Speed:
    """Return the speed of a device from the cache, or measure it and keep it there.

    Args:
        device: the device.
        anew: measure it in any case.
    """
    measured: Speed | None = None
    try:
        path = _speed_file(device.info())
        kept = _speed_from(read_json(path))
        if kept is not None and not anew:
            return kept
        measured = _measured_now(device)
        if kept is not None:
            measured = merged(kept, measured)
        write_json(path, asdict(measured) | {"device": asdict(device.info())})
    except StorageError as error:
        _log.warning("the speed of %s is not kept for the next run: %s", device.name, error)
    return measured or _measured_now(device)


def _measured_now(device: Device) -> Speed:
    load = _load()  # before we add to it
    return replace(_measure(device), load=load, when=time.time())


def _load() -> float:
    """Return how many processes want a core, for each core."""
    if not hasattr(os, "getloadavg"):
        return 0.0
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _identity(info: DeviceInfo) -> str:
    parts = (info.kind, info.hardware, info.driver, str(info.compute_units), np.__version__)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _speed_from(content: dict[str, object] | None) -> Speed | None:
    match content:
        case {
            "small_step_seconds": float(step),
            "gemm_gflops": float(gflops),
            "problem": str(problem),
            "load": float(load),
            "when": float(when),
        }:
            return Speed(step, gflops, problem, load, when)
    return None


def _measure(device: Device) -> Speed:
    try:
        problem = _disagreement(device)
        if problem:
            return Speed(problem=problem)
        return Speed(small_step_seconds(device), gemm_gflops(device))
    except VeloflowError as error:
        return Speed(problem=f"failed ({error})")


def _disagreement(device: Device, steps: Sequence[int] = range(3)) -> str:
    """Return what is wrong if a device does not train as NumPy does, else ''."""
    results = []
    for place in (NumpyDevice(), device):
        step = SmallStep(place)
        for _ in steps:
            step()
        results.append(np.array(step.parameters.read()))
    difference = float(np.abs(results[0] - results[1]).max())
    return "" if difference < 1e-4 else f"computes wrong numbers (off by {difference:.1e})"
