"""The null device: shapes are kept, nothing is computed, launches are counted."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.devices import Window, open_device
from veloflow.devices import expressions as ex
from veloflow.devices.base import Program
from veloflow.devices.null import NullDevice
from veloflow.errors import ShapeError


@pytest.fixture
def device():
    return open_device("null")


def test_arrays_have_shapes_and_read_zeros(device):
    array = device.array((3, 4), np.int32)
    assert not array.is_allocated
    device.allocate(array)
    array.write(np.ones((3, 4)))
    assert array.is_allocated
    assert array.read().dtype == np.int32
    np.testing.assert_array_equal(array.read(), np.zeros((3, 4)))
    assert array.reshape(12).shape == (12,)


def test_huge_arrays_cost_nothing(device):
    huge = device.zeros((1 << 40, 1 << 10))
    assert huge.read().shape == huge.shape
    assert device.view(huge, 128, (5, 5)).read().shape == (5, 5)


def test_shapes_are_checked(device):
    array = device.zeros((3, 4))
    with pytest.raises(ShapeError):
        array.write(np.ones(5))
    with pytest.raises(ShapeError):
        device.view(array, 0, (13,))
    with pytest.raises(ShapeError):
        array.reshape(5)


def test_every_launch_is_counted(device):
    x, program = device.zeros((3, 4)), Program("p", "", lambda: None, ())
    window = Window((3, 4, 1), (1, 1), (1, 1))
    launches = {
        "gemm": device.gemm(x, x, x, transpose_a=True),
        "convolution": device.convolution(x, x, x, window),
        "convolution_gradient": device.convolution_gradient(x, x, x, window),
        "elementwise": device.elementwise({"x": ex.element("x") + ex.scalar("a")}, {"x": x}),
        "reduce": device.reduce("sum", ex.element("x"), {"x": x}, x, axis=None),
        "softmax": device.softmax(x, x),
        "gather": device.gather(x, x, x),
        "uniform": device.uniform(x, (1, 2)),
        "program": device.program(program, {}, (1,)),
        "joint_products": device.joint_products(x, [x, None], [x, x]),
    }
    assert not device.launches  # binding is not launching
    for times, launch in enumerate(launches.values(), start=1):
        for _ in range(times):
            launch(a=1.0)
    assert device.launches == {name: times for times, name in enumerate(launches, start=1)}
    device.copy(x, x)()
    assert device.launches["elementwise"] == 5
    device.synchronize()
    device.close()


def test_each_device_counts_for_itself(device):
    device.softmax(device.zeros((2,)), device.zeros((2,)))()
    assert NullDevice().launches.total() == 0
    assert device.info().kind == "null"
