"""The Kohonen demo: as good a map as MiniSom's of the same points, in the same run."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import veloflow
from veloflow import Workflow
from veloflow.units import ArrayLoader, digits, kohonen_workflow
from veloflow.workflows.kohonen import points

pytestmark = pytest.mark.slow


def minisom_error(data, epochs, *, sequential, seed=0, side=8, sigma=1.0, rate=0.5):
    """Return the quantization error of MiniSom's map, side x side, after so many epochs."""
    minisom = pytest.importorskip("minisom")
    som = minisom.MiniSom(side, side, data.shape[1], sigma=sigma, learning_rate=rate,
                          topology="hexagonal", random_seed=seed)  # fmt: skip
    som.pca_weights_init(data)
    if sequential:
        som.train(data, epochs * len(data), random_order=True)
    else:
        som.train_batch_offline(data, epochs)
    return som.quantization_error(data)


def error_of(weights, data):
    """Return the mean distance of samples from their nearest neuron, as MiniSom measures it.

    What a run reports of its training samples was measured while the neurons moved.
    """
    apart = cdist(data, np.asarray(weights.value.read(), np.float64))
    return apart.min(axis=1).mean()


def test_a_short_training_is_as_good_as_minisom_s() -> None:
    data, _ = points()
    result = veloflow.run("kohonen", device="numpy", epochs=30, radius_decay=0.6)
    ours = result.best["train_quantization_error"]
    assert ours <= minisom_error(data, 30, sequential=False)
    assert ours == pytest.approx(error_of(result.graph["Kohonen"].weights, data), rel=1e-4)
    assert result.epochs[-1]["train"]["error_percent"] < 2  # ring and cloud lie apart


@pytest.mark.stress
@pytest.mark.parametrize("sequential", [True, False])
def test_a_long_training_is_as_good_as_minisom_s(sequential: bool) -> None:
    """On the mean of four seeds, for each ends in another optimum."""
    data, _ = points()
    ours = [
        veloflow.run("kohonen", device="numpy", seed=seed).best["train_quantization_error"]
        for seed in range(4)
    ]
    theirs = [minisom_error(data, 160, sequential=sequential, seed=seed) for seed in range(4)]
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.stress
@pytest.mark.parametrize("sequential", [True, False])
def test_digits_are_quantized_as_well_as_by_minisom(sequential: bool) -> None:
    """64 features, where the demo has two; a map of 10 x 10, 30 epochs, the mean of two seeds."""
    data, _ = digits()

    def build(wf: Workflow) -> None:
        loader = ArrayLoader(wf, data, minibatch_size=300)
        kohonen_workflow(wf, loader=loader, shape=(10, 10), max_epochs=30, radius_decay=0.6)

    ours = [
        veloflow.run(build, device="numpy", seed=seed).best["train_quantization_error"]
        for seed in range(2)
    ]
    theirs = [
        minisom_error(data, 30, sequential=sequential, seed=seed, side=10) for seed in range(2)
    ]
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.stress
def test_digits_are_quantized_as_well_as_by_minisom_at_its_best() -> None:
    """60 epochs sample by sample from the principal components, each with its best numbers found.

    See docs/results.md for what was tried.
    """
    data, _ = digits()

    def build(wf: Workflow) -> None:
        loader = ArrayLoader(wf, data, minibatch_size=300)
        kohonen_workflow(
            wf, loader=loader, shape=(10, 10), rule="online", rate=0.2, rate_decay=1 / 180,
            radius=0.105, radius_decay=1 / 180, max_epochs=60, plane_of=data,
        )  # fmt: skip

    ours = [
        error_of(veloflow.run(build, device="numpy", seed=seed).graph["Kohonen"].weights, data)
        for seed in range(2)
    ]
    theirs = [
        minisom_error(data, 60, sequential=True, seed=seed, side=10, sigma=0.5, rate=0.1)
        for seed in range(2)
    ]
    assert np.mean(ours) <= np.mean(theirs)


def test_the_rule_of_veles_learns_too() -> None:
    result = veloflow.run("kohonen", device="numpy", epochs=10, online=True)
    errors = [one["train"]["quantization_error"] for one in result.epochs]
    assert errors[-1] < 0.5 * errors[0]
    assert errors[-1] < 0.1
