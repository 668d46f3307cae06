"""Pooling that picks, depooling, cutting, masks: against torch, central differences, OpenCL."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, numerical_gradient

from veloflow.errors import GraphError, ShapeError
from veloflow.units import (
    Uniform,
    activation,
    avg_pool,
    conv,
    cut,
    depool,
    dropout,
    linear,
    max_abs_pool,
    max_pool,
    softmax,
    stochastic_abs_pool,
    stochastic_pool,
    tanh,
    zero_filter,
)
from veloflow.units.loader import TRAIN, VALIDATION


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


IMAGES = (3, 7, 5, 2)
LABELS = [0, 2, 1]
POOLS = [(2, None), (3, 2), (3, 1), ((2, 3), (3, 2))]
KINDS = {"max abs": max_abs_pool, "stochastic": stochastic_pool, "abs": stochastic_abs_pool}


def output_of(layer, x, kind=TRAIN, *, position=0, epoch=0, device=None, dtype="float64"):
    """Return the unit made of a layer after it has run on x, and its output."""
    net = network([layer, linear(2)], x, targets=random(len(x), 2), device=device, dtype=dtype)
    net.given.give(minibatch_class=kind, minibatch_position=position, epoch_number=epoch)
    unit = net.units.forwards[0]
    unit.run()
    return unit, np.array(unit.output.read())


def windows(x, size, stride):
    """Yield the place and the values of each window of each channel, partial ones too."""
    ky, kx = (size, size) if isinstance(size, int) else size
    sy, sx = (
        (ky, kx) if stride is None else ((stride, stride) if isinstance(stride, int) else stride)
    )
    for n, c in np.ndindex(x.shape[0], x.shape[3]):
        for oy, y in enumerate(range(0, max(1, x.shape[1] - ky + sy), sy)):
            for ox, z in enumerate(range(0, max(1, x.shape[2] - kx + sx), sx)):
                yield (n, oy, ox, c), x[n, y : y + ky, z : z + kx, c]


@pytest.mark.parametrize(("size", "stride"), POOLS)
def test_max_abs_takes_what_is_farthest_from_0(size, stride):
    x = random(*IMAGES)
    _, y = output_of(max_abs_pool(size, stride), x)
    for place, values in windows(x, size, stride):
        assert y[place] == values.flat[np.abs(values).argmax()]


@pytest.mark.parametrize(("size", "stride"), POOLS)
@pytest.mark.parametrize("name", ["stochastic", "abs"])
def test_use_gives_what_is_picked_on_average(name, size, stride):
    x = random(*IMAGES)
    x[0, :3, :3, 0] = -np.abs(x[0, :3, :3, 0])  # a window with nothing above 0
    _, y = output_of(KINDS[name](size, stride), x, VALIDATION)
    for place, values in windows(x, size, stride):
        weights = np.abs(values) if name == "abs" else np.maximum(values, 0)
        weights = weights if weights.sum() else np.ones_like(weights)
        assert y[place] == pytest.approx((weights * values).sum() / weights.sum(), rel=1e-12)


@pytest.mark.parametrize("name", ["stochastic", "abs"])
def test_shares_of_picks_are_their_probabilities(name):
    window = np.array([[1.0, -2.0], [0.5, 0.0]])
    x = np.broadcast_to(window[None, :, :, None], (1, 2, 2, 40000)).copy()
    _, y = output_of(KINDS[name](2), x)
    weights = np.abs(window) if name == "abs" else np.maximum(window, 0)
    for value, share in zip(window.flat, (weights / weights.sum()).flat, strict=True):
        assert np.mean(y == value) == pytest.approx(share, abs=0.01)
    _, y = output_of(KINDS[name](2), np.zeros_like(x) if name == "abs" else -np.abs(x))
    shares = [np.mean(y == -abs(value)) for value in window.flat]
    np.testing.assert_allclose(shares, [1.0 if name == "abs" and not value else
                                        0.25 if name == "stochastic" else 0.0
                                        for value in window.flat], atol=0.01)  # fmt: skip


def test_picks_depend_on_the_place_in_the_epoch_alone():
    """So whoever computes a sample, and with whatever others, picks the same."""
    x = random(6, 4, 4, 3)
    layer = stochastic_abs_pool(2, name="pool")
    _, whole = output_of(layer, x, epoch=2, position=10)
    _, part = output_of(layer, x[4:], epoch=2, position=14)
    _, again = output_of(layer, x, epoch=3, position=10)
    np.testing.assert_array_equal(part, whole[4:])
    assert (again != whole).any()
    _, validation = output_of(layer, x, VALIDATION, epoch=2, position=10)
    layer = stochastic_abs_pool(2, name="pool", picks_always=True)
    _, always = output_of(layer, x, VALIDATION, epoch=2, position=10)
    np.testing.assert_array_equal(always, whole)
    assert (validation != whole).any()


GRAPHS = {
    "max abs": [max_abs_pool(3, 2)],
    "stochastic": [stochastic_pool((2, 3), (3, 2))],
    "abs": [stochastic_abs_pool(3, 1)],
    "depool": [max_pool(2, name="p"), activation("tanh"), depool("p")],
    "depool of overlaps": [max_abs_pool(3, 2, name="p"), activation("tanh"), depool("p")],
    "pool depool": [stochastic_abs_pool(3, 2, name="p", picks_always=True), depool("p")],
    "cut": [cut((0, 1, 2, 3))],
    "zero filter": [zero_filter(2)],
}


def deep(name, device=None, **more):
    """Return a network with these layers in its middle."""
    first = conv(4, 2, "tanh", weights_filling=Uniform(1.0), padding=1)
    return network([first, *GRAPHS[name], softmax(3)], random(*IMAGES), labels=LABELS,
                   device=device, **more)  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_are_those_of_central_differences(name):
    net = deep(name)
    net.forward()
    net.backward()
    back = net.err_input
    found = [np.array(one.gradient.read()) for one in net.parameters]
    for one, gradient in zip(net.parameters, found, strict=True):
        expected = numerical_gradient(net, one.value)
        if one.mask is not None:
            expected = expected * one.mask.read()
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9, err_msg=one.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(back, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.opencl
@pytest.mark.parametrize("name", GRAPHS)
def test_opencl_agrees(opencl_device, name):
    found = []
    for device in (opencl_device, None):
        net = deep(name, device, learning_rate=0.1)
        for _ in range(2):
            net.forward()
            net.backward()
        found.append([net.err_input, *(np.array(one.value.read()) for one in net.parameters)])
        net.given.give(minibatch_class=VALIDATION)
        net.forward()
        found[-1] += [np.array(unit.output.read()) for unit in net.units.forwards]
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11)
    assert not opencl_device.info().notes


@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2)])
def test_depooling_is_torch_s(size, stride):
    torch = pytest.importorskip("torch")
    x = random(2, 7, 7, 3)
    net = network([max_pool(size, stride, name="p"), depool("p"), linear(2)], x,
                  targets=random(2, 2))  # fmt: skip
    net.forward()
    theirs = torch.tensor(x).permute(0, 3, 1, 2)
    pooled, places = torch.nn.functional.max_pool2d(theirs, size, stride, return_indices=True,
                                                    ceil_mode=True)  # fmt: skip
    flat = torch.zeros(2, 3, 49, dtype=torch.float64)
    flat.scatter_(2, places.flatten(2), pooled.flatten(2))  # as max_unpool2d, and for partial ones
    expected = flat.reshape(2, 3, 7, 7).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(net.units.forwards[1].output.read(), expected, rtol=1e-15)


def test_a_border_is_cut_off():
    x = random(2, 6, 7)
    _, y = output_of(cut((1, 2)), x)
    np.testing.assert_array_equal(y, x[:, 1:-1, 2:-2])
    _, y = output_of(cut((1, 0, 2, 3)), random(2, 6, 7, 3))
    np.testing.assert_array_equal(y, random(2, 6, 7, 3)[:, :3, 1:5])


def test_masked_weights_are_0_and_stay_so():
    layers = [tanh(4), linear(6), zero_filter(mask=np.eye(6, 4)), softmax(3)]
    net = network(layers, random(3, 5), labels=LABELS, learning_rate=0.3, gradient_moment=0.9,
                  weights_decay=0.1)  # fmt: skip
    weights = net.parameters[2].value
    before = np.array(weights.read())
    np.testing.assert_array_equal(before != 0, np.eye(6, 4) != 0)
    for _ in range(3):
        net.forward()
        net.backward()
    np.testing.assert_array_equal(weights.read() != 0, np.eye(6, 4) != 0)
    assert (np.diag(weights.read()[:4]) != np.diag(before[:4])).all()


def test_groups_of_the_zero_filter_are_torch_s():
    torch = pytest.importorskip("torch")
    x = random(2, 5, 5, 4)
    net = network([conv(6, 3, "linear"), zero_filter(2), softmax(3)], x, labels=[0, 1])
    net.forward()
    weights, bias = (torch.tensor(np.array(one.value.read())) for one in net.parameters[:2])
    kernels = weights.reshape(6, 3, 3, 4).permute(0, 3, 1, 2)
    images = torch.tensor(x).permute(0, 3, 1, 2)
    parts = [torch.nn.functional.conv2d(images[:, g::2], kernels[g::2, g::2], bias[g::2])
             for g in range(2)]  # fmt: skip
    expected = torch.stack(parts, dim=2).flatten(1, 2).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(net.units.forwards[1].output.read(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([max_pool(2), depool("pool")], GraphError, "no earlier layer is named 'pool'"),
        ([avg_pool(2, name="p"), depool("p")], GraphError, "AvgPooling, which picks no"),
        ([stochastic_pool(2, name="p"), depool("p")], GraphError, "picks_always=True"),
        ([dropout(name="p"), depool("p")], GraphError, "'p' is Dropout, and no Pooling"),
        ([cut(3)], ShapeError, "nothing is left"),
        ([dropout(), zero_filter()], GraphError, "has no weights of its own"),
        ([tanh(3), zero_filter(mask=[[1.0]])], ShapeError, r"mask has shape \(1, 1\)"),
        ([zero_filter(0)], ShapeError, "0 groups"),
    ],
)
def test_what_makes_no_layer_is_named(layers, error, words):
    with pytest.raises(error, match=words):
        network([*layers, softmax(3)], random(*IMAGES), labels=LABELS)
