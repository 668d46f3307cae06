"""Precision levels: each loses less to rounding than the one before, on every device."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import veloflow
from veloflow.devices.expressions import element, tanh
from veloflow.devices.numpy import NumpyDevice
from veloflow.errors import DeviceError, OptionError


def _product(device, level, a, b, *, dtype, **options):
    device.precision_level = level
    try:
        rows = a.shape[1] if options.get("transpose_a") else a.shape[0]
        columns = b.shape[0] if options.get("transpose_b") else b.shape[1]
        out = device.asarray(np.ones((rows, columns)), dtype)
        if "bias" in options:
            options["bias"] = device.asarray(options["bias"], dtype)
        device.gemm(device.asarray(a, dtype), device.asarray(b, dtype), out, **options)()
        return np.array(out.read())
    finally:
        device.precision_level = 0


def _exact(a, b):
    """Return the product as fractions, rounded once at the end."""
    left = [[Fraction(float(value)) for value in row] for row in a]
    right = [[Fraction(float(value)) for value in column] for column in b.T]
    sums = [[sum(x * y for x, y in zip(row, col, strict=True)) for col in right] for row in left]
    return np.array([[float(one) for one in row] for row in sums])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_fall_from_level_to_level(dtype):
    random = np.random.default_rng(1)
    # much cancels: the sums are small beside what is added
    a = (random.normal(size=(4, 3000)) * 10 ** random.uniform(-2, 2, (4, 3000))).astype(dtype)
    b = random.normal(size=(3000, 3)).astype(dtype)
    exact = _exact(a, b)
    device = NumpyDevice()
    errors = [
        np.abs(_product(device, level, a, b, dtype=dtype).astype(np.float64) - exact).max()
        for level in (0, 1, 2)
    ]
    rounding = np.spacing(np.abs(exact).max().astype(dtype))
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] <= rounding
    assert errors[2] < errors[1]


@pytest.mark.opencl
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_forms_of_a_product_and_both_devices(level, dtype, opencl_device):
    random = np.random.default_rng(2)
    activation = 1.7159 * tanh(0.6666 * element("x"))
    for left in (False, True):
        for right in (False, True):
            a, b = random.normal(size=(150, 7)), random.normal(size=(5, 150))
            given = (a if left else a.T), (b if right else b.T)
            options = {
                "transpose_a": left, "transpose_b": right, "alpha": 0.5, "beta": 2.0,
                "bias": np.arange(5.0), "activation": activation,
            }  # fmt: skip
            found = _product(NumpyDevice(), level, *given, dtype=dtype, **options)
            expected = 1.7159 * np.tanh(0.6666 * (0.5 * (a.T @ b.T) + 2 + np.arange(5.0)))
            tolerance = 1e-5 if dtype == "float32" else 1e-13
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
            if not opencl_device._engine.hardware.is_cpu:
                continue  # it has no levels, as a test below shows
            there = _product(opencl_device, level, *given, dtype=dtype, **options)
            assert np.array_equal(there, found)


def test_zeros_and_nothing_are_no_trouble():
    device = NumpyDevice()
    for level in (1, 2):
        for dtype in ("float32", "float64"):
            zeros = np.zeros((2, 300))
            found = _product(device, level, zeros, zeros.T, dtype=dtype)
            assert not found.any()
            none = _product(device, level, np.zeros((2, 0)), np.zeros((0, 3)), dtype=dtype)
            assert not none.any()


def test_sums_of_float64_lose_less_at_level_2():
    device = NumpyDevice()
    values = np.tile([1e16, 1.0, -1e16, 1.0], 1000)
    found = {}
    for level in (0, 2):
        device.precision_level = level
        out = device.zeros((1,), "float64")
        device.reduce("sum", element("x"), {"x": device.asarray(values)}, out, axis=None)()
        found[level] = float(out.read()[0])
    if np.finfo(np.longdouble).nmant > 52:
        assert abs(found[2] - 2000) < abs(found[0] - 2000)


@pytest.mark.opencl
def test_a_device_with_memory_of_its_own_says_that_it_has_no_levels(opencl_device, monkeypatch):
    hardware = opencl_device._engine.hardware
    monkeypatch.setitem(vars(hardware), "is_cpu", False)
    with pytest.raises(DeviceError, match="--device numpy"):
        _product(opencl_device, 1, np.ones((2, 2)), np.ones((2, 2)), dtype="float32")


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(OptionError, match="give 0, 1 or 2"):
        veloflow.run("digits_mlp", device="numpy", precision_level=3)


@pytest.mark.slow
def test_a_run_trains_at_every_level():
    errors = []
    for level in (0, 1, 2):
        result = veloflow.run("digits_mlp", device="numpy", epochs=2, precision_level=level)
        errors.append((result.parameters_sha256, result.best["validation_error_percent"]))
    assert len({sha for sha, _ in errors}) == 3
    assert max(error for _, error in errors) - min(error for _, error in errors) < 2


@pytest.mark.cluster
@pytest.mark.slow
def test_slaves_compute_at_the_level_of_the_run():
    options = {"device": "numpy", "epochs": 1, "sharing": "sync", "precision_level": 2}
    alone = veloflow.run("digits_mlp", **options)
    assert veloflow.run("digits_mlp", slaves=1, **options).parameters_sha256 == (
        alone.parameters_sha256
    )
    options["precision_level"] = 0
    assert veloflow.run("digits_mlp", **options).parameters_sha256 != alone.parameters_sha256
