"""Convolution and its gradients on every device, against sums written out in float64 here."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veloflow.devices import Window, open_device
from veloflow.devices import expressions as ex
from veloflow.devices.opencl import OpenCLDevice
from veloflow.devices.opencl.cook_toom import cook_toom
from veloflow.devices.opencl.platforms import open_hardware
from veloflow.errors import DeviceError, ShapeError

SOME = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TANH = 1.7159 * ex.tanh(0.6666 * ex.element("x"))
SLOPE = 1.14381894 - 0.388484177 * ex.element("y") * ex.element("y")


OPENCL = [pytest.param(name, marks=pytest.mark.opencl) for name in ("opencl", "as a GPU")]


@pytest.fixture(scope="module", params=["numpy", *OPENCL])
def device(request):
    """Return a device; "as a GPU" is the one of "opencl" taken for one with memory of its own."""
    try:
        if request.param == "as a GPU":
            hardware = open_hardware("opencl")
            vars(hardware)["is_cpu"] = False
            opened = OpenCLDevice(hardware)
        else:
            opened = open_device(request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    yield opened
    assert opened.info().notes == ()
    opened.close()


def numbers(*shape: int, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape)


def patches(x, window):
    """Return what windows see, (batch, oh, ow, ky, kx, channels), with zeros outside."""
    (ky, kx), (sy, sx), (oh, ow) = window.kernel, window.stride, window.places
    left, top, right, bottom = window.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(x, (ky, kx), (1, 2))[:, ::sy, ::sx]
    return seen[:, :oh, :ow].transpose(0, 1, 2, 4, 5, 3)


def sums(x, weights, window, groups):
    """Return the convolution, group by group."""
    seen, parts = patches(x, window), []
    for own, kernels in zip(np.split(seen, groups, -1), np.split(weights, groups), strict=True):
        shape = (len(kernels), *window.kernel, -1)
        parts.append(np.einsum("nyxijc,kijc->nyxk", own, kernels.reshape(shape)))
    return np.concatenate(parts, -1)


def gradients(d, x, weights, window, groups):
    """Return dL/dw, dL/db and dL/dx: the convolution is linear in x and in the weights."""
    seen, by_weights = patches(x, window), []
    for own, err in zip(np.split(seen, groups, -1), np.split(d, groups, -1), strict=True):
        by_weights.append(np.einsum("nyxijc,nyxk->kijc", own, err).reshape(err.shape[-1], -1))
    (ky, kx), (sy, sx), (left, top, right, bottom) = window.kernel, window.stride, window.padding
    height, width, channels = window.image
    wide = np.zeros((len(x), height + top + bottom, width + left + right, channels))
    shape = (len(weights) // groups, ky, kx, channels // groups)
    for g, (err, own) in enumerate(
        zip(np.split(d, groups, -1), np.split(weights, groups), strict=True)
    ):
        each = np.einsum("nyxk,kijc->nyxijc", err, own.reshape(shape))
        for y in range(d.shape[1]):
            for z in range(d.shape[2]):
                here = wide[:, y * sy : y * sy + ky, z * sx : z * sx + kx]
                here[..., g * shape[3] : (g + 1) * shape[3]] += each[:, y, z]
    inside = wide[:, top : top + height, left : left + width]
    return np.concatenate(by_weights), d.sum((0, 1, 2)), inside


def check(device, window, *, batch=3, kernels=4, groups=1, dtype=np.float64, scale=1.0):
    """Compare forward and backward with the sums above."""
    x = numbers(batch, *window.image)
    weights = numbers(kernels, window.length // groups, seed=1) / math.sqrt(window.length)
    bias, err = numbers(kernels, seed=2), numbers(batch, *window.places, kernels, seed=3)
    arrays = {
        "x": device.asarray(x, dtype), "weights": device.asarray(weights, dtype),
        "bias": device.asarray(bias, dtype), "err": device.asarray(err, dtype),
    }  # fmt: skip
    out = device.asarray(np.full(err.shape, np.nan), dtype)
    device.convolution(
        arrays["x"], arrays["weights"], out, window, groups=groups, bias=arrays["bias"],
        activation=TANH,
    )()  # fmt: skip
    y = 1.7159 * np.tanh(0.6666 * (sums(x, weights, window, groups) + bias))
    d = err * (1.14381894 - 0.388484177 * y * y)
    found = [device.asarray(np.full(one.shape, np.nan), dtype) for one in (weights, bias, x)]
    device.convolution_gradient(
        arrays["err"], arrays["x"], arrays["weights"], window, groups=groups,
        y=device.asarray(y, dtype), slope=SLOPE, weights_gradient=found[0],
        bias_gradient=found[1], input_gradient=found[2],
    )()  # fmt: skip
    wanted = [y, *gradients(d, x, weights, window, groups)]
    for got, expected in zip([out, *found], wanted, strict=True):
        tolerance = (1e-5 if dtype == np.float32 else 1e-12) * scale
        size = 1 + np.abs(expected).max()
        np.testing.assert_allclose(got.read(), expected, rtol=0, atol=tolerance * size)


SHAPES = [
    Window((6, 7, 1), (3, 3), (1, 1)),
    Window((8, 8, 3), (5, 5), (1, 1), (2, 2, 2, 2)),
    Window((7, 9, 2), (3, 2), (2, 1), (1, 0, 2, 1)),
    Window((5, 6, 20), (1, 1), (1, 1)),
    Window((9, 9, 17), (1, 1), (3, 2)),
    Window((9, 6, 3), (2, 3), (3, 4), (0, 2, 0, 2)),
    Window((4, 4, 33), (4, 4), (1, 1)),
    Window((1, 12, 5), (1, 5), (1, 1), (2, 0, 2, 0)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", SHAPES, ids=str)
def test_convolution(device, window, dtype):
    check(device, window, dtype=dtype)
    check(device, window, dtype=dtype, batch=1, kernels=37)


TILED = [
    Window((14, 14, 16), (5, 5), (1, 1), (2, 2, 2, 2)),
    Window((12, 12, 19), (5, 5), (1, 1)),
    Window((8, 13, 9), (5, 5), (1, 1), (4, 0, 1, 3)),
    Window((9, 8, 16), (3, 3), (1, 1), (1, 1, 1, 1)),
    Window((12, 5, 33), (3, 3), (1, 1), (0, 2, 1, 1)),
]


@pytest.mark.parametrize("window", TILED, ids=str)
@pytest.mark.parametrize(("batch", "kernels"), [(1, 16), (5, 37), (19, 12)])
def test_convolution_of_many_channels(device, window, batch, kernels):
    """Large enough for tiles with fewer multiplications, which round a little more."""
    check(device, window, dtype=np.float32, batch=batch, kernels=kernels, scale=2)


@pytest.mark.opencl
@pytest.mark.parametrize("window", TILED, ids=str)
def test_tiles_are_chosen_by_shapes_alone(window):
    from veloflow.devices.opencl.direct import Problem
    from veloflow.devices.opencl.formulas import Numbers
    from veloflow.devices.opencl.winograd import Tiling

    float32 = np.dtype(np.float32)
    problem = Problem(8, window, 16, 1, float32, True, None)
    assert Tiling.of(problem, Numbers("float", 8)) is not None
    for other in (
        replace(problem, dtype=np.dtype(np.float64)),
        replace(problem, kernels=2),
        replace(problem, window=replace(window, stride=(2, 2))),
        replace(problem, window=replace(window, image=(*window.kernel, 16), padding=(0, 0, 0, 0))),
    ):
        assert Tiling.of(other, Numbers("float", 8)) is None


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (4, 3), (4, 5), (6, 3)])
def test_fewer_multiplications_give_the_same_sums(outputs, taps):
    numbers = cook_toom(outputs, taps)
    a, b, g = (np.array(one, object) for one in (numbers.a, numbers.b, numbers.g))
    x = np.array([Fraction(n * n - 3, 7) for n in range(numbers.points)], object)
    weights = np.array([Fraction(2 * n + 1, 5) for n in range(taps)], object)
    wanted = [sum(weights * x[n : n + taps]) for n in range(outputs)]
    assert (a.T @ ((g @ weights) * (b.T @ x))).tolist() == wanted


@pytest.mark.parametrize(("groups", "kernels"), [(2, 4), (3, 54), (6, 6)])
def test_groups(device, groups, kernels):
    window = Window((6, 5, 6), (3, 3), (1, 1), (1, 1, 1, 1))
    check(device, window, groups=groups, kernels=kernels)


@given(st.data())
@SOME
def test_convolution_of_any_shape(device, data):
    draw = data.draw
    groups = draw(st.integers(1, 3))
    image = (draw(st.integers(3, 9)), draw(st.integers(3, 9)), groups * draw(st.integers(1, 5)))
    window = Window(
        image,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        tuple(draw(st.integers(0, 2)) for _ in range(4)),
    )
    kernels, batch = groups * draw(st.integers(1, 9)), draw(st.integers(1, 9))
    check(device, window, groups=groups, kernels=kernels, batch=batch)


def test_only_what_is_asked_for(device):
    window = SHAPES[1]
    x, weights = device.asarray(numbers(2, *window.image)), device.asarray(numbers(4, 75, seed=1))
    err = device.asarray(numbers(2, *window.places, 4, seed=3))
    wanted = gradients(err.read(), x.read(), weights.read(), window, 1)
    for name, expected in zip(
        ("weights_gradient", "bias_gradient", "input_gradient"), wanted, strict=True
    ):
        out = device.zeros(expected.shape, np.float64)
        device.convolution_gradient(err, x, weights, window, **{name: out})()
        np.testing.assert_allclose(out.read(), expected, rtol=1e-10, atol=1e-11)
    device.convolution_gradient(err, x, weights, window)()


def test_convolution_shape_errors(device):
    window = SHAPES[1]
    x, weights, out = (device.zeros(shape) for shape in ((2, 8, 8, 3), (4, 75), (2, 8, 8, 4)))
    for wrong in (
        lambda: device.convolution(out, weights, x, window),
        lambda: device.convolution(x, weights, out, window, groups=3),
        lambda: device.convolution(x, device.zeros((4, 74)), out, window),
        lambda: device.convolution(x, weights, out, window, bias=device.zeros((3,))),
        lambda: device.convolution(x, weights, device.zeros(out.shape, np.float64), window),
        lambda: device.convolution_gradient(out, x, weights, window, slope=SLOPE),
    ):
        with pytest.raises(ShapeError):
            wrong()


BITS = """
import hashlib, sys
import numpy as np
from veloflow.devices import Window, open_device
from veloflow.devices.expressions import element

device, digest = open_device("opencl"), hashlib.sha256()
for window, kernels in (
    (Window((14, 14, 16), (5, 5), (1, 1), (2, 2, 2, 2)), 32), (Window((9, 8, 3), (3, 3), (2, 1)), 7)
):
    shapes = {
        "x": (37, *window.image), "w": (kernels, window.length), "y": (37, *window.places, kernels),
        "b": (kernels,), "dx": (37, *window.image), "dw": (kernels, window.length),
    }
    random = np.random.default_rng(3)
    arrays = {name: device.asarray(random.standard_normal(s), "f4") for name, s in shapes.items()}
    x, w, y, b, dx, dw = arrays.values()
    device.convolution(x, w, y, window, bias=b)()
    device.convolution_gradient(
        y, x, w, window, y=y, slope=element("y") > 0, weights_gradient=dw, bias_gradient=b,
        input_gradient=dx,
    )()
    for one in arrays.values():
        digest.update(one.read().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.opencl
@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads():
    found = set()
    for threads in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", BITS], env={**os.environ, "POCL_MAX_PTHREAD_COUNT": threads},
            capture_output=True, text=True, timeout=240, check=True,
        )  # fmt: skip
        found.add(run.stdout)
    assert len(found) == 1
