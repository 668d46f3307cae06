"""Gradients of dense layers against central differences of the loss, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, numerical_gradient

from veloflow.units import linear, relu, sigmoid, softmax, softplus, tanh

KINDS = {"linear": linear, "tanh": tanh, "sigmoid": sigmoid, "softplus": softplus, "relu": relu}
LABELS = [2, 0, 1, 1, 2, 0]


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


def assert_gradients_are_right(net):
    """Compare the gradients by all parameters and by the input with central differences."""
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=parameter.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(net.err_input, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_under_squared_error(kind):
    layers = [KINDS[kind](3)]
    assert_gradients_are_right(network(layers, random(6, 4), targets=random(6, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_layer_under_cross_entropy(kind):
    layers = [KINDS[kind](5), softmax(3)]
    assert_gradients_are_right(network(layers, random(6, 4), labels=LABELS))


def test_three_layers():
    layers = [tanh(4), sigmoid(5), softmax(3)]
    assert_gradients_are_right(network(layers, random(6, 4), labels=LABELS))


def test_layer_without_bias():
    net = network([tanh(4, include_bias=False), softmax(3)], random(6, 4), labels=LABELS)
    assert net.units.forwards[0].bias is None
    assert len(net.parameters) == 3
    assert_gradients_are_right(net)


def test_samples_of_more_dimensions():
    layers = [tanh((2, 3)), linear((3, 2))]
    net = network(layers, random(4, 2, 3), targets=random(4, 3, 2))
    assert net.units.forwards[0].weights.shape == (6, 6)
    assert net.units.forwards[0].output.shape == (4, 2, 3)
    assert net.err_input.shape == (4, 2, 3)
    assert_gradients_are_right(net)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_rows_count_for_nothing(kind):
    x = random(6, 4)
    whole = network([KINDS[kind](5), softmax(3)], x[:4], labels=LABELS[:4])
    padded = np.where(np.arange(6)[:, None] < 4, x, 0.0)
    short = network([KINDS[kind](5), softmax(3)], padded, labels=[*LABELS[:4], -1, -1])
    assert short.forward() == pytest.approx(whole.forward(), rel=1e-12)
    whole.backward()
    short.backward()
    assert_gradients_are_right(short)
    for one, other in zip(whole.parameters, short.parameters, strict=True):
        np.testing.assert_allclose(one.gradient.read(), other.gradient.read(), rtol=1e-12)
    assert not short.err_input[4:].any()


def test_padding_rows_count_for_nothing_under_squared_error():
    x, targets = random(6, 4), random(6, 3)
    net = network([tanh(3)], x, targets=targets, size=4)
    assert_gradients_are_right(net)
    assert net.units.evaluator.samples == 4
    assert not net.err_input[4:].any()


def test_error_of_the_input_is_made_only_when_it_is_read():
    net = network([tanh(5), tanh(4), softmax(3)], random(6, 4), labels=LABELS)
    assert [unit.needs_err_input for unit in net.units.gradients] == [True, True, True]
    net.units.repeater.workflow["reader"].data_links.clear()
    assert [unit.needs_err_input for unit in net.units.gradients] == [False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_is_of_the_dtype_of_the_run(dtype):
    net = network([tanh(5), softmax(3)], random(6, 4), labels=LABELS, dtype=dtype)
    net.forward()
    net.backward()
    arrays = [net.units.forwards[0].output, net.units.evaluator.err_output]
    arrays += [net.units.gradients[0].err_input, net.units.forwards[0].weights.value]
    assert {str(array.dtype) for array in arrays} == {dtype}


def test_float32_is_near_float64():
    nets = [
        network([tanh(5), softmax(3)], random(6, 4), labels=LABELS, dtype=dtype, learning_rate=0.1)
        for dtype in ("float32", "float64")
    ]
    for net in nets:
        for _ in range(5):
            net.forward()
            net.backward()
    for one, other in zip(*(net.parameters for net in nets), strict=True):
        np.testing.assert_allclose(one.value.read(), other.value.read(), rtol=1e-4, atol=1e-6)
