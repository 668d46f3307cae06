"""Layers with the weights of others: gradients add up, one layer moves them, decoders are tied."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, numerical_gradient

from veloflow.errors import GraphError, ShapeError
from veloflow.units import channels, conv, dense, linear, parallel, softmax, tanh, tied, tied_conv


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


LABELS = [0, 2, 1]
TWINS = parallel([channels(0, 4), tanh(3, name="one")],
                 [channels(4), tanh(3, shares="one"), tanh(3)])  # fmt: skip
GRAPHS = {
    "a row": ([tanh(4), tanh(4, name="a"), tanh(4, shares="a"), tanh(4, shares="a"), softmax(3)],
              random(3, 5)),
    "twins": ([linear(8), TWINS, softmax(3)], random(3, 2)),
    "images": ([conv(2, 3, "tanh", padding=1, name="a"),
                conv(2, 3, "tanh", padding=1, shares="a"), softmax(3)], random(3, 4, 4, 2)),
    "convolutional": ([conv(3, 3, "tanh", padding=1, name="a"),
                       conv(4, 2, "linear", name="b", stride=2),
                       tied_conv("b", "gelu"), tied_conv("a"), softmax(3)], random(3, 5, 4, 2)),
    "autoencoder": ([dense(4, "gelu", name="a"), tied("a", "tanh"), softmax(3)],
                    random(3, 2, 3)),
}  # fmt: skip


def made(name, device=None, **more):
    """Return a network."""
    layers, x = GRAPHS[name]
    return network(layers, x, labels=LABELS, device=device, **more)


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_are_those_of_central_differences(name):
    net = made(name)
    for _ in range(2):  # the second time nothing of the first is left
        net.forward()
        net.backward()
    names = [one.name for one in net.parameters]
    assert len(names) == len(set(names))
    back = net.err_input
    found = [np.array(one.gradient.read()) for one in net.parameters]
    for one, gradient in zip(net.parameters, found, strict=True):
        expected = numerical_gradient(net, one.value)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9, err_msg=one.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(back, expected, rtol=1e-6, atol=1e-9)


def test_shared_weights_move_once():
    torch = pytest.importorskip("torch")
    net = made("a row", learning_rate=0.3, gradient_moment=0.9)
    tensors = [torch.tensor(np.array(one.value.read()), requires_grad=True)
               for one in net.parameters]  # fmt: skip
    solver = torch.optim.SGD(tensors, lr=0.3, momentum=0.9)
    for _ in range(4):
        net.forward()
        net.backward()
        y = torch.tensor(GRAPHS["a row"][1])
        for number in (0, 2, 2, 2):
            y = 1.7159 * torch.tanh(0.6666 * (y @ tensors[number].T + tensors[number + 1]))
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            y @ tensors[4].T + tensors[5], torch.tensor(LABELS)
        )
        loss.backward()
        solver.step()
    for one, tensor in zip(net.parameters, tensors, strict=True):
        np.testing.assert_allclose(
            one.value.read(), tensor.detach().numpy(), rtol=1e-6, err_msg=one.name
        )


def test_the_first_layer_fills_the_weights_once():
    alone = network([tanh(4, name="a"), softmax(3)], random(3, 4), labels=LABELS)
    net = network([tanh(4, name="a"), tanh(4, shares="a"), softmax(3)], random(3, 4), labels=LABELS)
    np.testing.assert_array_equal(net.parameters[0].value.read(), alone.parameters[0].value.read())
    assert net.units.forwards[1].parameters() == []


@pytest.mark.opencl
@pytest.mark.parametrize("name", GRAPHS)
def test_opencl_agrees(opencl_device, name):
    found = []
    for device in (opencl_device, None):
        net = made(name, device, learning_rate=0.1, gradient_moment=0.5)
        for _ in range(3):
            net.forward()
            net.backward()
        found.append([net.err_input, *(np.array(one.value.read()) for one in net.parameters)])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11)
    assert not opencl_device.info().notes


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([tanh(3, shares="a")], GraphError, r"layer tanh\(3\): no earlier layer is named 'a'"),
        ([tanh(3, name="a"), tanh(4, shares="a")], GraphError, r"has one of shape \(3, 5\)"),
        ([tanh(3, name="a", include_bias=False), tanh(3), tanh(3, shares="a")], GraphError,
         "shares weights|shares bias"),
        ([tied("a")], GraphError, "no earlier layer is named 'a'"),
        ([tanh(3, name="a"), tanh(4), tied("a")], ShapeError, "has 3 neurons"),
        ([conv(2, 1, name="a"), tied("a")], GraphError, "is ConvReLU, and no All2All"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_named(layers, error, words):
    x = random(3, 5) if "conv" not in layers[0].text else random(3, 4, 4, 1)
    with pytest.raises(error, match=words):
        network([*layers, softmax(3)], x, labels=LABELS)
