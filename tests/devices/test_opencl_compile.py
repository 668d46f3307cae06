"""Kernels that crash, hang, do not compile or compute nonsense cost one operation, not the run."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.opencl, pytest.mark.slow]

_GEMM = """
kernel void gemm(global const float *a, global const float *b, global float *out,
                 global const float *bias, global float *spare, const int has_bias,
                 const int packs, const long stack, const long rows, const long columns,
                 const long inner, const long a_row, const long a_inner, const long b_inner,
                 const long b_column, const float alpha, const float beta) {{ {body} }}
"""


def _open(folder, **options):
    from veloflow.devices.opencl import OpenCLDevice
    from veloflow.devices.opencl.platforms import open_hardware

    return OpenCLDevice(open_hardware("opencl"), cache=folder, **options)


def _multiplies(device) -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.arange(12, dtype=np.float32).reshape(3, 4)
    out = device.zeros((2, 4))
    device.gemm(device.asarray(a), device.asarray(b), out)()
    np.testing.assert_allclose(out.read(), a @ b)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("this is no C", "gemm"),
        ("", "numbers"),
        ("*(volatile global int *)(8) = 1;", "process died (signal"),
        ("for (volatile int n = 1; n; ) n = 1;", "did not answer within"),
    ],
    ids=["does not compile", "computes nothing", "crashes", "hangs"],
)
def test_a_bad_kernel_is_replaced_by_numpy_and_noted(tmp_path, body: str, says: str) -> None:
    device = _open(tmp_path, limit=8.0, sources={"gemm": _GEMM.format(body=body)})
    if "signal" in says and not device._engine.hardware.is_cpu:
        device.close()
        pytest.skip("a bad address on a GPU ends no process")
    try:
        _multiplies(device)
        notes = " ".join(device.info().notes)
        assert "gemm is computed by NumPy" in notes
        assert says in notes, notes
    finally:
        device.close()


def test_compiled_kernels_are_kept_and_need_no_child_again(tmp_path) -> None:
    first = _open(tmp_path)
    _multiplies(first)
    assert first._engine.compiler.worker.starts == 1
    first.close()
    second = _open(tmp_path)
    _multiplies(second)
    assert second._engine.compiler.worker.starts == 0
    second.close()


def test_a_damaged_kernel_is_compiled_again(tmp_path) -> None:
    first = _open(tmp_path)
    _multiplies(first)
    first.close()
    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert files
    for file in files:
        file.write_bytes(b"damaged")
    second = _open(tmp_path)
    _multiplies(second)
    assert second.info().notes == ()
    second.close()
