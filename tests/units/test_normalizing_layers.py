"""LRN, batch and layer normalisation: against torch, central differences, OpenCL."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, workflow_on
from networks import Given, minibatch, network, numerical_gradient

from veloflow.core import Batch, Part
from veloflow.errors import GraphError, InputError, ShapeError
from veloflow.units import (
    BatchNorm,
    LocalResponse,
    Uniform,
    batch_norm,
    conv,
    layer_norm,
    linear,
    lrn,
    softmax,
    tanh,
)
from veloflow.units.loader import TRAIN, VALIDATION


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


IMAGES = (4, 3, 3, 2)
LABELS = [0, 2, 1, 1]
LAYERS = {
    "lrn": (lrn(alpha=0.3, n=3), lambda f, x, w: f.local_response_norm(x, 3, 0.9, 0.75, 2.0)),
    "wide lrn": (lrn(alpha=0.1, beta=0.5, k=1.0, n=9),
                 lambda f, x, w: f.local_response_norm(x, 9, 0.9, 0.5, 1.0)),
    "batch": (batch_norm(), lambda f, x, w: f.batch_norm(x, None, None, *w, True)),
    "plain batch": (batch_norm(affine=False),
                    lambda f, x, w: f.batch_norm(x, None, None, training=True)),
    "layer": (layer_norm(3), lambda f, x, w: f.layer_norm(
        x.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1).shape[1:], *w).permute(0, 3, 1, 2)),
    "layer of channels": (layer_norm(), lambda f, x, w: f.layer_norm(
        x.permute(0, 2, 3, 1), x.shape[1:2], *w).permute(0, 3, 1, 2)),
    "plain layer": (layer_norm(affine=False, epsilon=0.1), lambda f, x, w: f.layer_norm(
        x.permute(0, 2, 3, 1), x.shape[1:2], eps=0.1).permute(0, 3, 1, 2)),
}  # fmt: skip


def network_with(name, device=None, **more):
    """Return a network with this layer in its middle, its scale and shift moved."""
    layers = [conv(5, 1, "linear", weights_filling=Uniform(1.0)), LAYERS[name][0], softmax(3)]
    net = network(layers, 2 * random(*IMAGES), labels=LABELS, device=device, **more)
    for number, one in enumerate(net.units.forwards[1].parameters()):
        one.value.write(random(*one.shape) + 1 + number)
    return net


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_torch_s(name):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    net = network_with(name)
    loss = net.forward()
    net.backward()
    tensors = [torch.tensor(np.array(one.value.read()), requires_grad=True)
               for one in net.parameters]  # fmt: skip
    x = torch.tensor(np.array(net.given.minibatch_data.read()), requires_grad=True)
    hidden = (x @ tensors[0].T + tensors[1]).permute(0, 3, 1, 2)
    hidden = LAYERS[name][1](functional, hidden, tensors[2:-2]).permute(0, 2, 3, 1)
    logits = hidden.reshape(4, -1) @ tensors[-2].T + tensors[-1]
    expected = functional.cross_entropy(logits, torch.tensor(LABELS))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(net.err_input, x.grad.numpy(), rtol=1e-8, atol=1e-11)
    for one, tensor in zip(net.parameters, tensors, strict=True):
        np.testing.assert_allclose(one.gradient.read(), tensor.grad.numpy(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_central_differences(name):
    net = network_with(name)
    net.forward()
    net.backward()
    found = [np.array(one.gradient.read()) for one in net.parameters]
    back = net.err_input
    for one, gradient in zip(net.parameters, found, strict=True):
        expected = numerical_gradient(net, one.value)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9, err_msg=one.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(back, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.opencl
@pytest.mark.parametrize("name", LAYERS)
def test_opencl_agrees(opencl_device, name):
    found = []
    for device in (opencl_device, None):
        net = network_with(name, device, learning_rate=0.1, gradient_moment=0.9)
        for _ in range(3):
            net.forward()
            net.backward()
        arrays = [net.err_input, *(np.array(one.value.read()) for one in net.parameters)]
        found.append(arrays + [np.asarray(v) for v in net.units.forwards[1].state().values()])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11)
    assert not opencl_device.info().notes


def test_batch_normalisation_of_vectors_leaves_padding_out():
    """Rows beyond minibatch_size change nothing, and get no error."""
    x, labels = random(6, 3), [0, 1, 2, 1, -1, -1]
    padded = network([linear(4), batch_norm(), softmax(3)], x, labels=labels, size=4)
    short = network([linear(4), batch_norm(), softmax(3)], x[:4], labels=labels[:4])
    assert padded.forward() == short.forward()
    for net in (padded, short):
        net.backward()
    np.testing.assert_allclose(padded.err_input[:4], short.err_input, rtol=1e-12)
    np.testing.assert_array_equal(padded.err_input[4:], 0)
    for one, other in zip(padded.parameters, short.parameters, strict=True):
        np.testing.assert_allclose(one.gradient.read(), other.gradient.read(), rtol=1e-12)
    for one, other in zip(*(net.units.forwards[1].state().values() for net in (padded, short)),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-12)


class Alone:
    """A batch normalisation on given data."""

    def __init__(self, x, **more):
        self.wf = workflow_on(dtype="float64", **more)
        self.given = Given(self.wf, **minibatch(x))
        self.unit = BatchNorm(self.wf).link_data(self.given, input="minibatch_data")
        self.unit.link_data(self.given, "minibatch_class", "minibatch_size")

    def run(self, x, kind=TRAIN, run="run"):
        """Return the output."""
        self.given.give(minibatch_data=x, minibatch_class=kind)
        getattr(self.unit, run)()
        return np.array(self.unit.output.read())


def test_running_statistics_are_torch_s():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm1d(3).double()
    alone = Alone(random(5, 3))
    with ready(alone.given, alone.unit):
        for number in range(4):
            x = (number + 1) * random(5, 3) + number
            np.testing.assert_allclose(
                alone.run(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-10, atol=1e-12
            )
            state = alone.unit.state()
            np.testing.assert_allclose(state["running_mean"], theirs.running_mean.numpy())
            np.testing.assert_allclose(state["running_variance"], theirs.running_var.numpy())
        theirs.eval()
        x = random(5, 3) + 7
        expected = theirs(torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(alone.run(x, VALIDATION), expected, rtol=1e-10, atol=1e-12)
        assert alone.unit.state()["running_mean"] is not state["running_mean"]
        np.testing.assert_array_equal(alone.unit.state()["running_mean"], state["running_mean"])
        other = Alone(x)
        with ready(other.given, other.unit):
            other.unit.restore(alone.unit.state())
            np.testing.assert_array_equal(other.run(x, VALIDATION), alone.run(x, VALIDATION))


def test_with_slaves_parts_are_normalised_and_pooled():
    x = random(7, 2) * [1, 5] + [3, 0]
    whole, part = Alone(x), Alone(x[:4])
    master = Alone(x)
    updates = []
    with ready(whole.given, whole.unit), ready(part.given, part.unit):
        whole.run(x)
        for piece in (x[:4], x[4:]):
            part.given.give(minibatch_size=len(piece))
            part.unit.take_job({})
            padded = np.concatenate([piece, np.zeros((4 - len(piece), 2))])
            y = part.run(padded, run="run_as_slave")[: len(piece)]
            expected = (piece - piece.mean(0)) / np.sqrt(piece.var(0) + 1e-5)
            np.testing.assert_allclose(y, expected, rtol=1e-10)
            updates.append(part.unit.make_update())
        np.testing.assert_array_equal(part.unit.state()["running_mean"], 0)
        with ready(master.given, master.unit):
            master.unit.apply_update(updates)
            for one, other in zip(
                *(each.unit.state().values() for each in (master, whole)), strict=True
            ):
                np.testing.assert_allclose(one, other, rtol=1e-12)
            batch = [Batch(kind, 0, 0, 7, 7, range(7)) for kind in (VALIDATION, TRAIN)]
            job, nothing = (master.unit.make_job(Part(one, 0, 4)) for one in batch)
        assert nothing == {}
        part.unit.take_job(job)
        part.run(x[:4], VALIDATION, run="run_as_slave")
        assert part.unit.make_update()["count"] == 0
        np.testing.assert_array_equal(
            part.unit.state()["running_mean"], master.unit.state()["running_mean"]
        )
        master.unit.apply_update([part.unit.make_update()] * 2)


def test_in_a_test_run_nothing_is_learned():
    alone = Alone(random(5, 3), testing=True)
    with ready(alone.given, alone.unit):
        np.testing.assert_allclose(alone.run(random(5, 3)), random(5, 3) / np.sqrt(1 + 1e-5))
        np.testing.assert_array_equal(alone.unit.state()["running_mean"], 0)


def test_bad_options_are_named():
    wf = workflow_on()
    with pytest.raises(InputError, match="n is 4; give an odd number"):
        LocalResponse(wf, n=4)
    with pytest.raises(InputError, match="k is 0"):
        LocalResponse(wf, k=0)
    with pytest.raises(InputError, match="momentum is 0"):
        BatchNorm(wf, momentum=0)
    with pytest.raises(InputError, match="epsilon is -1"):
        BatchNorm(wf, epsilon=-1)
    with pytest.raises(ShapeError, match="axes is 2"):
        network([layer_norm(2), softmax(2)], random(3, 4), labels=[0, 1, 0])
    with pytest.raises(GraphError, match="has no option 'momentun'"):
        batch_norm(momentun=0.2)
    net = network([tanh(3), batch_norm(learning_rate=0.3), softmax(2)], random(2, 2), labels=[0, 1])
    assert net.units.gradients[1].weights_numbers.rate == 0.3
