"""mnist_mlp in sync mode gives the parameters that local slaves give, on every engine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from engine_runs import run_on
from idx_files import write_idx

pytestmark = pytest.mark.engines

#: engine -> what stands for it, of tests/engines/conftest.py
FIXTURES = {"dask": "dask_client", "ray": "ray_cluster", "spark": "spark_context"}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """Return a folder with images of MNIST's form, and the bits that local slaves give."""
    folder = tmp_path_factory.mktemp("mnist")
    write_idx(folder, {"train": 1000, "t10k": 200})
    seen = run_on(None, workflow="mnist_mlp", data=folder, epochs=3)
    return folder, seen.sha256


def _run(on, mnist, **more):
    folder, _ = mnist
    return run_on(on, workflow="mnist_mlp", data=folder, epochs=3, **more).sha256


@pytest.mark.parametrize("engine", FIXTURES)
def test_engines_that_a_program_holds(request, engine, mnist):
    assert _run(request.getfixturevalue(FIXTURES[engine]), mnist) == mnist[1]


def test_ssh(ssh_server, mnist):
    assert _run("ssh", mnist, engine_options=ssh_server) == mnist[1]


def test_slurm(slurm, mnist):
    assert _run("slurm", mnist) == mnist[1]


def test_mpi(mnist):
    beside = Path(sys.executable).parent / "mpiexec"
    if not (shutil.which("mpiexec") or beside.is_file()):
        pytest.skip("no mpiexec")
    assert _run("mpi", mnist) == mnist[1]


def test_the_bits_are_those_of_a_lone_run(mnist):
    assert _run(None, mnist, slaves=0, sharing="sync") == mnist[1]
