"""Layers, losses and training steps against PyTorch, in float64, on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network

from veloflow.units import Inv, dropout, linear, relu, sigmoid, softmax, softplus, tanh

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

LABELS = [2, 0, 1, 1, 2, 0]
OURS = {"linear": linear, "tanh": tanh, "sigmoid": sigmoid, "softplus": softplus, "relu": relu}
THEIRS = {
    "linear": lambda x: x,
    "tanh": lambda x: 1.7159 * torch.tanh(0.6666 * x),
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "relu": torch.relu,
}


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


def theirs(parameters):
    """Return torch's own copies of the parameters' values."""
    return [torch.tensor(np.array(one.value.read()), requires_grad=True) for one in parameters]


def assert_same(ours, tensor, rtol=1e-8):
    """Compare an array of ours with a tensor."""
    np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=rtol, atol=1e-10)


def run_torch(kinds, parameters, x):
    """Return the output of dense layers; two parameters each."""
    for number, kind in enumerate(kinds):
        weights, bias = parameters[2 * number : 2 * number + 2]
        x = THEIRS[kind](x @ weights.T + bias)
    return x


@pytest.mark.parametrize("kind", OURS)
def test_layer_and_squared_error(kind):
    x, targets = random(6, 4), random(6, 3)
    net = network([OURS[kind](3)], x, targets=targets)
    loss = net.forward()
    net.backward()
    parameters = theirs(net.parameters)
    inputs = torch.tensor(x, requires_grad=True)
    output = run_torch([kind], parameters, inputs)
    expected = torch.nn.functional.mse_loss(output, torch.tensor(targets), reduction="sum") / 12
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same(net.units.forwards[0].output.read(), output)
    assert_same(net.err_input, inputs.grad)
    for one, tensor in zip(net.parameters, parameters, strict=True):
        assert_same(one.gradient.read(), tensor.grad)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("labels", [LABELS, [2, -1, 1, 1, -1, -1]], ids=["all", "some"])
def test_layer_and_cross_entropy(kind, labels):
    x = random(6, 4)
    net = network([OURS[kind](5), softmax(3)], x, labels=labels)
    loss = net.forward()
    net.backward()
    parameters = theirs(net.parameters)
    inputs = torch.tensor(x, requires_grad=True)
    logits = run_torch([kind, "linear"], parameters, inputs)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), ignore_index=-1)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same(net.units.forwards[1].output.read(), torch.softmax(logits, dim=1))
    assert_same(net.err_input, inputs.grad)
    for one, tensor in zip(net.parameters, parameters, strict=True):
        assert_same(one.gradient.read(), tensor.grad)


def test_dropout_with_the_same_mask():
    x = random(6, 4)
    net = network([tanh(8), dropout(0.4), softmax(3)], x, labels=LABELS)
    loss = net.forward()
    net.backward()
    keep = torch.tensor(np.array(net.units.forwards[1].noise.read()) >= 0.4)
    assert 0 < keep.sum() < keep.numel()
    parameters = theirs(net.parameters)
    inputs = torch.tensor(x, requires_grad=True)
    hidden = run_torch(["tanh"], parameters[:2], inputs) * keep / 0.6
    logits = run_torch(["linear"], parameters[2:], hidden)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same(net.err_input, inputs.grad)
    assert_same(net.parameters[0].gradient.read(), parameters[0].grad)


def train_torch(parameters, optimizer, x, steps, schedule=None):
    """Take steps of a tanh network on the labels."""
    for _ in range(steps):
        optimizer.zero_grad()
        logits = run_torch(["tanh", "linear"], parameters, torch.tensor(x))
        torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS)).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


@pytest.mark.parametrize("moment", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_steps_of_momentum_and_decay(moment, decay):
    x = random(6, 4)
    rates = {"learning_rate": 0.1, "gradient_moment": moment, "weights_decay": decay}
    net = network([tanh(5), softmax(3)], x, labels=LABELS, **rates)
    parameters = theirs(net.parameters)
    groups = [  # biases do not decay
        {"params": parameters[::2], "weight_decay": decay},
        {"params": parameters[1::2], "weight_decay": 0.0},
    ]
    train_torch(parameters, torch.optim.SGD(groups, lr=0.1, momentum=moment), x, steps=10)
    for _ in range(10):
        net.forward()
        net.backward()
    for one, tensor in zip(net.parameters, parameters, strict=True):
        assert_same(one.value.read(), tensor, rtol=1e-7)


def test_rate_of_the_bias_is_its_own():
    x = random(6, 4)
    rates = {"learning_rate": 0.1, "learning_rate_bias": 0.02, "gradient_moment": 0.5}
    more = {"gradient_moment_bias": 0.9, "weights_decay_bias": 0.03}
    net = network([tanh(5), softmax(3)], x, labels=LABELS, **rates, **more)
    parameters = theirs(net.parameters)
    groups = [
        {"params": parameters[::2], "lr": 0.1, "momentum": 0.5},
        {"params": parameters[1::2], "lr": 0.02, "momentum": 0.9, "weight_decay": 0.03},
    ]
    train_torch(parameters, torch.optim.SGD(groups), x, steps=5)
    for _ in range(5):
        net.forward()
        net.backward()
    for one, tensor in zip(net.parameters, parameters, strict=True):
        assert_same(one.value.read(), tensor, rtol=1e-7)


def steps_with_policy(moment):
    """Return our parameters and torch's after steps with a rate that falls as 1 / (1 + i)."""
    x = random(6, 4)
    rates = {"learning_rate": 0.5, "gradient_moment": moment, "policy": Inv(1.0, 1.0)}
    net = network([tanh(5), softmax(3)], x, labels=LABELS, **rates)
    parameters = theirs(net.parameters)
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=moment)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 / (1 + i))
    train_torch(parameters, optimizer, x, 5, schedule)
    for _ in range(5):
        net.forward()
        net.backward()
        net.units.adjust.run()
    return [np.array(one.value.read()) for one in net.parameters], parameters


def test_changing_rate_without_momentum_is_the_same():
    for one, tensor in zip(*steps_with_policy(0.0), strict=True):
        assert_same(one, tensor, rtol=1e-7)


def test_changing_rate_with_momentum_differs():
    # our velocity has the rate inside, as in Veles and Caffe: what is kept of a step was made with
    # the rate of that step; torch multiplies all of it with the rate of today
    pairs = zip(*steps_with_policy(0.9), strict=True)
    assert max(np.abs(one - tensor.detach().numpy()).max() for one, tensor in pairs) > 1e-2
