"""Bytes that stay bytes on the device give the minibatches that normalized numbers give."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.devices import open_device
from veloflow.errors import DeviceError
from veloflow.runtime.api import prepare
from veloflow.units import ArrayLoader, softmax, standard_workflow
from veloflow.units.byte_samples import ByteSamples, line_of
from veloflow.units.normalization import (
    Exponential,
    InternalMean,
    Linear,
    MeanDispersion,
    NoNormalization,
    Normalizer,
    Pointwise,
    RangeLinear,
    Standard,
)

RANDOM = np.random.default_rng(2)
SAMPLES = RANDOM.integers(0, 256, (40, 5, 3)).astype(np.uint8)
SAMPLES[7] = 9  # a uniform sample, which has no range of its own
SAMPLES[:, 2, 1] = 4  # a constant feature
KINDS = [
    NoNormalization, Linear, RangeLinear, Pointwise, MeanDispersion, Standard, InternalMean,
]  # fmt: skip


def learned(kind):
    normalizer = kind()
    normalizer.reset()
    normalizer.analyze(SAMPLES)
    return normalizer


@pytest.fixture(scope="module", params=["numpy", pytest.param("opencl", marks=pytest.mark.opencl)])
def device(request):
    try:
        opened = open_device(request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_minibatch_is_what_the_normalizer_makes_of_it(device, kind, dtype):
    normalizer = learned(kind)
    line = line_of(normalizer, SAMPLES)
    assert line is not None
    indices, out = device.zeros((9,), "int32"), device.zeros((9, 5, 3), dtype)
    samples = ByteSamples(SAMPLES, indices, out, line)
    tolerance = 3e-5 if dtype is np.float32 else 1e-12
    for chosen in ([7, 0, 39, 3, 3, 8, 1, 2, 5], [4, 7, 9, 1, 2, -1, -1, -1, -1]):
        indices.write(chosen)
        samples(is_whole=min(chosen) >= 0)
        wanted = normalizer.normalize(SAMPLES[chosen])
        wanted[np.array(chosen) < 0] = 0
        np.testing.assert_allclose(out.read(), wanted, rtol=tolerance, atol=tolerance)


def test_what_is_no_line_is_none():
    assert line_of(learned(Exponential), SAMPLES) is None

    class Own(Normalizer):
        name = "own"

        def normalize(self, samples):
            return samples**2.0

        def denormalize(self, values, context=None):
            return values**0.5

    assert line_of(Own(), SAMPLES) is None


def test_numbers_for_all_features_alike_are_one():
    factor, term = line_of(RangeLinear((0, 1), known=(0, 255)), SAMPLES)
    assert factor.shape == term.shape == (1,)
    assert factor[0] == pytest.approx(1 / 255)


@pytest.mark.opencl
@pytest.mark.parametrize("normalization", ["linear", "mean_disp", "none"])
def test_a_loader_keeps_bytes_and_serves_the_same(normalization):
    def build(wf) -> None:
        loader = ArrayLoader(
            wf, SAMPLES, np.arange(40) % 3, minibatch_size=12, normalization=normalization
        )
        standard_workflow(wf, loader=loader, layers=[softmax(3)], max_epochs=1)

    served = []
    for name in ("numpy", "opencl"):
        with prepare(build, device=name) as session:
            loader = session.workflow["ArrayLoader"]
            assert (loader._bytes is None) == (name == "numpy")
            rows = []
            for turn in range(4):  # the last one has padding
                if turn == 2:
                    loader.restore(loader.state())
                loader.run()
                rows.append(np.array(loader.minibatch_data.read()))
            served.append(rows)
    for ours, theirs in zip(*served, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    assert not served[1][-1][4:].any()
