"""Products of a few rows by blocks are those of the whole, and blocks follow from sizes alone."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.numpy_blocks import _SMALL, RowBlocks, block_of


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "sizes", [(32, 128, 784), (100, 100, 784), (17, 70, 1000), (60, 33, 2001), (33, 31, 1600)]
)
def test_blocks_give_the_product(dtype, sizes):
    rows, columns, inner = sizes
    random = np.random.default_rng(3)
    left = random.normal(size=(rows, inner)).astype(dtype)
    right = random.normal(size=(columns, inner)).astype(dtype)
    out = np.full((rows, columns), np.nan, dtype)
    block = block_of(*sizes)
    assert block is not None
    RowBlocks(left, right.T, out, block)()
    wide = left.astype(np.float64) @ right.T.astype(np.float64)
    tolerance = 5e-5 if dtype is np.float32 else 1e-11
    np.testing.assert_allclose(out, wide, rtol=tolerance, atol=tolerance)


def test_a_block_is_a_small_product():
    for inner in range(300, 4000, 37):
        block = block_of(100, 1000, inner)
        assert block is None or block[0] * block[1] * inner <= _SMALL
        assert (block is None) == (inner > 3906)


@pytest.mark.parametrize(
    "sizes", [(32, 10, 784), (100, 100, 100), (257, 100, 784), (100, 1025, 784)]
)
def test_other_products_are_whole(sizes):
    assert block_of(*sizes) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_the_threads_of_the_moment(threads):
    random = np.random.default_rng(5)
    a, b = (random.normal(size=(n, 784)).astype(np.float32) for n in (32, 128))
    found = []
    for limit in (1, threads):
        device = NumpyDevice()
        device.has_one_thread = True
        with threadpool_limits(limit, "blas"):
            out = device.zeros((32, 128))
            device.gemm(device.asarray(a), device.asarray(b), out, transpose_b=True)()
            found.append(np.array(out.read()))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], a @ b.T, rtol=1e-4, atol=1e-4)
