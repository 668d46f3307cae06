"""Convolution and pooling: against torch, central differences, and OpenCL against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, numerical_gradient

from veloflow.errors import GraphError, InputError, ShapeError
from veloflow.units import Conv, avg_pool, conv, deconv, linear, max_pool, softmax, tanh

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
functional = torch.nn.functional

THEIRS = {
    "linear": lambda x: x,
    "tanh": lambda x: 1.7159 * torch.tanh(0.6666 * x),
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "relu": torch.relu,
}

#: image (height, width, channels), kernels, size, stride, padding
SHAPES = [
    ((6, 7, 1), 3, 3, 1, 0),
    ((6, 7, 2), 3, (3, 2), 1, 0),
    ((8, 8, 3), 4, 5, 1, 2),
    ((7, 9, 2), 2, 3, 2, 1),
    ((9, 6, 3), 5, (2, 3), (3, 2), (0, 2)),
    ((5, 5, 4), 3, 1, 1, 0),
    ((5, 6, 2), 3, 1, 2, 0),
    ((4, 4, 1), 2, 4, 1, 0),
    ((4, 5, 2), 2, 3, 1, (2, 0, 1, 1)),
]

POOLS = [((6, 6, 2), 2, None), ((7, 5, 3), 2, None), ((8, 7, 1), 3, 2), ((5, 5, 2), (2, 3), 1),
         ((6, 6, 2), 2, 3), ((7, 7, 1), (3, 1), (2, 2))]  # fmt: skip


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


def images(batch, shape):
    return random(batch, *shape)


def assert_same(ours, tensor):
    np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-9, atol=1e-11)


def torch_conv(x, weights, bias, image, size, stride, padding):
    """Convolve (batch, height, width, channels) by weights as ours are."""
    height, width = (size, size) if isinstance(size, int) else size
    kernel = weights.reshape(len(weights), height, width, image[2]).permute(0, 3, 1, 2)
    if isinstance(padding, int):
        padding = (padding, padding)
    if len(padding) == 2:
        padding = (padding[1], padding[0], padding[1], padding[0])
    left, top, right, bottom = padding
    x = functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
    return functional.conv2d(x, kernel, bias, stride=stride).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("image", "kernels", "size", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("kind", THEIRS)
def test_convolution_is_torch_s(kind, image, kernels, size, stride, padding):
    x = images(5, image)
    net = network([conv(kernels, size, kind, stride=stride, padding=padding), softmax(3)], x,
                  labels=[0, 1, 2, 1, 0])  # fmt: skip
    loss = net.forward()
    net.backward()
    ours = [np.array(one.value.read()) for one in net.parameters]
    tensors = [torch.tensor(one, requires_grad=True) for one in ours]
    inputs = torch.tensor(x, requires_grad=True)
    hidden = THEIRS[kind](torch_conv(inputs, *tensors[:2], image, size, stride, padding))
    logits = hidden.reshape(5, -1) @ tensors[2].T + tensors[3]
    expected = functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1, 0]))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same(net.units.forwards[0].output.read(), hidden)
    assert_same(net.err_input, inputs.grad)
    for one, tensor in zip(net.parameters, tensors, strict=True):
        assert_same(one.gradient.read(), tensor.grad)


@pytest.mark.parametrize("groups", [2, 6])
def test_groups_are_torch_s(groups):
    x = images(4, (7, 6, 6))
    net = network(
        [conv(12, 3, "gelu", groups=groups, padding=1), softmax(3)], x, labels=[0, 1, 2, 1]
    )
    net.forward()
    net.backward()
    tensors = [torch.tensor(np.array(p.value.read()), requires_grad=True) for p in net.parameters]
    inputs = torch.tensor(x, requires_grad=True)
    kernel = tensors[0].reshape(12, 3, 3, 6 // groups).permute(0, 3, 1, 2)
    hidden = functional.conv2d(inputs.permute(0, 3, 1, 2), kernel, tensors[1], padding=1,
                               groups=groups)  # fmt: skip
    hidden = functional.gelu(hidden).permute(0, 2, 3, 1)
    logits = hidden.reshape(4, -1) @ tensors[2].T + tensors[3]
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1])).backward()
    assert_same(net.units.forwards[0].output.read(), hidden)
    assert_same(net.err_input, inputs.grad)
    for one, tensor in zip(net.parameters, tensors, strict=True):
        assert_same(one.gradient.read(), tensor.grad)


#: image, kernels, size, stride, padding (left, top, right, bottom), groups
DECONVS = [
    ((4, 5, 3), 2, 3, 1, 0, 1),
    ((4, 3, 4), 6, (3, 2), (2, 3), (1, 0, 0, 1), 2),
    ((5, 5, 2), 1, 4, 2, 1, 1),
    ((3, 4, 1), 3, 2, 3, 0, 1),
]


def torch_deconv(x, weights, bias, image, kernels, size, stride, padding, groups):
    height, width = (size, size) if isinstance(size, int) else size
    kernel = weights.reshape(image[2], height, width, kernels // groups).permute(0, 3, 1, 2)
    full = functional.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, bias, stride, groups=groups)
    left, top, right, bottom = [padding] * 4 if isinstance(padding, int) else padding
    rows, columns = full.shape[2:]
    return full[:, :, top : rows - bottom, left : columns - right].permute(0, 2, 3, 1)


@pytest.mark.parametrize(("image", "kernels", "size", "stride", "padding", "groups"), DECONVS)
@pytest.mark.parametrize("kind", ["linear", "tanh", "gelu"])
def test_transposed_convolution_is_torch_s(kind, image, kernels, size, stride, padding, groups):
    x = images(4, image)
    layer = deconv(kernels, size, kind, stride=stride, padding=padding, groups=groups)
    net = network([layer, softmax(3)], x, labels=[0, 1, 2, 1])
    net.forward()
    net.backward()
    tensors = [torch.tensor(np.array(p.value.read()), requires_grad=True) for p in net.parameters]
    inputs = torch.tensor(x, requires_grad=True)
    hidden = torch_deconv(inputs, *tensors[:2], image, kernels, size, stride, padding, groups)
    hidden = {**THEIRS, "gelu": functional.gelu}[kind](hidden)
    logits = hidden.reshape(4, -1) @ tensors[2].T + tensors[3]
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1])).backward()
    assert_same(net.units.forwards[0].output.read(), hidden)
    assert_same(net.err_input, inputs.grad)
    for one, tensor in zip(net.parameters, tensors, strict=True):
        assert_same(one.gradient.read(), tensor.grad)


def test_an_autoencoder_of_convolutions_against_central_differences():
    x = images(2, (5, 5, 2))
    layers = [conv(3, 3, "tanh", stride=2), deconv(2, 3, "sigmoid", stride=2)]
    net = network(layers, x, targets=images(2, (5, 5, 2)))
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=parameter.name)


@pytest.mark.parametrize(("image", "size", "stride"), POOLS)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_is_torch_s(kind, image, size, stride):
    x = images(4, image)
    layer = {"max": max_pool, "avg": avg_pool}[kind](size, stride)
    net = network([conv(2, 1, "linear"), layer, softmax(3)], x, labels=[0, 1, 2, 1])
    net.forward()
    net.backward()
    tensors = [torch.tensor(np.array(one.value.read())) for one in net.parameters]
    inputs = torch.tensor(x, requires_grad=True)
    hidden = torch_conv(inputs, *tensors[:2], image, 1, 1, 0).permute(0, 3, 1, 2)
    pool = {"max": functional.max_pool2d, "avg": functional.avg_pool2d}[kind]
    hidden = pool(hidden, size, stride, ceil_mode=True).permute(0, 2, 3, 1)
    logits = hidden.reshape(4, -1) @ tensors[2].T + tensors[3]
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1])).backward()
    assert_same(net.units.forwards[1].output.read(), hidden)
    assert_same(net.err_input, inputs.grad)


def test_a_deep_network_against_central_differences():
    layers = [conv(3, 3, "tanh", padding=1), max_pool(2), conv(2, 2, "sigmoid"), avg_pool(2),
              tanh(4), softmax(3)]  # fmt: skip
    net = network(layers, images(3, (6, 6, 2)), labels=[0, 2, 1])
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=parameter.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(net.err_input, expected, rtol=1e-6, atol=1e-9)


def test_images_without_channels_have_one():
    x = random(4, 6, 6)
    nets = [
        network([conv(2, 3), softmax(3)], one, labels=[0, 1, 2, 0]) for one in (x, x[..., None])
    ]
    losses = [net.forward() for net in nets]
    assert losses[0] == losses[1]
    for net in nets:
        net.backward()
    np.testing.assert_array_equal(nets[0].err_input, nets[1].err_input[..., 0])


def test_default_weights_are_veles_s():
    net = network([conv(50, 3), softmax(3)], images(2, (5, 5, 4)), labels=[0, 1])
    weights = np.array(net.parameters[0].value.read())
    assert weights.shape == (50, 36)
    assert 0.045 < np.abs(weights).max() <= 0.05


def test_nan_is_not_pooled_away():
    x = images(2, (4, 4, 1))
    net = network([max_pool(2), linear(2)], x, targets=random(2, 2))
    x[0, 1, 1] = np.nan
    net.given.give(minibatch_data=x)
    net.units.forwards[0].run()
    assert np.isnan(net.units.forwards[0].output.read()[0, 0, 0, 0])


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("image", "kernels", "size", "stride", "padding"), SHAPES)
def test_opencl_agrees(opencl_device, image, kernels, size, stride, padding, dtype):
    layers = [conv(kernels, size, "tanh", stride=stride, padding=padding), softmax(3)]
    agree(opencl_device, layers, images(5, image), dtype)


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_opencl_agrees_on_transposed_convolution(opencl_device, dtype):
    layers = [conv(6, 3, "gelu", groups=2), deconv(4, 3, "tanh", stride=2, groups=2), softmax(3)]
    agree(opencl_device, layers, images(5, (6, 6, 2)), dtype)


@pytest.mark.opencl
@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize("channels", [8, 19])
def test_opencl_agrees_on_pooling_of_many_channels(opencl_device, pool, channels):
    for dtype in ("float32", "float64"):
        layers = [conv(channels, 1, "tanh"), pool(3, 2), softmax(3)]
        agree(opencl_device, layers, images(5, (8, 7, 2)), dtype)


@pytest.mark.opencl
@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize(("image", "size", "stride"), POOLS)
def test_opencl_agrees_on_pooling(opencl_device, image, size, stride, pool):
    agree(opencl_device, [conv(2, 1, "tanh"), pool(size, stride), softmax(3)], images(5, image))


def agree(device, layers, x, dtype="float64"):
    """Compare three steps on both devices."""
    found = []
    for place in (device, None):
        net = network(layers, x, labels=[0, 1, 2, 1, 0], device=place, dtype=dtype,
                      learning_rate=0.1, gradient_moment=0.9)  # fmt: skip
        for _ in range(3):
            net.forward()
            net.backward()
        arrays = [net.err_input, *(np.array(one.output.read()) for one in net.units.forwards)]
        found.append(arrays + [np.array(one.value.read()) for one in net.parameters])
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    )
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, **tolerance)
    assert not device.info().notes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: conv(2, 9), r"window of 9 x 9 is larger than its images of"),
        (lambda: max_pool(0), "size is 0"),
        (lambda: conv(0, 3), "0 kernels"),
        (lambda: conv(2, 0), "size is 0"),
        (lambda: conv(2, (3, 3, 3)), "size is"),
        (lambda: conv(2, 3, stride=0), "stride is 0"),
        (lambda: conv(2, 3, padding=-1), "padding is -1"),
        (lambda: conv(2, 3, padding=(1, 2, 3)), "padding is"),
        (lambda: conv(2, 3, groups=2), "do not divide into 2 groups"),
        (lambda: deconv(2, 3, padding=4), "leaves"),
        (lambda: deconv(2, 3, groups=2), "do not divide into 2 groups"),
        (lambda: deconv(0, 3), "0 kernels"),
    ],
)
def test_what_makes_no_layer_is_named(make, words):
    with pytest.raises(ShapeError, match=words):
        network([make(), softmax(3)], images(2, (5, 5, 1)), labels=[0, 1])


def test_what_is_no_image_is_named():
    with pytest.raises(ShapeError, match="takes images"):
        network([conv(2, 3), softmax(3)], random(4, 25), labels=[0, 1, 2, 0])


def test_unknown_options_and_activations_are_named():
    with pytest.raises(InputError, match="did you mean 'relu'"):
        conv(2, 3, "rely")
    with pytest.raises(GraphError, match="did you mean 'padding'"):
        conv(2, 3, pad=1)
    assert issubclass(conv(2, 3).forward.func, Conv)
