"""Initial values of weights: their bounds, and that they depend on seed and names only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from networks import network

from veloflow.units import (
    Constant,
    FanIn,
    Gaussian,
    Uniform,
    linear,
    relu,
    sigmoid,
    softmax,
    softplus,
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
