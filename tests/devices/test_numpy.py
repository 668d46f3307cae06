"""What is the NumPy device's own: how it lays out memory and calls, and what it allocates."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest

from veloflow.devices import expressions as ex
from veloflow.devices.base import Array, Space
from veloflow.devices.benchmark import SmallStep, gemm_gflops, small_step_seconds
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.numpy_plan import Plan, aligned_zeros
from veloflow.errors import DeviceError, KernelError

X, Y = ex.element("x"), ex.element("y")
REAL = np.dtype(np.float32)


@pytest.fixture
def device():
    return NumpyDevice()


def plan_of(formulas, space=None, **leaves):
    """Plan formulas, by the name of the leaf that each goes to, over flat leaves."""
    size = max(leaf.size for leaf in leaves.values())
    space = space or Space(1, size, dict.fromkeys(leaves, "full"))
    return Plan(list(formulas.values()), leaves, space, REAL, [leaves[name] for name in formulas])


def flat(size=10):
    return aligned_zeros((size,), REAL)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (1000,)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
def test_memory_is_aligned(shape, dtype):
    for _ in range(5):
        array = aligned_zeros(shape, dtype)
        assert array.size == 0 or array.ctypes.data % 64 == 0
        assert array.shape == shape
        assert array.dtype == np.dtype(dtype)


def test_result_goes_straight_to_its_output():
    plan = plan_of({"y": ex.tanh(X * 2 + 1)}, x=flat(), y=flat())
    assert len(plan.calls()) == 3


def test_equal_parts_are_computed_once():
    plan = plan_of({"y": ex.tanh(X * 2) + ex.tanh(X * 2)}, x=flat(), y=flat())
    assert len(plan.calls()) == 3


def test_what_is_constant_is_computed_once_for_all_blocks():
    x, y = flat(100_000), flat(100_000)
    blocks = len(list(plan_of({"y": X * 2}, x=x, y=y).blocks()))
    plan = plan_of({"y": X * (ex.scalar("a") * ex.scalar("b") - 1)}, x=x, y=y)
    assert blocks > 3
    assert len(plan.calls()) == 2 + blocks


def test_scratch_is_used_again():
    """A chain of any length needs one piece of scratch, however many steps it has."""
    x, y = flat(), aligned_zeros((10,), np.int32)  # integers: nothing can be computed in place
    formula = X
    for step in range(10):
        formula = ex.tanh(formula) * (step + 2)
    calls = plan_of({"y": formula}, x=x, y=y).calls()
    places = {id_of(call) for call in calls[:-1]}
    assert len(calls) == 21
    assert len(places) == 1


def id_of(call):
    return call[1][-1].ctypes.data


def test_array_of_another_device_is_refused(device):
    stranger = NumpyDevice().zeros((3,))
    with pytest.raises(DeviceError, match="another device"):
        device.read(stranger)
    with pytest.raises(DeviceError, match="no memory yet"):
        Array(device, (3,), REAL).read()


def test_index_beyond_the_source_is_found(device):
    source, where, out = device.zeros((5, 2)), device.zeros((3,), np.int32), device.zeros((3, 2))
    launch = device.gather(source, where, out)
    where.write([0, 4, 5])
    with pytest.raises(KernelError, match="index 5 is beyond the 5 rows"):
        launch()


def test_empty_arrays(device):
    empty, out = device.zeros((0, 3)), device.zeros((3,))
    device.elementwise({"x": X + 1}, {"x": empty})()
    device.reduce("sum", X, {"x": empty}, out, axis=0)()
    product = device.asarray(np.ones((2, 3), np.float32))
    device.gemm(device.zeros((2, 0)), empty, product)()
    device.gather(device.zeros((4, 3)), device.zeros((0,), np.int32), empty)()
    device.uniform(empty, (1, 2))(stream=0, row=0)
    np.testing.assert_array_equal(out.read(), np.zeros(3))
    np.testing.assert_array_equal(product.read(), np.zeros((2, 3)))


def test_steady_state_allocates_nothing(device):
    """Neither arrays nor anything else grows while the same step runs again and again."""
    step = SmallStep(device)
    gather = device.gather(
        device.zeros((50, 784), np.uint8), device.zeros((100,), np.int32), device.zeros((100, 784))
    )
    uniform = device.uniform(device.zeros((100, 100)), (1, 2))

    def run():
        step()
        gather()
        uniform(stream=1, row=5)

    run()
    tracemalloc.start()
    run()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(3):
        run()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now - before < 2_000
    assert peak - before < 100_000  # less than a single array of the step


def test_launch_leaves_the_callers_error_handling_alone(device):
    array = device.asarray(np.full(5, 1e30, np.float32))
    with np.errstate(all="raise"):
        device.elementwise({"x": X * X}, {"x": array})()
        assert np.geterr()["over"] == "raise"
    assert np.isinf(array.read()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        device.elementwise({"x": X - X}, {"x": array})()


def test_small_step_learns(device):
    """The step that devices are measured with is one of real training: its error falls."""
    step = SmallStep(device)
    before = np.array(step.parameters.read())
    step()
    after = np.array(step.parameters.read())
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-4


def test_figures_are_numbers(device):
    assert gemm_gflops(device, size=64, seconds=0.01) > 0
    assert 0 < small_step_seconds(device, 0.01) < 1
