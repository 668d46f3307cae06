"""The update of parameters against its formula, and what gradient units refuse."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, workflow_on
from networks import Given, network

from veloflow.devices.parameters import Parameters
from veloflow.errors import GraphError, InputError, ShapeError
from veloflow.units import All2AllTanh, GDSigmoid, GDTanh, linear, softmax, tanh
from veloflow.units.solvers import Hyperparameters, Momentum
from veloflow.units.update import Moved, Update

W = np.random.default_rng(3).standard_normal((4, 3))
W[0, 0] = 0.0  # which has no sign


class Counter:
    """Counts the steps of a parameter."""

    steps = 0


def step(w, g, v, numbers):
    """Return (w, v) after a step, by the formula of Veles."""
    g = g + numbers.decay * ((1 - numbers.l1) * w + 0.5 * numbers.l1 * np.sign(w))
    g = g + (w.sum(axis=0) - w) * numbers.ortho / len(w)
    v = numbers.moment * v - numbers.rate * g
    return w + v, v


CASES = {
    "plain": Hyperparameters(0.1),
    "momentum": Hyperparameters(0.1, moment=0.9),
    "L2": Hyperparameters(0.1, decay=0.3),
    "L1": Hyperparameters(0.1, decay=0.3, l1=1.0),
    "both": Hyperparameters(0.1, decay=0.3, l1=0.25),
    "orthogonality": Hyperparameters(0.1, ortho=0.2),
    "all": Hyperparameters(0.1, moment=0.8, decay=0.3, l1=0.25, ortho=0.2),
}


@pytest.mark.parametrize("numbers", CASES.values(), ids=CASES)
def test_steps_follow_the_formula(numpy_device, numbers):
    parameters = Parameters(numpy_device, "float64")
    parameter = parameters.declare("weights", W.shape)
    parameter.slot("velocity")
    parameters.allocate()
    parameter.value.write(W)
    update = Update(parameters, [Moved(parameter, Momentum(), numbers, Counter())])
    w, v = W, np.zeros_like(W)
    for number in range(3):
        g = np.random.default_rng(number).standard_normal(W.shape)
        parameter.gradient.write(g)
        update()
        w, v = step(w, g, v, numbers)
        np.testing.assert_allclose(parameter.value.read(), w, rtol=1e-12)
        if numbers.moment:
            np.testing.assert_allclose(parameter.slots["velocity"].read(), v, rtol=1e-12)


def test_numbers_may_change_between_steps():
    net = network([linear(3)], np.ones((2, 4)), targets=np.zeros((2, 3)), learning_rate=0.1)
    parameter, unit = net.parameters[0], net.units.gradients[0]
    for rate, moment in ((0.1, 0.0), (0.3, 0.9), (0.0, 0.5)):
        unit.weights_numbers.rate, unit.weights_numbers.moment = rate, moment
        w, v = np.array(parameter.value.read()), np.array(parameter.slots["velocity"].read())
        net.forward()
        net.backward()
        expected, _ = step(w, parameter.gradient.read(), v, unit.weights_numbers)
        np.testing.assert_allclose(parameter.value.read(), expected, rtol=1e-12)


def test_defaults_are_those_of_veles():
    wf = workflow_on()
    unit = GDTanh(wf, All2AllTanh(wf, 3), gradient_moment=0.9, l1_vs_l2=0.5)
    assert unit.weights_numbers == Hyperparameters(0.01, 0.9, 5e-5, 0.5, 0.0)
    assert unit.bias_numbers == Hyperparameters(0.01, 0.9, 0.0, 0.0, 0.0)


def test_error_of_the_input_is_made_before_the_weights_move():
    rates = {"learning_rate": 1.0}
    nets = [
        network([tanh(5), softmax(3)], np.eye(6, 4), labels=[0, 1, 2] * 2, **more)
        for more in (rates, {})
    ]
    for net in nets:
        net.forward()
        net.backward()
    np.testing.assert_array_equal(nets[0].err_input, nets[1].err_input)


@pytest.mark.parametrize(
    "rates",
    [
        {"learning_rate": -0.1},
        {"learning_rate": float("nan")},
        {"learning_rate_bias": float("inf")},
        {"l1_vs_l2": 1.5},
        {"gradient_moment": 1.1},
        {"weights_decay": -1e-3},
    ],
)
def test_numbers_without_sense_are_refused(rates):
    wf = workflow_on()
    with pytest.raises(InputError, match=f"{next(iter(rates)).removesuffix('_bias')} is .*; give"):
        GDTanh(wf, All2AllTanh(wf, 3), **rates)


def test_gradient_of_another_layer_is_refused():
    wf = workflow_on()
    with pytest.raises(GraphError, match="GDSigmoid is the gradient of All2AllSigmoid, and 'All2"):
        GDSigmoid(wf, All2AllTanh(wf, 3))


def test_error_of_another_shape_is_refused():
    wf = workflow_on()
    given = Given(wf, x=np.zeros((2, 4)), err=np.zeros((2, 5)))
    layer = All2AllTanh(wf, 3)
    unit = GDTanh(wf, layer)
    layer.link_data(given, input="x")
    unit.link_data(given, err_output="err")
    with (
        pytest.raises(ShapeError, match=r"err_output has shape \(2, 5\), but .* has \(2, 3\)"),
        ready(given, layer, unit),
    ):
        pass


@pytest.mark.parametrize("shape", [0, (), (3, 0)])
def test_layer_without_neurons_is_refused(shape):
    with pytest.raises(ShapeError, match="no neurons"):
        All2AllTanh(workflow_on(), shape)
