"""Losses and their gradients against torch: smoothing, weights, many labels at once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from harness import ready, workflow_on
from networks import Given, minibatch

import veloflow
from veloflow.devices.numpy import NumpyDevice
from veloflow.errors import DataError, GraphError, InputError
from veloflow.units import (
    ArrayLoader,
    EvaluatorMSE,
    EvaluatorMultiLabel,
    EvaluatorSoftmax,
    linear,
    softmax,
    standard_workflow,
)

random = np.random.default_rng(2)
LOGITS = random.standard_normal((8, 5))
LABELS = np.array([0, 1, 2, 3, 4, 0, -1, -1], np.int32)
WEIGHTS = random.random(8)


@pytest.fixture(params=["numpy", "opencl"])
def device(request):
    """Return each kind of device in turn."""
    if request.param == "numpy":
        return NumpyDevice()
    return request.getfixturevalue("opencl_device")


def cross_entropy(z, smoothing, class_weights, weights):
    """Return torch's loss for each labelled row."""
    losses = torch.nn.functional.cross_entropy(
        z[:6], torch.from_numpy(LABELS[:6]).long(), reduction="none", label_smoothing=smoothing
    )
    return losses * torch.from_numpy(weights[:6] * class_weights[LABELS[:6]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["even", "weighted"])
def test_cross_entropy_is_torchs(device, smoothing, is_weighted):
    wf = workflow_on(device, dtype="float64")
    z = torch.tensor(LOGITS, requires_grad=True)
    class_weights = np.array([1.0, 2.0, 0.5, 0.0, 3.0]) if is_weighted else np.ones(5)
    weights = WEIGHTS if is_weighted else np.ones(8)
    losses = cross_entropy(z, smoothing, class_weights, weights)
    (losses.sum() / 6).backward()
    p = torch.softmax(z, 1).detach().numpy()
    given = Given(wf, p=p, labels=LABELS, weights=weights)
    options = {"class_weights": class_weights} if is_weighted else {}
    unit = EvaluatorSoftmax(wf, label_smoothing=smoothing, **options)
    unit.link_data(given, "labels", output="p")
    if is_weighted:
        unit.link_data(given, sample_weights="weights")
    with ready(given, unit):
        unit.run()
        assert unit.samples == 6
        assert unit.loss == pytest.approx(float(losses.detach().sum()), rel=1e-12)
        np.testing.assert_allclose(unit.err_output.read(), z.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_many_labels_are_torchs(device):
    wf = workflow_on(device, dtype="float64")
    z = torch.tensor(10 * LOGITS, requires_grad=True)
    targets = (random.random((8, 5)) > 0.5).astype(float)
    loss = torch.nn.BCEWithLogitsLoss()(z[:6], torch.from_numpy(targets[:6]))
    loss.backward()
    given = Given(wf, z=z.detach().numpy(), t=targets, size=6)
    unit = EvaluatorMultiLabel(wf).link_data(given, output="z", target="t", minibatch_size="size")
    with ready(given, unit):
        unit.run()
        assert unit.loss / 6 == pytest.approx(float(loss.detach()), rel=1e-12)
        np.testing.assert_allclose(unit.err_output.read(), z.grad.numpy(), rtol=1e-9, atol=1e-15)
        expected = ((10 * LOGITS[:6] > 0) != (targets[:6] > 0.5)).any(1).sum()
        assert unit.n_err == expected
        given.give(t=targets + 2)
        with pytest.raises(DataError, match="outside"):
            unit.run()


@pytest.mark.parametrize("kind", ["mse", "multilabel"])
def test_weights_of_samples_are_factors(device, kind):
    wf = workflow_on(device, dtype="float64")
    z = torch.tensor(LOGITS, requires_grad=True)
    targets = random.random((8, 5))
    t, u = torch.from_numpy(targets), torch.from_numpy(WEIGHTS)
    if kind == "mse":  # the gradient is that of half the sum of squares
        given_losses = (z - t).square().mean(1)
        ((z - t).square().sum(1) / 2 * u)[:6].mean().backward()
        make = partial(EvaluatorMSE, root=False)
    else:
        given_losses = torch.nn.BCEWithLogitsLoss(reduction="none")(z, t).mean(1)
        (given_losses * u)[:6].mean().backward()
        make = EvaluatorMultiLabel
    given = Given(wf, z=LOGITS, t=targets, u=WEIGHTS, size=6)
    unit = make(wf).link_data(
        given, output="z", target="t", minibatch_size="size", sample_weights="u"
    )
    with ready(given, unit):
        unit.run()
        assert unit.loss == pytest.approx(float((given_losses * u)[:6].sum().detach()), rel=1e-12)
        np.testing.assert_allclose(unit.err_output.read(), z.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_weights_of_a_loader_go_to_the_evaluator_and_the_normalizer():
    data, labels = random.random((20, 3)), np.arange(20) % 2
    weights = np.arange(20) % 4

    def result(**given):
        def build(wf):
            loader = ArrayLoader(wf, minibatch_size=60, normalization="standard", **given)
            standard_workflow(wf, loader=loader, layers=[softmax(2)], learning_rate=0.1,
                              max_epochs=3)  # fmt: skip

        return veloflow.run(build, device="numpy", dtype="float64").epochs[-1]["train"]["loss"]

    repeated = result(data=data.repeat(weights, 0), labels=labels.repeat(weights))
    weighted = result(data=data, labels=labels, weights=weights / weights.mean())
    assert weighted == pytest.approx(repeated, rel=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "2 samples, but 1 weights"),
        ([1.0, -1.0], "none below 0"),
        ([1.0, np.inf], "the weights hold NaN or infinity"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    loader = ArrayLoader(workflow_on(), np.zeros((2, 1)), [0, 1], weights=weights)
    with pytest.raises(DataError, match=message), ready(loader):
        pass


def test_number_of_class_weights():
    wf = workflow_on()
    given = Given(wf, p=LOGITS, labels=LABELS)
    unit = EvaluatorSoftmax(wf, class_weights=[1, 2]).link_data(given, "labels", output="p")
    with (
        pytest.raises(InputError, match="2 class_weights, and the output has 5 classes"),
        ready(given, unit),
    ):
        pass


def test_smoothing_is_for_softmax():
    wf = workflow_on()
    given = Given(wf, **minibatch(np.ones((2, 4))))
    with pytest.raises(GraphError, match="for the softmax loss"):
        standard_workflow(wf, loader=given, layers=[linear(3)], loss="mse", label_smoothing=0.1)
    with pytest.raises(GraphError, match="give 'softmax', 'mse' or 'multilabel'"):
        standard_workflow(wf, loader=given, layers=[softmax(3)], loss="hinge")
