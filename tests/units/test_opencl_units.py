"""Every layer, gradient and evaluator on OpenCL against NumPy, which is the judge."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network

from veloflow.units import dropout, linear, relu, sigmoid, softmax, softplus, tanh

pytestmark = pytest.mark.opencl

KINDS = {"linear": linear, "tanh": tanh, "sigmoid": sigmoid, "softplus": softplus, "relu": relu}
#: what may differ between two orders of adding, in steps of the dtype
TOLERANCES = {"float32": {"rtol": 2e-5, "atol": 2e-6}, "float64": {"rtol": 1e-11, "atol": 1e-13}}
RATES = {
    "learning_rate": 0.1,
    "gradient_moment": 0.9,
    "weights_decay": 0.01,
    "l1_vs_l2": 0.5,
    "factor_ortho": 0.1,
    "weights_decay_bias": 0.001,
}


def arrays_of(net, steps):
    """Run some steps; return all that the network then holds, by name."""
    for _ in range(steps):
        loss = net.forward()
        net.backward()
    found = {"loss": np.array(loss), "err_input": net.err_input}
    for unit in net.units.forwards:
        found[f"{unit.name}.output"] = np.array(unit.output.read())
    for unit in net.units.gradients[1:]:
        found[f"{unit.name}.err_input"] = np.array(unit.err_input.read())
    for one in net.parameters:
        found[one.name] = np.array(one.value.read())
        found[f"{one.name}.gradient"] = np.array(one.gradient.read())
        found[f"{one.name}.velocity"] = np.array(one.slots["velocity"].read())
    return found


def assert_same(opencl_device, layers, x, dtype, steps=3, **options):
    """Compare a network on both devices, array by array."""
    nets = [
        network(layers, x, device=device, dtype=dtype, **{**RATES, **options})
        for device in (opencl_device, None)
    ]
    ours, expected = (arrays_of(net, steps) for net in nets)
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, err_msg=name, **TOLERANCES[dtype])
    evaluators = [net.units.evaluator for net in nets]
    assert evaluators[0].n_err == evaluators[1].n_err
    return evaluators


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_under_cross_entropy(opencl_device, kind, dtype):
    labels = np.arange(37) % 10
    labels[-5:] = -1  # a short last minibatch
    layers = [KINDS[kind](19), softmax(10)]
    one, other = assert_same(opencl_device, layers, random(37, 23), dtype, labels=labels)
    np.testing.assert_array_equal(one.confusion_matrix, other.confusion_matrix)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_under_squared_error(opencl_device, kind, dtype):
    layers = [KINDS[kind]((5, 3)), linear(4)]
    options = {"targets": random(21, 4), "size": 17}
    one, other = assert_same(opencl_device, layers, random(21, 3, 3), dtype, **options)
    np.testing.assert_allclose(one.metrics, other.metrics, **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_dropout_between_layers(opencl_device, dtype):
    layers = [tanh(33), dropout(0.3), sigmoid(9, include_bias=False), dropout(0.5), softmax(4)]
    assert_same(opencl_device, layers, random(30, 12), dtype, labels=np.arange(30) % 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_numbers_pass_through_or_saturate_alike(opencl_device, kind, value):
    x = random(6, 4)
    x[2, 1] = value
    outputs = []
    for device in (opencl_device, None):
        net = network([KINDS[kind](5)], x, targets=random(6, 5), device=device, dtype="float32")
        with np.errstate(all="ignore"):
            net.units.forwards[0].run()
        outputs.append(np.array(net.units.forwards[0].output.read()))
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
