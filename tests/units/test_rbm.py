"""RBM: contrastive divergence against plain NumPy, free energies, and OpenCL against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from harness import trained
from networks import network

from veloflow.devices.random import key_of, uniform
from veloflow.errors import GraphError, InputError, ShapeError
from veloflow.units import ArrayLoader, rbm, standard_workflow

PATH = "RBM"


def random(*shape: int):
    """Return numbers in [0, 1), the same for the same shape."""
    return np.random.default_rng(list(shape)).random(shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def chain(weights, bias, visible_bias, v, position, epoch, *, k=1, seed=0, draw_visible=False):
    """Return v0, p(h | v0), vk and p(h | vk): the same formulas, written down once more."""

    def drawn(purpose, p):
        key = key_of(seed, PATH, purpose)
        numbers = uniform(key, *p.shape, stream=epoch, row=position, dtype=np.float64)
        return (numbers < p).astype(np.float64)

    v0, vk = v, v
    h0 = hk = sigmoid(v @ weights.T + bias)
    for step in range(k):
        states = drawn(f"hidden {step}", hk)
        vk = sigmoid(states @ weights + visible_bias)
        if draw_visible:
            vk = drawn(f"visible {step}", vk)
        hk = sigmoid(vk @ weights.T + bias)
    return v0, h0, vk, hk


def build(wf, *, data, hidden=1000, k=1, epochs=2, rate=0.001, size=128):
    loader = ArrayLoader(wf, data, validation=(data[:10], None), minibatch_size=size,
                         shuffle_limit=0)  # fmt: skip
    standard_workflow(
        wf, loader=loader, layers=[rbm(hidden, k=k)], loss="mse", target="minibatch_data",
        learning_rate=rate, weights_decay=0.0, max_epochs=epochs,
    )  # fmt: skip


def parameters_of(unit):
    return [np.array(one.value.read()) for one in unit.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
def test_two_epochs_of_contrastive_divergence_are_numpy_s(k):
    """Veles's check of its RBM: 196-1000, rate 0.001, 240 samples, minibatches of 128."""
    data = (random(240, 196) < random(196)).astype(np.float64)
    start = trained(build, dtype="float64", data=data, k=k, epochs=0)
    weights, bias, visible_bias = parameters_of(start[PATH])
    for epoch in range(2):
        for first in range(0, 240, 128):
            batch = data[first : first + 128]
            v0, h0, vk, hk = chain(weights, bias, visible_bias, batch, 10 + first, epoch, k=k)
            weights = weights + 0.001 * (h0.T @ v0 - hk.T @ vk) / len(batch)
            bias = bias + 0.001 * (h0 - hk).sum(0) / len(batch)
            visible_bias = visible_bias + 0.001 * (v0 - vk).sum(0) / len(batch)
    ours = parameters_of(trained(build, dtype="float64", data=data, k=k)[PATH])
    for one, other in zip(ours, (weights, bias, visible_bias), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def machine(x, *, device=None, dtype="float64", size=None, **options):
    """Return a network of one machine, to run by hand."""
    return network([rbm(5, **options)], x, targets=x, size=size, device=device, dtype=dtype)


def test_the_gradient_is_that_of_the_difference_of_free_energies():
    """F(v) = -a v - sum of log(1 + e^(W v + b)); d(mean of F(v0) - F(vk)) with vk held."""
    x = random(6, 4)
    net = machine(x, k=2)
    unit = net.units.forwards[0]
    for one in unit.parameters():
        one.value.write(random(*one.shape) - 0.5)
    net.forward()
    net.backward()
    ends = np.array(unit.visible.read()), np.array(unit.output.read())

    def difference():
        weights, bias, visible_bias = parameters_of(unit)
        energies = [-v @ visible_bias - np.logaddexp(0, v @ weights.T + bias).sum(1) for v in ends]
        return (energies[0] - energies[1]).mean()

    for one in unit.parameters():
        found, values = np.array(one.gradient.read()), np.array(one.value.read())
        for place in np.ndindex(values.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = values.copy()
                moved[place] += step
                one.value.write(moved)
                sides.append(difference())
            one.value.write(values)
            expected = (sides[0] - sides[1]) / 2e-5
            assert found[place] == pytest.approx(expected, rel=1e-6, abs=1e-10)


def test_padding_counts_for_nothing():
    x = random(6, 4)
    padded = np.where(np.arange(6)[:, None] < 4, x, 0.0)
    nets = [machine(x[:4]), machine(padded, size=4)]
    for net in nets:
        net.forward()
        net.backward()
    for one, other in zip(*(net.parameters for net in nets), strict=True):
        np.testing.assert_allclose(one.gradient.read(), other.gradient.read(), rtol=1e-12)


@pytest.mark.parametrize("options", [{"draw_input": True}, {"draw_visible": True, "k": 2}])
def test_what_is_drawn_is_0_or_1_as_often_as_is_probable(options):
    net = machine(np.full((2000, 3), 0.3), **options)
    net.forward()
    unit = net.units.forwards[0]
    drawn = unit.visible if "draw_input" in options else unit.output
    values = np.array(drawn.read())
    assert set(np.unique(values)) == {0.0, 1.0}
    assert set(np.unique(unit.hidden_states.read())) == {0.0, 1.0}
    expected = 0.3 if "draw_input" in options else 0.5
    assert values.mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_opencl_agrees(opencl_device, dtype):
    found = []
    for device in (opencl_device, None):
        net = machine(random(7, 19), device=device, dtype=dtype, k=2, draw_input=True,
                      learning_rate=0.1)  # fmt: skip
        for _ in range(3):
            net.forward()
            net.backward()
        unit = net.units.forwards[0]
        states = [np.array(one.read()) for one in (unit.hidden_states, unit.output)]
        found.append(states + parameters_of(unit))
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_it_learns_what_it_sees():
    """Two patterns, each with a tenth of its pixels wrong, are told apart and cleaned."""
    patterns = np.repeat(random(2, 20) < 0.5, 60, axis=0)
    data = np.where(random(120, 20) < 0.1, ~patterns, patterns).astype(np.float64)
    wf = trained(build, dtype="float64", data=data, hidden=8, epochs=60, rate=0.5, size=20)
    losses = [one["train"]["loss"] for one in wf["DecisionMSE"].epochs[1:]]
    assert losses[-1] < 0.3 < losses[0]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: rbm(0), ShapeError, "0 hidden"),
        (lambda: rbm(3, k=0), InputError, "k is 0"),
        (lambda: rbm(3, draw=True), GraphError, "no option 'draw'"),
    ],
)
def test_what_makes_no_machine_is_named(make, error, words):
    with pytest.raises(error, match=words):
        network([make()], random(2, 4), targets=random(2, 4))
