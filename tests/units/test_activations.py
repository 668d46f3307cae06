"""Activations, alone and in dense layers: against torch, central differences, OpenCL."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, workflow_on
from networks import Given, network, numerical_gradient

from veloflow.core import Batch, Part
from veloflow.errors import GraphError, InputError
from veloflow.units import (
    Activate,
    Dense,
    Mul,
    activation,
    dense,
    leaky_relu,
    linear,
    mul,
    softmax,
    tanh,
)
from veloflow.units.activation import ACTIVATIONS

X = np.concatenate([np.linspace(-6, 6, 31), [-40.0, -1e-3, 1e-3, 40.0, 2.9, 3.1]])[None]


def applied(kind, x, device=None, dtype="float64"):
    """Return f(x)."""
    wf = workflow_on(device, dtype=dtype)
    given = Given(wf, x=np.asarray(x, np.float64))
    unit = Activate(wf, kind).link_data(given, input="x")
    with ready(given, unit):
        unit.run()
        return np.array(unit.output.read())


def tanhlog(x):
    """Return what Veles wrote, with its numbers."""
    size = np.abs(x)
    far = np.sign(x) * 0.242528761112 * np.log(305.459953195 * np.maximum(size, 1))
    return np.where(size <= 3, 1.7159 * np.tanh(0.6666 * x), far)


def sincos(x):
    """Return sin at odd places of a sample, cos at even ones."""
    return np.where(np.arange(x.shape[1]) % 2, np.sin(x), np.cos(x))


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("linear", lambda x: x),
        ("tanh", lambda x: 1.7159 * np.tanh(0.6666 * x)),
        ("log", np.arcsinh),
        ("tanhlog", tanhlog),
        ("sincos", sincos),
        (leaky_relu(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    ],
)
def test_formulas_are_numpy_s(kind, formula):
    np.testing.assert_allclose(applied(kind, X), formula(X), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("sigmoid", "sigmoid", {}),
        ("softplus", "softplus", {"threshold": 50}),
        ("relu", "relu", {}),
        ("leaky_relu", "leaky_relu", {}),
        ("leaky_relu(0.2)", "leaky_relu", {"negative_slope": 0.2}),
        ("gelu", "gelu", {}),
        ("gelu_tanh", "gelu", {"approximate": "tanh"}),
        ("silu", "silu", {}),
    ],
)
def test_values_and_gradients_are_torch_s(kind, name, options):
    torch = pytest.importorskip("torch")
    act = torch.sigmoid if name == "sigmoid" else getattr(torch.nn.functional, name)
    x = torch.tensor(X, requires_grad=True)
    y = act(x, **options)
    np.testing.assert_allclose(applied(kind, X), y.detach().numpy(), rtol=1e-12, atol=1e-13)
    target = np.zeros((1, X.shape[1]))
    net = network([linear(X.shape[1]), activation(kind)], X, targets=target)
    identity = np.eye(X.shape[1])
    net.parameters[0].value.write(identity)
    net.parameters[1].value.write(0.0)
    net.forward()
    net.backward()
    (0.5 * (y * y).sum()).backward()  # whose gradient by y is y, as that of our MSE is
    np.testing.assert_allclose(net.err_input, x.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", [*ACTIVATIONS, leaky_relu(0.3)])
@pytest.mark.parametrize("is_alone", [False, True], ids=["in a layer", "alone"])
def test_gradients_are_those_of_central_differences(kind, is_alone):
    x = 2 * np.random.default_rng(5).standard_normal((3, 4))
    first = [tanh(5), activation(kind)] if is_alone else [dense(5, kind)]
    net = network([*first, mul(1.5), softmax(3)], x, labels=[0, 2, 1])
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        # the derivatives of LeCun's tanh have Veles's rounding of their constants
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=parameter.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(net.err_input, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["log", "tanhlog", "gelu", "silu", "softplus", "gelu_tanh"])
def test_float32_neither_overflows_nor_loses_its_digits(kind):
    x = np.array([[-3e4, -50.0, -9.0, -1e-4, 0.0, 1e-4, 9.0, 50.0, 3e4]])
    narrow = applied(kind, x, dtype="float32")
    np.testing.assert_allclose(narrow, applied(kind, x), rtol=2e-5, atol=1e-6)


@pytest.mark.opencl
def test_opencl_agrees(opencl_device):
    x = np.random.default_rng(3).standard_normal((4, 9))
    layers = [one for kind in ACTIVATIONS for one in (dense(7, kind), activation(kind))]
    found = []
    for device in (opencl_device, None):
        net = network([*layers, mul(), softmax(3)], x, labels=[0, 2, 1, 0], device=device)
        net.forward()
        net.backward()
        outputs = [np.array(unit.output.read()) for unit in net.units.forwards]
        gradients = [np.array(one.gradient.read()) for one in net.parameters]
        found.append([net.err_input, *outputs, *gradients])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-11)


def test_mul_takes_its_factor_from_the_first_minibatch_only():
    wf = workflow_on(dtype="float64")
    given = Given(wf, x=np.array([[0.5, -3.0]]))
    unit = Mul(wf).link_data(given, input="x")
    with ready(given, unit):
        assert unit.state() == {}
        with pytest.raises(InputError, match="no factor yet"):
            unit.known_factor()
        for x in ([[0.5, -3.0]], [[8.0, 4.0]]):
            given.give(x=np.array(x))
            unit.run()
            np.testing.assert_array_equal(unit.output.read(), 0.25 * np.array(x))
        other = Mul(wf, name="other")
        other.restore(unit.state())
        assert other.factor == 0.25


def test_with_slaves_mul_takes_the_least_factor():
    wf = workflow_on()
    master, slave = Mul(wf), Mul(wf)
    part = Part(Batch(2, 0, 0, 2, 2, [0, 1]), 0, 1)
    assert master.make_job(part) == {}
    master.apply_update([{"factor": 0.5}, {"factor": 0.2}])
    master.apply_update([{"factor": 0.1}])
    slave.take_job(master.make_job(part))
    assert slave.factor == 0.2
    slave.take_job({})
    assert slave.factor is None


def test_what_is_no_activation_is_named():
    with pytest.raises(InputError, match=r"layer activation\('gelo'\).*did you mean 'gelu'"):
        activation("gelo")
    with pytest.raises(InputError, match="there are: gelu, gelu_tanh"):
        dense(3, "swoosh")
    with pytest.raises(InputError, match="above 0, or use relu"):
        leaky_relu(0.0)
    with pytest.raises(InputError, match="'leaky_relu\\(x\\)' has no number for its slope"):
        dense(3, "leaky_relu(x)")
    with pytest.raises(GraphError, match="has no option 'biass'"):
        dense(3, "gelu", biass=1)
    assert dense(3, "gelu").forward.func is Dense
