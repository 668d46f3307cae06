"""Initial values of weights: their bounds, and that they depend on seed and names only."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import network

from veloflow.errors import InputError, ShapeError
from veloflow.runtime.api import prepare
from veloflow.units import (
    ArrayLoader,
    Constant,
    FanIn,
    Gabor,
    Gaussian,
    Glorot,
    He,
    Orthogonal,
    Uniform,
    conv,
    deconv,
    linear,
    relu,
    sigmoid,
    softmax,
    softplus,
    standard_workflow,
    tanh,
)
from veloflow.units.filling import magnitude

GAINS = {linear: 10.0, tanh: 9.0, sigmoid: 1.0, softplus: 10.0, relu: 10.0}


def weights_of(layer, inputs=300, **options):
    """Return weights and bias of a fresh layer."""
    net = network([layer], np.zeros((1, inputs)), **{"targets": np.zeros((1, 200)), **options})
    return [np.array(one.value.read()) for one in net.parameters]


@pytest.mark.parametrize("kind", GAINS, ids=lambda kind: kind.__name__)
def test_default_is_uniform_in_the_bounds_of_veles(kind):
    bound = math.sqrt(GAINS[kind] / (300 + 200))
    for values in weights_of(kind(200)):
        assert np.abs(values).max() < bound
        assert np.abs(values).max() > 0.97 * bound
        # a uniform number's deviation is its bound over the root of 3
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert abs(values.mean()) < 6 * bound / math.sqrt(3 * values.size)


def test_bound_is_one_half_at_most():
    assert magnitude(10.0, 3, 4) == 0.5
    assert magnitude(9.0, 784, 100) == pytest.approx(math.sqrt(9 / 884))


def test_softmax_has_the_gain_of_a_linear_layer():
    options = {"targets": None, "labels": [0]}
    weights, _ = weights_of(softmax(200), **options)
    assert 0.97 < np.abs(weights).max() / math.sqrt(10 / 500) < 1


def test_gaussian_has_a_third_of_the_magnitude_and_is_clipped():
    weights, bias = weights_of(tanh(200, weights_filling=Gaussian(0.3)))
    assert weights.std() == pytest.approx(0.1, rel=0.02)
    assert bias.std() == pytest.approx(0.1, rel=0.2)  # filled as the weights are
    values = Gaussian(0.3).fill(np.random.default_rng(0), (2_000_000,), 1.0)
    assert np.abs(values).max() <= 0.5  # five deviations


def test_gaussian_takes_the_default_of_the_layer():
    values = Gaussian().fill(np.random.default_rng(0), (10_000,), 0.6)
    assert values.std() == pytest.approx(0.2, rel=0.05)


def test_fillings_of_weights_and_bias_may_differ():
    weights, bias = weights_of(
        tanh(200, weights_filling=Uniform(0.05), bias_filling=Constant(0.25))
    )
    assert np.abs(weights).max() < 0.05
    np.testing.assert_array_equal(bias, 0.25)


def test_fan_in_is_bounded_by_the_inputs_alone():
    weights, bias = weights_of(tanh(200, weights_filling=FanIn()))
    assert 0.97 < np.abs(weights).max() * math.sqrt(300) < 1
    assert not bias.any()


def test_values_depend_on_seed_and_names():
    first = weights_of(tanh(200))
    again = weights_of(tanh(200))
    np.testing.assert_array_equal(first[0], again[0])
    for options in ({"seed": 2}, {}):
        layer = tanh(200) if options else tanh(200, name="other")
        assert (weights_of(layer, **options)[0] != first[0]).any()


def test_float32_is_the_same_draw_rounded():
    exact, rounded = weights_of(tanh(200)), weights_of(tanh(200), dtype="float32")
    np.testing.assert_array_equal(exact[0].astype(np.float32), rounded[0])


def test_glorot_and_he_spread_as_in_torch():
    torch.manual_seed(0)
    shape = (64, 5, 5, 16)  # torch has the channels first
    for filling, init in (
        (Glorot(), torch.nn.init.xavier_uniform_),
        (Glorot("normal", gain=0.5), lambda w: torch.nn.init.xavier_normal_(w, 0.5)),
        (He(), lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (He("uniform"), lambda w: torch.nn.init.kaiming_uniform_(w, nonlinearity="relu")),
    ):
        ours = filling.fill(np.random.default_rng(0), shape, 1.0)
        theirs = init(torch.empty(64, 16, 5, 5)).numpy()
        assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.3)
        assert not filling.fill(np.random.default_rng(0), (7,), 1.0).any()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 3, 3, 2)])
def test_orthogonal_rows_or_columns(shape):
    w = Orthogonal(gain=2.0).fill(np.random.default_rng(0), shape, 1.0).reshape(shape[0], -1)
    w = w if len(w) <= w.shape[1] else w.T
    np.testing.assert_allclose(w @ w.T, 4 * np.eye(len(w)), atol=1e-12)


def test_gabor_filters():
    values = Gabor(0.3).fill(np.random.default_rng(0), (100, 7, 7, 3), 1.0)
    bank, rest = values[:96], values[96:]
    np.testing.assert_array_equal(bank[..., 0], bank[..., 2])
    np.testing.assert_allclose(bank.mean(axis=(1, 2)), 0, atol=1e-15)
    np.testing.assert_allclose(bank.std(axis=(1, 2)), 0.1, rtol=1e-12)
    assert (rest[..., 0] != rest[..., 2]).any()
    # the first is a vertical bar, its twin the negative, the fifth a horizontal one
    np.testing.assert_allclose(bank[0], -bank[1], atol=1e-12)
    np.testing.assert_allclose(bank[0, :, :, 0], bank[4, :, :, 0].T, atol=1e-12)
    assert len({one.tobytes() for one in bank}) == 96


def _kernels(layer):
    found = {}

    def build(wf):
        loader = ArrayLoader(wf, np.zeros((4, 9, 9, 3)), [0, 1, 0, 1], minibatch_size=4)
        units = standard_workflow(wf, loader=loader, layers=[layer, softmax(2)], max_epochs=1)
        found["unit"] = units.forwards[0]

    with prepare(build, device="numpy", dtype="float64"):
        return np.array(found["unit"].weights.value.read())


def test_convolutions_are_filled_as_kernels():
    values = _kernels(conv(100, 7, weights_filling=Gabor(0.3))).reshape(100, 7, 7, 3)
    np.testing.assert_allclose(values[:96].mean(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(values[0], -values[1], atol=1e-12)
    # torch's fan out of a convolution counts the places of a kernel, too
    for layer, torchs in (
        (conv(64, 5, weights_filling=Glorot()), torch.empty(64, 3, 5, 5)),
        (deconv(64, 5, weights_filling=Glorot()), torch.empty(3, 64, 5, 5)),
        (conv(63, 5, groups=3, weights_filling=Glorot()), torch.empty(63, 1, 5, 5)),
    ):
        theirs = torch.nn.init.xavier_uniform_(torchs).numpy()
        assert _kernels(layer).std() == pytest.approx(theirs.std(), rel=0.05)


def test_gabor_needs_kernels():
    with pytest.raises(ShapeError, match="Gabor filters are for convolutions"):
        Gabor().fill(np.random.default_rng(0), (10, 49), 1.0)


def test_unknown_distribution():
    with pytest.raises(InputError, match="distribution is 'gauss'; give 'uniform' or 'normal'"):
        He("gauss")
