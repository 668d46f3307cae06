"""What all tests share: nothing they do is written into the user's own folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config):
    """Point every cache below VELOFLOW_CACHE, which is pytest's own folder unless tox set it."""
    if "VELOFLOW_CACHE" not in os.environ:
        cache = getattr(config, "cache", None)  # absent under -p no:cacheprovider
        folder = cache.mkdir("veloflow") if cache else _passing_folder(config)
        os.environ["VELOFLOW_CACHE"] = str(folder)
    root = Path(os.environ["VELOFLOW_CACHE"])
    for variable, name in (("POCL_CACHE_DIR", "pocl"), ("XDG_CACHE_HOME", "xdg")):
        (root / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(root / name)


def _passing_folder(config):
    folder = tempfile.mkdtemp(prefix="veloflow-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder


@pytest.fixture(scope="session")
def opencl_device():
    """Return the first OpenCL device; PoCL is installed with veloflow, so there is one."""
    from veloflow.devices.opencl import OpenCLDevice

    device = OpenCLDevice.open("opencl")
    yield device
    device.close()
