"""Products that share a matrix: NumPy's numbers, and the bits of products of their own."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.devices import open_device
from veloflow.devices.joint_products import one_by_one
from veloflow.devices.opencl.device import OpenCLDevice
from veloflow.devices.opencl.joint_products import _items
from veloflow.devices.opencl.platforms import open_hardware
from veloflow.errors import DeviceError, ShapeError

#: rows of the matrices, columns of the shared one, and of the others (None: sums of its columns)
SIZES = [
    (1, 1, (1,)),
    (5, 3, (None,)),
    (37, 20, (5, None, 70)),
    (500, 130, (33, 28, None)),
    (193, 64, (32, None)),
    (400, 17, (3, 2, 1, 64)),
]


@pytest.fixture(scope="module", params=["numpy", pytest.param("opencl", marks=pytest.mark.opencl)])
def device(request):
    try:
        opened = open_device(request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


def given(inner, rows, widths, dtype):
    random = np.random.default_rng(4)
    a = random.uniform(-1, 1, (inner, rows)).astype(dtype)
    shapes = [one if one is None else (inner, one) for one in widths]
    return a, [one and random.uniform(-1, 1, one).astype(dtype) for one in shapes]


def results(device, a, factors, bind=None):
    outs = [device.zeros((a.shape[1], *(() if b is None else b.shape[1:])), a.dtype)
            for b in factors]  # fmt: skip
    placed = [b if b is None else device.asarray(b) for b in factors]
    (bind or device.joint_products)(device.asarray(a), placed, outs)()
    return [np.array(one.read()) for one in outs]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_the_numbers_are_those_of_plain_products(device, size, dtype):
    a, factors = given(*size, dtype)
    tolerance = 1e-4 if dtype is np.float32 else 1e-12
    for found, b in zip(results(device, a, factors), factors, strict=True):
        wanted = a.sum(axis=0) if b is None else a.T @ b
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    assert not device.info().notes


@pytest.mark.opencl
@pytest.mark.parametrize("size", SIZES)
def test_bits_do_not_depend_on_who_shares_the_matrix(size):
    device = open_device("opencl")
    a, factors = given(*size, np.float32)
    together = results(device, a, factors)
    alone = results(device, a, factors, lambda *all_: one_by_one(device, *all_))
    for ours, (number, b) in zip(together, enumerate(factors), strict=True):
        (single,) = results(device, a, [b])
        np.testing.assert_array_equal(ours, single)
        if b is not None:
            np.testing.assert_array_equal(ours, alone[number])
    device.close()


@pytest.mark.opencl
def test_bits_do_not_depend_on_the_number_of_work_items(monkeypatch):
    a, factors = given(*SIZES[3], np.float32)
    found = []
    for items in (1, 2, 7, 17):
        module = "veloflow.devices.opencl.joint_products._items"
        monkeypatch.setattr(module, lambda down, units, items=items: items)
        device = open_device("opencl")
        found.append(results(device, a, factors))
        device.close()
    for other in found[1:]:
        for ours, first in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(ours, first)


@pytest.mark.parametrize(
    ("tiles", "units", "items"), [(64, 2, 8), (1, 2, 1), (5, 2, 5), (86, 2, 8)]
)
def test_work_is_cut_so_that_the_busiest_core_has_least(tiles, units, items):
    assert _items(tiles, units) == items


@pytest.mark.opencl
def test_where_the_kernel_is_wrong_products_are_their_own(tmp_path):
    """A kernel that leaves out the last row, and one that is no OpenCL."""
    from veloflow.devices.opencl.recipes import kernel_source

    a, factors = given(*SIZES[2], np.float32)
    good = OpenCLDevice(open_hardware("opencl"), cache=tmp_path / "good")
    wanted, compiler, seen = results(good, a, factors), good._engine.compiler, []
    ask = compiler.program
    compiler.program = lambda recipe, trial: (seen.append(recipe), ask(recipe, trial))[1]
    results(good, a, factors)
    good.close()
    (source,) = {one.source for one in seen if one.name == "joint products"}
    assert kernel_source("joint_products") in source
    for number, broken in enumerate(("k < depth - 1", "k < depth -")):
        device = OpenCLDevice(
            open_hardware("opencl"),
            cache=tmp_path / str(number),
            sources={"joint products": source.replace("k < depth", broken)},
        )
        for ours, expected in zip(results(device, a, factors), wanted, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
        assert any("joint products" in note for note in device.info().notes)
        device.close()


def test_what_does_not_fit_is_refused(device):
    a, b = device.zeros((4, 3)), device.zeros((4, 2))
    for factors, outs in (
        ([b], [device.zeros((3, 3))]),
        ([device.zeros((3, 2))], [device.zeros((3, 2))]),
        ([None], [device.zeros((4,))]),
        ([b], []),
        ([], []),
        ([b], [device.zeros((3, 2), "float64")]),
    ):
        with pytest.raises(ShapeError):
            device.joint_products(a, factors, outs)
