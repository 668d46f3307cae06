"""Units say which of their arrays holds NaN or infinity, the first of them in order of control."""

from __future__ import annotations

import numpy as np
import pytest
from harness import workflow_on
from networks import network

from veloflow.core.checks import control_order
from veloflow.units import All2AllTanh, DeviceUnit, linear, softmax, tanh

X = np.linspace(-1, 1, 12).reshape(4, 3)


def first_complaint(net):
    """Return the first unit with something to say, in order of control, and what it says."""
    wf = net.units.repeater.workflow
    units = [unit for unit in control_order(wf) if isinstance(unit, DeviceUnit)]
    found = ((unit.name, unit.check_finite()) for unit in units)
    return next(((name, said) for name, said in found if said), None)


def net_after_a_step():
    """Return a network that has trained once."""
    net = network([tanh(5), softmax(3)], X, labels=[0, 1, 2, 0], learning_rate=0.1)
    net.forward()
    net.backward()
    return net


def test_finite_numbers_are_no_news():
    assert first_complaint(net_after_a_step()) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_first_unit_with_bad_numbers_is_named(bad):
    net = net_after_a_step()
    weights = net.units.forwards[1].weights.value
    values = np.array(weights.read())
    values[1, 2] = bad
    weights.write(values)
    net.forward()
    assert first_complaint(net) == ("All2AllSoftmax", "weights (1 of 15 numbers)")


def test_bad_samples_show_in_the_first_layer():
    net = net_after_a_step()
    x = X.copy()
    x[0, 0] = np.nan
    net.given.give(minibatch_data=x)
    net.forward()
    assert first_complaint(net) == ("All2AllTanh", "output (5 of 20 numbers)")


def test_output_that_overflows_is_named_before_weights_that_follow():
    net = network([linear(5), softmax(3)], X * 1e38, labels=[0, 1, 2, 0], dtype="float32")
    weights = net.units.forwards[0].weights.value
    weights.write(np.full(weights.shape, 10.0))
    with np.errstate(all="ignore"):
        net.forward()
    name, said = first_complaint(net)
    assert name == "All2AllLinear"
    assert said.startswith("output (")


def test_unit_without_memory_has_nothing_to_say():
    assert All2AllTanh(workflow_on(), 3).check_finite() is None
