"""Looks over the machine: what veloflow needs, whether it works here, and the cure if not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from veloflow import __version__
from veloflow.errors import VeloflowError

__all__ = ["Finding", "examine"]

#: bytes; kernels and checkpoints of the examples take far less
SCARCE = 1 << 30
_REINSTALL = "pip install --force-reinstall veloflow"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        status: "ok"; "warn" when veloflow runs without it, less well; "fail" when it does not.
        value: what was found.
        cure: what to do about it; '' when it is well.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    cure: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing raises, for what fails is a finding."""
    looks = (_python, _libraries, _processor, _blas, _devices, _messaging, _drawing, _cache)
    return [finding for look in looks for finding in _safely(look)]


def _safely(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look())
    except Exception as error:  # a broken library is just what this command is to report
        name = look.__name__.strip("_")
        found.append(Finding(name, "fail", f"{type(error).__name__}: {error}", _REINSTALL))
    return found


def _python() -> Iterator[Finding]:
    yield Finding("veloflow", "ok", f"{__version__}, in {Path(__file__).resolve().parents[1]}")
    here = f"{platform.python_version()} ({platform.system()}, {platform.machine()})"
    yield Finding("Python", "ok", here)


def _libraries() -> Iterator[Finding]:
    """Look for what veloflow says that it requires."""
    found = []
    for requirement in metadata.requires("veloflow") or ():
        what, _, marker = requirement.partition(";")
        name = re.split(r"[^\w.-]", what.strip(), maxsplit=1)[0]
        if "extra" in marker:
            continue
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", f"pip install '{what.strip()}'")
    yield Finding("libraries", "ok", ", ".join(sorted(found)))


def _processor() -> Iterator[Finding]:
    present = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    text = f"{usable} cores" if usable == present else f"{usable} of {present} cores"
    yield Finding("processor", "ok", text)


def _blas() -> Iterator[Finding]:
    import numpy as np
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    for file in {pool["filepath"]: pool for pool in pools}.values():
        text = f"{file['internal_api']} {file.get('version') or ''}".strip()
        threads = f"{file['num_threads']} threads"
        yield Finding("BLAS", "ok", f"{text}, {threads}, for NumPy {np.__version__}")
    if not pools:
        cure = "install NumPy with pip: it brings OpenBLAS"
        yield Finding("BLAS", "warn", f"none that is known, for NumPy {np.__version__}", cure)


def _devices() -> Iterator[Finding]:
    from veloflow.devices.selection import examine_devices

    works = False
    for report in examine_devices():
        info = report.info
        if report.problems:
            cure = "pip install 'pyopencl[pocl]'" if info.kind == "opencl" else "another device"
            kind: Literal["warn", "fail"] = "fail" if info.kind == "numpy" else "warn"
            yield Finding(info.name, kind, "; ".join(report.problems), cure)
            continue
        works = works or info.kind == "opencl"
        speed = f", {report.gemm_gflops:.0f} GFLOP/s" if report.gemm_gflops else ""
        yield Finding(info.name, "ok", f"{info.hardware} with {info.driver}{speed}")
    if not works:
        text = "no device works; runs are on NumPy"
        yield Finding("OpenCL", "warn", text, "pip install 'pyopencl[pocl]', a driver for the CPU")


def _messaging() -> Iterator[Finding]:
    import zmq

    text = f"{zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}"
    if zmq.has("curve"):
        yield Finding("ZeroMQ", "ok", f"{text}, with CURVE: connections can be protected by keys")
    else:
        cure = "pip install --force-reinstall --only-binary pyzmq pyzmq"
        yield Finding("ZeroMQ", "warn", f"{text}, without CURVE: no protected connections", cure)


def _drawing() -> Iterator[Finding]:
    programs = [("the system's", shutil.which("dot")), ("the embedded", _embedded())]
    for whose, program in programs:
        if program is None:
            continue
        done = subprocess.run([program, "-V"], capture_output=True, check=False, timeout=30)
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        if done.returncode == 0:
            yield Finding("Graphviz", "ok", f"{whose}: {said}")
            return
        cure = "pip install --force-reinstall graphviz-pure"
        yield Finding("Graphviz", "warn", f"{program} does not run: {said}", cure)
    cure = "pip install graphviz-pure"
    yield Finding("Graphviz", "warn", "nothing that draws; only .dot files can be written", cure)


def _embedded() -> str | None:
    """Return the path of the layout program that came along."""
    try:
        files = metadata.files("graphviz-pure") or []
    except metadata.PackageNotFoundError:
        return None
    paths = (str(file.locate()) for file in files if file.stem == "graphviz-pure")
    return next(paths, None)


def _cache() -> Iterator[Finding]:
    from veloflow.devices.cache import cache_folder

    try:
        folder = cache_folder()
        with tempfile.NamedTemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except (OSError, VeloflowError) as error:
        cure = "set VELOFLOW_CACHE to a folder that you may write to"
        yield Finding("cache folder", "warn", str(error), cure)
        return
    text = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < SCARCE:
        yield Finding("cache folder", "warn", text, "free some space, or set VELOFLOW_CACHE")
    else:
        yield Finding("cache folder", "ok", text)
