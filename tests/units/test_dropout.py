"""Dropout: when it drops, what, and that its numbers depend on nothing but names and places."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, trained, workflow_on
from networks import Given, minibatch, network, numerical_gradient

from veloflow.devices.parameters import Parameters
from veloflow.errors import InputError
from veloflow.units import Dropout, GDDropout, WineLoader, dropout, softmax, standard_workflow, tanh
from veloflow.units.loader import TEST, TRAIN, VALIDATION

X = np.random.default_rng(5).standard_normal((6, 10))


def dropped(p=0.5, *, device=None, x=X, dtype="float64", testing=False, name="drop", seed=0, **at):
    """Return the output of dropout on a minibatch, and the unit."""
    wf = workflow_on(device, dtype=dtype, testing=testing, seed=seed)
    given = Given(wf, **minibatch(x, **at))
    unit = Dropout(wf, p, name=name).link_data(given, input="minibatch_data")
    unit.link_data(given, "minibatch_class", "minibatch_position", "epoch_number")
    with ready(given, unit):
        unit.run()
        return np.array(unit.output.read()), unit


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_survivors_are_scaled_and_the_others_silent(p):
    x = np.ones((50, 40))
    output, unit = dropped(p, x=x)
    survive = np.array(unit.noise.read()) >= p
    np.testing.assert_allclose(output, np.where(survive, 1 / (1 - p), 0.0), rtol=1e-15)
    # 2,000 throws: six standard deviations
    assert abs(survive.mean() - (1 - p)) < 6 * np.sqrt(p * (1 - p) / 2000)


@pytest.mark.parametrize("kind", [TEST, VALIDATION])
def test_only_training_drops(kind):
    np.testing.assert_array_equal(dropped(kind=kind)[0], X)


def test_testing_never_drops():
    np.testing.assert_array_equal(dropped(kind=TRAIN, testing=True)[0], X)


def test_nothing_is_dropped_of_no_share():
    np.testing.assert_array_equal(dropped(0.0)[0], X)


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0, float("nan")])
def test_shares_without_sense_are_refused(p):
    with pytest.raises(InputError, match=r"in \[0, 1\)"):
        Dropout(workflow_on(), p)


def test_numbers_depend_on_names_and_places_only():
    first, _ = dropped(epoch=3, position=40)
    np.testing.assert_array_equal(first, dropped(epoch=3, position=40)[0])
    for other in ({"seed": 1}, {"name": "other"}):
        assert (first != dropped(epoch=3, position=40, **other)[0]).any()
    assert (first != dropped(epoch=4, position=40)[0]).any()
    assert (first != dropped(epoch=3, position=41)[0]).any()


def test_a_sample_meets_the_same_numbers_in_whatever_piece_it_comes():
    whole, _ = dropped(position=100)
    for start, stop in ((0, 2), (2, 6)):
        part, _ = dropped(x=X[start:stop], position=100 + start)
        np.testing.assert_array_equal(part, whole[start:stop])


def test_samples_of_more_dimensions():
    flat, _ = dropped()
    shaped, _ = dropped(x=X.reshape(6, 5, 2))
    np.testing.assert_array_equal(shaped.reshape(6, 10), flat)


def test_gradient_of_a_network_with_dropout():
    net = network([tanh(8), dropout(0.4), tanh(5), softmax(3)], X, labels=[0, 1, 2, 2, 1, 0])
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(net.err_input, expected, rtol=1e-6, atol=1e-8)


def test_gradient_passes_where_nothing_was_dropped():
    net = network([tanh(8), dropout(0.4), softmax(3)], X, labels=[0, 1, 2, 2, 1, 0])
    net.given.give(minibatch_class=VALIDATION)
    net.forward()
    net.backward()
    _, last = net.units.gradients[1:]
    back = net.units.gradients[1]
    assert isinstance(back, GDDropout)
    np.testing.assert_array_equal(back.err_input.read(), last.err_input.read())


def build_wine(wf, *, layers):
    """Train on the wines with dropout."""
    loader = WineLoader(wf, minibatch_size=25, normalization="pointwise", validation_ratio=0.2)
    standard_workflow(wf, loader=loader, layers=layers, learning_rate=0.3, max_epochs=4)


def test_first_layer_may_be_dropout():
    wf = trained(build_wine, layers=[dropout(0.1), tanh(8), softmax(3)])
    assert [unit.name for unit in wf if isinstance(unit, GDDropout)] == []
    assert not wf["GDTanh"].needs_err_input


def test_training_is_the_same_every_time_and_differs_without():
    sums = [
        trained(build_wine, layers=layers).find_service(Parameters).sha256()
        for layers in ([tanh(8), dropout(0.3), softmax(3)],) * 2 + ([tanh(8), softmax(3)],)
    ]
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_opencl_drops_the_same(opencl_device, dtype):
    ours, _ = dropped(0.3, device=opencl_device, dtype=dtype, epoch=2, position=7)
    expected, _ = dropped(0.3, dtype=dtype, epoch=2, position=7)
    np.testing.assert_array_equal(ours, expected)
