"""RNN, LSTM and GRU: against torch, central differences, and OpenCL against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, numerical_gradient

from veloflow.errors import DataError, GraphError, ShapeError
from veloflow.units import Adam, gru, lstm, rnn, softmax

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

BATCH, TIME, INPUTS, CELLS = 5, 4, 3, 6
LABELS = [0, 1, 2, 1, 0]
LENGTHS = [4, 1, 3, 2, 4]

OURS = {
    "rnn": rnn,
    "rnn relu": lambda cells, **more: rnn(cells, "relu", **more),
    "lstm": lstm,
    "gru": gru,
}
THEIRS = {
    "rnn": torch.nn.RNN,
    "rnn relu": lambda *sizes, **more: torch.nn.RNN(*sizes, nonlinearity="relu", **more),
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
}


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


def assert_same(ours, tensor):
    np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-9, atol=1e-11)


def torch_twin(kind, parameters):
    """Return torch's layer with our parameters."""
    weights = parameters[0]
    cells = parameters[1].shape[1]
    layer = THEIRS[kind](weights.shape[1], cells, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor(weights))
        layer.weight_hh_l0.copy_(torch.tensor(parameters[1]))
        layer.bias_ih_l0.copy_(torch.tensor(parameters[2]))
        layer.bias_hh_l0.copy_(torch.tensor(parameters[3]) if kind == "gru" else 0)
    return layer


@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "all"])
@pytest.mark.parametrize("kind", OURS)
def test_the_layer_is_torch_s(kind, sequences, masked):
    x = random(BATCH, TIME, INPUTS)
    layer = OURS[kind](CELLS, return_sequences=sequences, masked=masked)
    lengths = LENGTHS if masked else None
    net = network([layer, softmax(3)], x, labels=LABELS, lengths=lengths)
    loss = net.forward()
    net.backward()
    ours = [np.array(one.value.read()) for one in net.parameters]
    twin = torch_twin(kind, ours)
    inputs = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        inputs, torch.tensor(lengths or [TIME] * BATCH), batch_first=True, enforce_sorted=False
    )
    hidden, last = twin(packed)
    hidden, _ = torch.nn.utils.rnn.pad_packed_sequence(hidden, batch_first=True)
    last = last[0] if kind == "lstm" else last
    found = hidden if sequences else last[0]
    logits = found.reshape(BATCH, -1) @ torch.tensor(ours[-2]).T + torch.tensor(ours[-1])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same(net.units.forwards[0].output.read(), found)
    assert_same(net.err_input, inputs.grad)
    tensors = [twin.weight_ih_l0, twin.weight_hh_l0, twin.bias_ih_l0, twin.bias_hh_l0]
    for one, tensor in zip(net.parameters[:-2], tensors, strict=False):
        assert_same(one.gradient.read(), tensor.grad)


@pytest.mark.parametrize("kind", OURS)
def test_a_hundred_steps_of_adam_end_where_torch_s_do(kind):
    """Layer, evaluator and solver together, as a training has them; a new minibatch each step."""
    x = random(100, BATCH, TIME, INPUTS)
    net = network([OURS[kind](CELLS), softmax(3)], x[0], labels=LABELS, solver=Adam(),
                  learning_rate=0.002, weights_decay=0.0, dtype="float64")  # fmt: skip
    begun = [np.array(one.value.read()) for one in net.parameters]
    twin = torch_twin(kind, begun)
    last = torch.nn.Linear(CELLS, 3, dtype=torch.float64)
    with torch.no_grad():
        last.weight.copy_(torch.tensor(begun[-2]))
        last.bias.copy_(torch.tensor(begun[-1]))
    twin.bias_hh_l0.requires_grad_(kind == "gru")  # ours has one bias where torch adds up two
    tensors = [*twin.parameters(), *last.parameters()]
    solver = torch.optim.Adam([one for one in tensors if one.requires_grad], lr=0.002)
    for batch in x:
        net.given.give(minibatch_data=batch)
        net.forward()
        net.backward()
        solver.zero_grad()
        logits = last(twin(torch.tensor(batch))[0][:, -1])
        torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS)).backward()
        solver.step()
    tensors = [one for one in tensors if one.requires_grad]
    for ours, first, theirs in zip(net.parameters, begun, tensors, strict=True):
        assert np.abs(ours.value.read() - first).max() > 0.01
        np.testing.assert_allclose(ours.value.read(), theirs.detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("kind", OURS)
def test_two_layers_against_central_differences(kind, masked):
    layers = [
        OURS[kind](3, return_sequences=True, masked=masked),
        OURS[kind](2, masked=masked),
        softmax(3),
    ]
    lengths = [3, 0, 1, 2, 3] if masked else None
    net = network(layers, random(BATCH, 3, 2), labels=LABELS, lengths=lengths)
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=parameter.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(net.err_input, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", OURS)
def test_what_lies_beyond_the_end_of_a_sequence_changes_nothing(kind):
    x = random(BATCH, TIME, INPUTS)
    layers = [OURS[kind](CELLS, masked=True), softmax(3)]
    found = []
    for beyond in (x, np.where(np.arange(TIME)[:, None] < np.reshape(LENGTHS, (-1, 1, 1)), x, 7)):
        net = network(layers, beyond, labels=LABELS, lengths=LENGTHS)
        loss = net.forward()
        net.backward()
        found.append([loss, *(np.array(one.gradient.read()) for one in net.parameters)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lengths_may_change_from_minibatch_to_minibatch():
    x = random(BATCH, TIME, INPUTS)
    layers = [lstm(CELLS, return_sequences=True, masked=True), softmax(3)]
    changing = network(layers, x, labels=LABELS, lengths=[TIME] * BATCH)
    changing.forward()
    changing.backward()
    changing.given.give(minibatch_lengths=np.array(LENGTHS))
    fresh = network(layers, x, labels=LABELS, lengths=LENGTHS)
    for net in (changing, fresh):
        net.forward()
        net.backward()
    np.testing.assert_array_equal(changing.err_input, fresh.err_input)
    for one, other in zip(changing.parameters, fresh.parameters, strict=True):
        np.testing.assert_array_equal(one.gradient.read(), other.gradient.read())


def test_one_step_of_one_number_of_one_sample():
    net = network([lstm(1), softmax(2)], random(1, 1), labels=[1])
    net.forward()
    net.backward()
    np.testing.assert_allclose(
        net.err_input, numerical_gradient(net, net.given.minibatch_data), rtol=1e-6
    )
    assert not np.any(net.parameters[1].gradient.read())


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cells", [8, 19])
@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("kind", OURS)
def test_opencl_agrees(opencl_device, kind, masked, cells, dtype):
    layers = [
        OURS[kind](cells, return_sequences=True, masked=masked),
        OURS[kind](4, masked=masked),
        softmax(3),
    ]
    found = []
    for place in (opencl_device, None):
        net = network(
            layers, random(BATCH, TIME, INPUTS), labels=LABELS, device=place, dtype=dtype,
            lengths=LENGTHS if masked else None, learning_rate=0.1, gradient_moment=0.9,
        )  # fmt: skip
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
    assert not opencl_device.info().notes


def test_sequences_lie_as_time_says():
    """(batch, time, height, width) is seen as (batch, time, inputs)."""
    x = random(BATCH, TIME, 2, 3)
    nets = [
        network([lstm(CELLS), softmax(3)], one, labels=LABELS)
        for one in (x, x.reshape(BATCH, TIME, 6))
    ]
    losses = [net.forward() for net in nets]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("make", "x", "error", "words"),
    [
        (lambda: lstm(0), (2, 3, 4), ShapeError, "0 cells"),
        (lambda: lstm(2), (2, 0, 4), ShapeError, "0 steps"),
        (lambda: lstm(2), (2,), ShapeError, "batch time"),
        (lambda: rnn(2, "rely"), (2, 3, 4), GraphError, "did you mean 'relu'"),
        (lambda: gru(2, return_sequence=True), (2, 3, 4), GraphError, "'return_sequences'"),
    ],
)
def test_what_makes_no_layer_is_named(make, x, error, words):
    with pytest.raises(error, match=words):
        network([make(), softmax(2)], random(*x), labels=[0, 1])


@pytest.mark.parametrize("length", [-1, 5])
def test_a_length_that_is_none_is_named(length):
    layers = [gru(2, masked=True), softmax(2)]
    net = network(layers, random(2, 4, 3), labels=[0, 1], lengths=[length, 2])
    with pytest.raises(DataError, match=f"has the length {length}"):
        net.forward()
