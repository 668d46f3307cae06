"""The definitions in the short form give the same numbers as in the long form, to the last bit."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from harness import trained

from veloflow.devices.parameters import Parameters
from veloflow.workflows import digits_mlp, digits_mlp_short, mnist_mlp, mnist_mlp_short


def assert_same(long, short, **options):
    """Run both forms and compare parameters and records."""
    one, other = trained(long.build, **options), trained(short.build, **options)
    assert other["DecisionGD"].epochs == one["DecisionGD"].epochs
    sums = [wf.find_service(Parameters).sha256() for wf in (one, other)]
    assert sums[0] == sums[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_digits(seed):
    assert_same(digits_mlp, digits_mlp_short, epochs=2, hidden=30, seed=seed)


def write_idx(path, values):
    """Write unsigned bytes as an IDX file."""
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture
def images(tmp_path):
    """Return a folder with a few random images under MNIST's names."""
    random = np.random.default_rng(0)
    for name, count in (("train", 150), ("t10k", 40)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", pixels)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def test_mnist(images):
    assert_same(mnist_mlp, mnist_mlp_short, data=images, epochs=2, hidden=12)


@pytest.mark.opencl
def test_digits_on_opencl(opencl_device):
    options = {"device": opencl_device, "epochs": 1, "hidden": 30}
    assert_same(digits_mlp, digits_mlp_short, **options)
