"""Embedding, positional encoding, attention, mean over time: torch, differences, OpenCL."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, numerical_gradient

from veloflow.errors import DataError, ShapeError
from veloflow.units import (
    attention,
    embedding,
    linear,
    mean_over_time,
    positional_encoding,
    softmax,
)

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

BATCH, TIME, SIZE = 4, 5, 6
LABELS = [0, 1, 2, 1]
LENGTHS = [5, 2, 4, 1]
TOKENS = np.array([[1, 2, 3, 2, 7], [4, 4, 0, 0, 0], [6, 2, 2, 5, 0], [2, 0, 0, 0, 0]])


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


def assert_same(ours, tensor):
    np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_torch_s(heads, causal, masked):
    x = random(BATCH, TIME, SIZE)
    layers = [attention(heads, causal=causal, masked=masked), mean_over_time(masked=masked)]
    lengths = LENGTHS if masked else None
    net = network([*layers, softmax(3)], x, labels=LABELS, lengths=lengths)
    unit = net.units.forwards[0]
    unit.bias.value.write(random(3 * SIZE))
    unit.out_bias.value.write(random(SIZE))
    loss = net.forward()
    net.backward()
    ours = [np.array(one.value.read()) for one in net.parameters]
    twin = torch.nn.MultiheadAttention(SIZE, heads, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.tensor(ours[0]))
        twin.in_proj_bias.copy_(torch.tensor(ours[1]))
        twin.out_proj.weight.copy_(torch.tensor(ours[2]))
        twin.out_proj.bias.copy_(torch.tensor(ours[3]))
    inputs = torch.tensor(x, requires_grad=True)
    steps = torch.arange(TIME)
    real = steps < torch.tensor(lengths or [TIME] * BATCH)[:, None]
    before = torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), 1) if causal else None
    hidden, weights = twin(inputs, inputs, inputs, key_padding_mask=~real, attn_mask=before,
                           average_attn_weights=False)  # fmt: skip
    mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    logits = mean @ torch.tensor(ours[4]).T + torch.tensor(ours[5])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same(unit.attention.read(), weights)
    assert_same(net.err_input, inputs.grad)
    found = [twin.in_proj_weight, twin.in_proj_bias, twin.out_proj.weight, twin.out_proj.bias]
    for one, tensor in zip(net.parameters[:4], found, strict=True):
        assert_same(one.gradient.read(), tensor.grad)


@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
def test_a_network_on_tokens_against_central_differences(masked):
    layers = [
        embedding(8, 4, padding=0),
        positional_encoding(),
        attention(2, causal=True, masked=masked),
        mean_over_time(masked=masked),
        softmax(3),
    ]
    lengths = [5, 0, 4, 1] if masked else None
    net = network(layers, TOKENS.astype(float), labels=LABELS, lengths=lengths)
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=parameter.name)
    assert not np.any(net.parameters[0].gradient.read()[0])


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding_is_torch_s(padding):
    net = network([embedding(8, 3, padding=padding), softmax(3)], TOKENS.astype(float),
                  labels=LABELS)  # fmt: skip
    net.forward()
    net.backward()
    weights = torch.tensor(np.array(net.parameters[0].value.read()), requires_grad=True)
    table = weights
    if padding is not None:
        table = weights * (torch.arange(8) != padding)[:, None]
    vectors = torch.nn.functional.embedding(torch.tensor(TOKENS), table)
    ours = [torch.tensor(np.array(one.value.read())) for one in net.parameters[1:]]
    logits = vectors.reshape(BATCH, -1) @ ours[0].T + ours[1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS)).backward()
    assert_same(net.units.forwards[0].output.read(), vectors)
    assert_same(net.parameters[0].gradient.read(), weights.grad)


def test_positions_are_waves():
    x = np.zeros((2, 7, 5))
    net = network([positional_encoding(), linear(2)], x, targets=random(2, 2))
    net.forward()
    found = np.array(net.units.forwards[0].output.read())[1]
    for t in range(7):
        for k in range(5):
            angle = t / 10000 ** (2 * (k // 2) / 5)
            assert found[t, k] == pytest.approx(np.cos(angle) if k % 2 else np.sin(angle))


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
def test_opencl_agrees(opencl_device, masked, dtype):
    layers = [
        embedding(8, 9, padding=0),
        positional_encoding(),
        attention(3, causal=masked, masked=masked),
        mean_over_time(masked=masked),
        softmax(3),
    ]
    found = []
    for place in (opencl_device, None):
        net = network(
            layers, TOKENS.astype(float), labels=LABELS, device=place, dtype=dtype,
            lengths=LENGTHS if masked else None, learning_rate=0.1, gradient_moment=0.9,
        )  # fmt: skip
        for _ in range(3):
            net.forward()
            net.backward()
        arrays = [np.array(one.output.read()) for one in net.units.forwards]
        found.append(arrays + [np.array(one.value.read()) for one in net.parameters])
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    )
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, **tolerance)


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_device_adds_the_errors_of_a_token_to_the_same_bits(opencl_device, dtype):
    tokens = np.random.default_rng(3).integers(0, 4, (50, 11)).astype(float)
    found = []
    for place in (opencl_device, None):
        net = network([embedding(5, 19, padding=1), softmax(3)], tokens, device=place,
                      dtype=dtype, labels=np.zeros(50))  # fmt: skip
        unit = net.units.gradients[0]
        net.forward()
        unit.err_output.write(random(50, 11, 19))
        unit.backpropagate()
        found.append(np.array(net.parameters[0].gradient.read()))
    np.testing.assert_array_equal(*found)
    assert found[0][0].any()
    assert not found[0][[1, 4]].any()


@pytest.mark.parametrize("token", [-1, 8, 1.5, np.nan])
def test_a_token_that_is_none_is_named(token):
    tokens = TOKENS.astype(float)
    tokens[2, 1] = token
    net = network([embedding(8, 3), softmax(3)], tokens, labels=LABELS)
    with pytest.raises(DataError, match="has the token"):
        net.forward()


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (attention(4), "cannot share vectors of 6"),
        (attention(0), "0 heads"),
        (embedding(0, 3), "0 tokens"),
        (embedding(3, 3, padding=3), "padding is 3"),
    ],
)
def test_what_makes_no_layer_is_named(layer, words):
    with pytest.raises(ShapeError, match=words):
        network([layer, softmax(3)], random(BATCH, TIME, SIZE), labels=LABELS)
