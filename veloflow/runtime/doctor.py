"""Looks over the machine: what veloflow needs, whether it works here, and the cure if not."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from veloflow import __version__
from veloflow.errors import VeloflowError

__all__ = ["Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    cure: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing raises, what fails is a finding."""
    findings: list[Finding] = []
    for look in (_versions, _blas, _devices, _messaging, _drawing, _cache):
        findings.extend(_safely(look))
    return findings


def _safely(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as error:  # a broken library is just what this command is to report
        name = look.__name__.strip("_")
        return [Finding(name, "fail", f"{type(error).__name__}: {error}", "reinstall veloflow")]


def _versions() -> Iterator[Finding]:
    yield Finding("veloflow", "ok", __version__)
    here = platform.python_version()
    yield Finding("Python", "ok" if sys.version_info >= (3, 11) else "fail", here)
    for package in ("numpy", "networkx", "pyopencl", "safetensors", "polars", "rich"):
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "fail", "not installed", f"pip install {package}")


def _blas() -> Iterator[Finding]:
    import numpy as np  # noqa: F401 - threadpoolctl sees only what is loaded
    from threadpoolctl import threadpool_info

    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    for pool in found:
        text = f"{pool['internal_api']} {pool.get('version')}, {pool['num_threads']} threads"
        yield Finding("BLAS", "ok", text)
    if not found:
        yield Finding("BLAS", "warn", "none known", "install NumPy from PyPI: it brings OpenBLAS")


def _devices() -> Iterator[Finding]:
    from veloflow.devices.selection import examine_devices

    reports = examine_devices()
    for report in reports:
        text = f"{report.info.hardware}, {report.info.driver}"
        if report.problems:
            yield Finding(
                report.info.name, "fail", "; ".join(report.problems), "use another device"
            )
        else:
            yield Finding(report.info.name, "ok", text)
    if not any(report.info.kind == "opencl" for report in reports):
        yield Finding("OpenCL", "warn", "no platform", "pip install 'pyopencl[pocl]'")


def _messaging() -> Iterator[Finding]:
    import zmq

    yield Finding("ZeroMQ", "ok", f"{zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}")
    if zmq.has("curve"):
        yield Finding("CURVE", "ok", "keys protect connections")
    else:
        yield Finding("CURVE", "warn", "missing", "pip install --force-reinstall pyzmq")


def _drawing() -> Iterator[Finding]:
    dot = shutil.which("dot")
    if dot:
        yield Finding("Graphviz", "ok", dot)
    else:
        yield Finding("Graphviz", "ok", "the embedded layout; for finer pictures install graphviz")


def _cache() -> Iterator[Finding]:
    from veloflow.devices.cache import cache_folder

    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 2**30
    except (OSError, VeloflowError) as error:
        yield Finding("cache folder", "warn", str(error), "set VELOFLOW_CACHE to a folder of yours")
        return
    status: Literal["ok", "warn"] = "ok" if free > 1 else "warn"
    yield Finding("cache folder", status, f"{folder}, {free:.0f} GiB free")
