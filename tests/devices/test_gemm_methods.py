"""Every way to multiply matrices that a tuner can choose is right, and gives the same bits."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import msgspec
import numpy as np
import pytest

from veloflow.devices import expressions as ex
from veloflow.devices.opencl import OpenCLDevice
from veloflow.devices.opencl.platforms import open_hardware
from veloflow.devices.opencl.tiles import (
    Blas,
    Choice,
    Direct,
    Facts,
    Local,
    Method,
    Packed,
    choose,
    default_choices,
    direct_candidates,
    fits,
    local_candidates,
    packed_candidates,
    size_of,
)
from veloflow.devices.opencl.tuning import Tuning

pytestmark = pytest.mark.opencl

HARDWARE = open_hardware("opencl")
#: rows, inner, columns: more than one tile of most methods, and no multiple of anything
SIZE = (37, 19, 43)
SIZES = (SIZE, (70, 300, 90))
LAYOUTS = list(product((False, True), repeat=2))


def candidates():
    """Return every candidate of this device, and those of a GPU."""
    facts = HARDWARE.facts
    gpu = Facts(False, 0, 64, facts.local_memory, facts.group_limit)
    found = [*direct_candidates(facts), *packed_candidates(facts)] if HARDWARE.is_cpu else []
    found += [*local_candidates(gpu, small=True), *local_candidates(gpu, small=False)]
    return list(dict.fromkeys(found))


def opened(*methods: Method):
    """Return the device with these methods for all sizes; what fails is no fallback but a note."""
    builtin = Tuning.builtin(HARDWARE.identity, HARDWARE.facts)
    choices = tuple(Choice(0, method) for method in methods)
    return OpenCLDevice(HARDWARE, tuning=msgspec.structs.replace(builtin, gemm=choices))


def multiply(device, size, layout, dtype=np.float32, stack=(), activation=None):
    """Multiply on a device; return its result and the true one."""
    m, k, n = size
    random = np.random.default_rng(4)
    a, b, out, bias = (
        random.uniform(-1, 1, shape).astype(dtype)
        for shape in ((*stack, m, k), (*stack, k, n), (*stack, m, n), (n,))
    )
    left, right = layout
    target = device.asarray(out)
    device.gemm(
        device.asarray(a.swapaxes(-1, -2).copy() if left else a),
        device.asarray(b.swapaxes(-1, -2).copy() if right else b), target,
        transpose_a=left, transpose_b=right, alpha=0.5, beta=0.25, bias=device.asarray(bias),
        activation=activation, stacked=bool(stack),
    )()  # fmt: skip
    wanted = 0.5 * (a.astype(np.float64) @ b) + 0.25 * out + bias
    return np.array(target.read()), np.tanh(wanted) if activation else wanted


TANH = ex.tanh(ex.element("x"))


def check(device, size, layout, dtype=np.float32, stack=(), activation=TANH):
    got, wanted = multiply(device, size, layout, dtype, stack, activation)
    tolerance = (4e-6 if dtype == np.float32 else 1e-14) * 4 * math.sqrt(size[1])
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
    assert device.info().notes == ()
    return got


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(candidates())), ids=lambda n: str(candidates()[n]))
def test_every_candidate_is_right(number):
    method = candidates()[number]
    device = opened(method)
    layout = LAYOUTS[number % 4]  # kernels are compiled for each; the families are tested for all
    try:
        check(device, SIZE, layout)
        if isinstance(method, Local):
            check(device, (method.rows + 1, method.depth * 2 + 1, method.columns * 2), layout)
        else:
            check(device, (method.tall * 5, 300, 70), layout)
    finally:
        device.close()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_families_give_the_same_bits_in_all_layouts(layout):
    vector = HARDWARE.facts.vector_bytes
    methods = [
        Direct(6, 2, vector), Packed(6, 2, vector, 64, 3), Packed(6, 2, vector, 1024, 3),
        Local(32, 32, 16, 2, 2, 1),
    ]  # fmt: skip
    results = []
    for method in methods:
        device = opened(method)
        try:
            results.append([check(device, size, layout, activation=None) for size in SIZES])
            check(device, (20, 7, 35), layout, stack=(3,), activation=None)
        finally:
            device.close()
    for others in results[1:]:
        for ours, theirs in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_float64_takes_all_families():
    vector = HARDWARE.facts.vector_bytes
    for method in (Direct(6, 2, vector), Packed(6, 2, vector, 16, 2), Local(32, 32, 16, 2, 2, 1)):
        device = opened(method)
        try:
            check(device, SIZE, (True, True), np.float64)
        finally:
            device.close()


# -- which is taken -------------------------------------------------------------------------------

CPU = Facts(True, 32, 2, 1 << 20, 4096)
GPU = Facts(False, 0, 132, 48 << 10, 1024)


def test_on_a_cpu_small_products_take_the_direct_kernel_and_large_ones_are_packed():
    choices = default_choices(CPU)
    assert isinstance(choose(choices, size_of(CPU, 100, 100, 784, 1), blas=True)[0], Direct)
    assert isinstance(choose(choices, size_of(CPU, 512, 512, 512, 1), blas=True)[0], Packed)
    scattered = choose(choices, 200, blas=True, scattered=1 << 20)
    assert isinstance(scattered[0], Packed)
    assert any(isinstance(one, Direct) for one in scattered), "the others stand by"


def test_the_blas_is_taken_where_it_was_tuned_and_can_be():
    choices = (*default_choices(CPU), Choice(320, Blas()))
    assert isinstance(choose(choices, 512, blas=True)[0], Blas)
    assert isinstance(choose(choices, 512, blas=False)[0], Packed)


def test_on_a_gpu_a_larger_tile_is_taken_where_every_core_has_one():
    choices = default_choices(GPU)
    assert [one.method.rows for one in choices] == [32, 64, 128]
    for edge, rows in ((100, 32), (1024, 64), (2048, 128)):
        size = size_of(GPU, edge, edge, 60_000, 1)
        assert choose(choices, size, blas=False)[0].rows == rows
    for choice in choices:
        tiles = (choice.from_size / choice.method.rows) ** 2
        assert choice.from_size == 0 or tiles >= 0.95 * GPU.compute_units


def test_a_gpu_with_little_local_memory_has_a_tile():
    (choice,) = default_choices(replace(GPU, local_memory=2048, group_limit=64))
    assert fits(choice.method, replace(GPU, local_memory=2048, group_limit=64))


def test_wide_vectors_have_more_registers():
    wide = direct_candidates(replace(CPU, vector_bytes=64))
    assert wide[0] == Direct(8, 2, 64)
    assert any(one.vector == 32 for one in wide)
    assert all(fits(one, replace(CPU, vector_bytes=64)) for one in wide)
