"""The tuner on a real device: bad variants are set aside, results are kept, seen and used."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from veloflow.devices.opencl import OpenCLDevice
from veloflow.devices.opencl.platforms import open_hardware
from veloflow.devices.opencl.search import Family, Search
from veloflow.devices.opencl.tiles import Blas, Choice, Direct, Packed, default_choices
from veloflow.devices.opencl.tune import tune
from veloflow.devices.opencl.tuning import Tuning, load_tuning, save_tuning, tuning_file
from veloflow.errors import DeviceError

pytestmark = [pytest.mark.opencl, pytest.mark.slow]

HARDWARE = open_hardware("opencl")
VECTOR = HARDWARE.facts.vector_bytes
GOOD, ABORTS, HANGS, WRONG = (Direct(tall, 1, VECTOR) for tall in (6, 8, 10, 4))
#: PoCL keeps programs by their text without comments, also what a killed child left half written:
#: so each run has its own
_HEAD = """
kernel void gemm(global const float *a, global const float *b, global float *out,
                 global const float *bias, global float *spare, const int has_bias,
                 const int packs, const long stack, const long rows, const long columns,
                 const long inner, const long a_row, const long a_inner, const long b_inner,
                 const long b_column, const float alpha, const float beta)
""".replace("stack", f"stack_{time.time_ns()}")
#: the child as it is, but for a compiler that aborts on a certain text, as LLVM does on its
#: own errors (PoCL 3.0 with vload16 does, but now and then it hangs instead)
_CHILD = """
import os
from veloflow.devices.opencl import compile_worker
build = compile_worker.Workbench.build
def build_or_abort(self, recipe, trial):
    if "the compiler aborts" in recipe.source:
        os.abort()
    return build(self, recipe, trial)
compile_worker.Workbench.build = build_or_abort
compile_worker.main()
"""
SOURCES = {
    str(ABORTS): f"{_HEAD}{{ /* the compiler aborts */ }}",
    str(HANGS): f"{_HEAD}{{ for (volatile int n = 1; n; ) n = 1; }}",
    str(WRONG): f"{_HEAD}{{ out[get_global_id(0)] = 1; }}",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VELOFLOW_CACHE", str(tmp_path))


def quick(candidates, budget=200.0):
    """Return a search of a few methods at small sizes."""
    families = [Family(candidates, 64), Family([Blas()], 64)]
    return Search(HARDWARE.facts, budget, families, (32, 64))


def test_what_aborts_hangs_or_computes_wrongly_is_set_aside_and_the_others_are_chosen(
    caplog, monkeypatch
):
    command = (sys.executable, "-P", "-c", _CHILD)
    monkeypatch.setattr("veloflow.devices.opencl.compile._WORKER_COMMAND", command)
    said = []
    with caplog.at_level(logging.WARNING):
        tuning = tune(
            HARDWARE, budget=200.0, limit=10.0, sources=SOURCES,
            search=quick([ABORTS, HANGS, WRONG, GOOD]), report=lambda *what: said.append(what),
        )  # fmt: skip
    reasons = {one.method: one.reason for one in tuning.set_aside}
    assert "did not answer within" in reasons[str(HANGS)]
    assert "wrong numbers" in reasons[str(WRONG)]
    assert "process died (signal 6)" in reasons[str(ABORTS)]
    assert len(reasons) == 3
    for name in reasons:
        assert f"{name} is set aside" in caplog.text
    assert tuning.is_complete
    assert tuning.gemm[0].method == GOOD
    assert said[-1][0] == said[-1][1]
    assert load_tuning(HARDWARE) == tuning


def test_what_was_tuned_is_used_and_seen():
    choices = (Choice(0, GOOD), Choice(200, Packed(6, 2, VECTOR, 64, 4)), Choice(400, Blas()))
    builtin = Tuning.builtin(HARDWARE.identity, HARDWARE.facts)
    save_tuning(msgspec.structs.replace(builtin, gemm=choices, when="2026-11-26T00:00:00+00:00"))
    device = OpenCLDevice(HARDWARE)
    try:
        assert device._engine.tuning.gemm == choices
        lines = device.info().methods
        assert str(GOOD) in lines[0]
        assert "tuned 2026-11-26" in lines[-1]
        assert device.fingerprint != "", "with the BLAS large products have other bits"
    finally:
        device.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: b"\x00not json", "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content.replace(b'"tall": 6', b'"tall": "six"'), "damaged"),
        (lambda content: content.replace(b'"format": 1', b'"format": 0'), "other kernels"),
        (lambda content: content.replace(b'"vector": ', b'"vector": 9'), "does not take"),
        (lambda content: content.replace(b'"from_size": 0', b'"from_size": 5'), "do not rise"),
    ],
    ids=["no json", "cut short", "wrong type", "outdated", "not for this device", "no first size"],
)
def test_a_file_that_does_not_fit_is_named_and_ignored(change, says, caplog):
    builtin = Tuning.builtin(HARDWARE.identity, HARDWARE.facts)
    tuned = msgspec.structs.replace(builtin, gemm=(Choice(0, Direct(6, 1, VECTOR)),))
    path = save_tuning(tuned)
    assert load_tuning(HARDWARE) == tuned
    path.write_bytes(change(path.read_bytes()))
    assert load_tuning(HARDWARE).gemm == default_choices(HARDWARE.facts)
    assert says in caplog.text
    assert str(path) in caplog.text


def test_a_second_tuner_is_told_of_the_first_and_the_file_stays_whole():
    builtin = Tuning.builtin(HARDWARE.identity, HARDWARE.facts)
    errors = []

    def report(made, expected, says):
        if not errors:
            with pytest.raises(DeviceError, match=f"process {os.getpid()}") as caught:
                tune(HARDWARE, budget=5.0, search=quick([GOOD]), report=lambda *what: None)
            errors.append(caught)

    tune(HARDWARE, budget=60.0, search=quick([GOOD]), report=report)
    assert errors
    writers = [
        threading.Thread(target=lambda: [save_tuning(builtin) for _ in range(20)]) for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        json.loads(tuning_file(HARDWARE.identity).read_bytes())
    for writer in writers:
        writer.join()
    assert load_tuning(HARDWARE) == builtin


def test_ctrl_c_keeps_what_was_found():
    def report(made, expected, says):
        if made == 2:
            raise KeyboardInterrupt

    tuning = tune(HARDWARE, budget=60.0, search=quick([GOOD, Direct(4, 2, VECTOR)]), report=report)
    assert len(tuning.figures) == 2
    assert not tuning.is_complete
    assert load_tuning(HARDWARE) == tuning


def test_the_command_tunes_shows_progress_and_what_was_chosen(tmp_path):
    command = [sys.executable, "-P", "-m", "veloflow", "devices", "--tune", "--seconds", "4"]
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240,
        env={**os.environ, "VELOFLOW_CACHE": str(tmp_path), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"1/\d+ direct .* GFLOP/s", done.stderr)
    assert "products from 0: direct" in done.stdout
    assert "not to its end" in done.stdout
    assert time.monotonic() - began < 200
    assert Tuning.builtin(HARDWARE.identity, HARDWARE.facts) != load_tuning(HARDWARE)


def test_an_unknown_device_is_one_line():
    command = [sys.executable, "-P", "-m", "veloflow", "devices", "--tune", "--device", "opencl:7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is no OpenCL device 'opencl:7'" in done.stderr
    assert "Traceback" not in done.stderr
