"""Self-organizing maps: both rules against plain NumPy, and OpenCL against NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from harness import trained, workflow_on
from sklearn.decomposition import PCA

from veloflow.errors import DataError, InputError, ShapeError
from veloflow.units import ArrayLoader, Kohonen, KohonenTrainer, kohonen_workflow

OPTIONS = {"rate": 0.3, "rate_decay": 0.1, "radius": 0.8, "radius_decay": 0.2}


def points(count=53, features=3):
    """Return samples in two clouds, the first half in one."""
    random = np.random.default_rng(count)
    return random.standard_normal((count, features)) * 0.3 + (np.arange(count)[:, None] * 2 < count)


def build(wf, *, data, rule="batch", epochs=3, size=10, shape=(3, 4), **more):
    """Make a map whose samples come in order; 7 of them are for validation."""
    labels = (np.arange(len(data)) * 2 < len(data)).astype(int)
    loader = ArrayLoader(wf, data, labels, validation=(data[:7], labels[:7]), shuffle_limit=0,
                         minibatch_size=size)  # fmt: skip
    given = {**OPTIONS, **more}
    kohonen_workflow(wf, loader=loader, shape=shape, rule=rule, max_epochs=epochs, **given)


def weights_of(wf):
    return np.array(wf["Kohonen"].weights.value.read())


def grid(rows, columns):
    """Return squared distances of neurons, the formula written down once more."""
    places = [(x + (y % 2) / 2, y) for y in range(rows) for x in range(columns)]
    places = np.array(places)
    places = 2 * places / places.max(axis=0) - 1
    return np.square(places[:, None] - places[None]).sum(axis=2)


def pulls(winner, time):
    radius = OPTIONS["radius"] / (1 + OPTIONS["radius_decay"] * time)
    return np.exp(-grid(3, 4)[winner] / (2 * radius**2))


def winner_of(sample, weights):
    return np.square(weights - sample).sum(axis=1).argmin()


def test_the_batch_rule_is_numpy_s():
    data = points()
    weights = weights_of(trained(build, dtype="float64", data=data, epochs=0))
    for epoch in range(3):
        pull = np.array([pulls(winner_of(sample, weights), epoch) for sample in data])
        weights = pull.T @ data / pull.sum(axis=0)[:, None]
    found = weights_of(trained(build, dtype="float64", data=data))
    np.testing.assert_allclose(found, weights, rtol=0, atol=1e-12)


def test_the_online_rule_is_numpy_s():
    data, size, time = points(), 10, 0
    run = partial(trained, build, dtype="float64", data=data, rule="online", size=size)
    weights = weights_of(run(epochs=0))
    for _ in range(3):
        for first in range(0, len(data), size):
            rate = OPTIONS["rate"] / (1 + OPTIONS["rate_decay"] * time)
            for sample in data[first : first + size]:
                pull = rate * pulls(winner_of(sample, weights), time)
                weights = weights + pull[:, None] * (sample - weights)
            time += 1
    np.testing.assert_allclose(weights_of(run()), weights, rtol=0, atol=1e-12)


@pytest.mark.opencl
@pytest.mark.parametrize("rule", ["batch", "online"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_opencl_agrees(opencl_device, dtype, rule):
    run = partial(trained, build, dtype=dtype, data=points(60, 19), rule=rule, classes=2)
    one, other = run(device=opencl_device), run()
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(weights_of(one), weights_of(other), atol=tolerance)
    decisions = [wf["DecisionKohonen"] for wf in (one, other)]
    np.testing.assert_array_equal(*(one.hits["train"] for one in decisions))
    np.testing.assert_array_equal(*(one.neuron_labels for one in decisions))


def test_winners_and_labels_are_counted():
    data = points()
    wf = trained(build, data=data, classes=2, epochs=5)
    decision, weights = wf["DecisionKohonen"], weights_of(wf)
    assert decision.hits["train"].sum() == len(data)
    assert decision.hits["validation"].sum() == 7
    apart = np.sqrt(np.square(data[:7, None] - weights[None]).sum(axis=2))
    last = decision.epochs[-1]
    assert last["validation"]["quantization_error"] == pytest.approx(
        apart.min(axis=1).mean(), rel=1e-5
    )
    assert last["validation"]["error_percent"] == 0  # the clouds lie apart
    assert set(decision.neuron_labels) <= {-1, 0, 1}
    assert last["train"]["quantization_error"] < decision.epochs[1]["train"]["quantization_error"]


@pytest.mark.parametrize("shape", [(3, 4), (5, 2), (1, 6)])
def test_it_may_begin_on_the_plane_of_the_principal_components(shape):
    samples = points(60, 5) * [1, 3, 0.1, 1, 2] + 4
    weights = weights_of(trained(build, dtype="float64", data=samples, shape=shape, epochs=0,
                                 plane_of=samples))  # fmt: skip
    pca = PCA(2).fit(samples)
    found = pca.transform(weights)
    np.testing.assert_allclose(pca.inverse_transform(found), weights, atol=1e-12)  # on the plane
    spans = np.ptp(found, axis=0)
    present = [True, min(shape) > 1]  # a single row is a line along the first component
    np.testing.assert_allclose(spans, 2 * np.sqrt(pca.explained_variance_) * present, atol=1e-12)
    np.testing.assert_allclose(found.max(axis=0) + found.min(axis=0), 0, atol=1e-12)
    grid = found.reshape(*shape, 2)[::2]  # odd rows are half a step aside
    longer = grid if shape[1] > shape[0] else grid[..., ::-1]
    np.testing.assert_allclose(np.ptp(longer[..., 0], axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("samples", [np.zeros((9, 2)), np.full((9, 3), np.nan)])
def test_a_plane_of_other_samples_is_named(samples):
    with pytest.raises(DataError, match="plane_of has"):
        trained(build, data=points(), epochs=0, plane_of=samples)


def test_a_map_that_moves_no_more_is_done():
    wf = trained(build, data=points(), epochs=200, min_change=1e-4)
    assert len(wf["DecisionKohonen"].epochs) < 100
    assert wf["KohonenTrainer"].change < 1e-4


@pytest.mark.parametrize("rule", ["batch", "online"])
def test_it_goes_on_from_its_state(rule):
    data = points()
    whole = trained(build, data=data, rule=rule, epochs=4)
    first = trained(build, data=data, rule=rule, epochs=2)
    second = workflow_on()
    build(second, data=data, rule=rule, epochs=4)
    second.set_up()
    for unit in second.all_units():
        unit.restore(first[unit.path].state()) if first[unit.path].state() else None
    second["Kohonen"].weights.value.write(weights_of(first))
    second.run()
    second.close()
    np.testing.assert_array_equal(weights_of(second), weights_of(whole))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda wf: Kohonen(wf, (3,)), ShapeError, "rows, columns"),
        (lambda wf: Kohonen(wf, (1, 1)), ShapeError, "at least two"),
        (lambda wf: KohonenTrainer(wf, Kohonen(wf, (2, 2)), rule="bach"), InputError, "'bach'"),
        (lambda wf: KohonenTrainer(wf, Kohonen(wf, (2, 2)), radius=0), InputError, "radius"),
        (lambda wf: KohonenTrainer(wf, Kohonen(wf, (2, 2)), rate=-1), InputError, "rate -1"),
    ],
)
def test_what_makes_no_map_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make(workflow_on())
