"""Workflows that show solvers, losses and metrics: two epochs each; whole ones are stress tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

import veloflow
from tests.workflows.judged import most
from veloflow.units import digits

_DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"

needs_images = pytest.mark.skipif(
    not _DATA.is_dir(), reason="the images are not beside the checkout"
)


@needs_images
@pytest.mark.slow
@pytest.mark.parametrize(("name", "error"), [("mnist_relu", 20.0), ("mnist7", 40.0)])
def test_two_epochs_on_images(name, error):
    result = veloflow.run(name, data=_DATA, epochs=2, device="numpy")
    assert result.best["validation_error_percent"] <= error


@needs_images
@pytest.mark.stress
@pytest.mark.parametrize("name", ["mnist_relu", "mnist7"])
def test_whole_runs_on_images_are_as_good_as_torchs(name):
    result = veloflow.run(name, data=_DATA, device="numpy")
    assert result.best["validation_error_percent"] <= most(name)


@pytest.mark.slow
def test_approximator_learns_the_function():
    result = veloflow.run("approximator", epochs=2, device="numpy")
    first, last = (result.epochs[n]["validation"] for n in (0, -1))
    assert last["r2"] > 0.3 > first["r2"]
    assert last["mean_absolute_error"] < 0.7 * first["mean_absolute_error"]


@pytest.mark.slow
def test_tumours_are_told_apart():
    result = veloflow.run("breast_cancer", device="numpy")
    best = result.epochs[result.best["epoch"]]["validation"]
    assert best["auc"] >= 0.97
    assert best["f1"] >= 0.93


@pytest.mark.slow
def test_sweep_finds_what_scikit_learn_finds():
    given = {"penalties": [0.1, 10.0], "widths": [0.01, 0.1]}
    result = veloflow.run("sweep", device="numpy", folds=2, **given)
    table = result.more["sweep"]
    assert len(table) == 4
    assert np.all(np.diff([row["mean"] for row in table]) <= 0)
    data, labels = digits()
    for row in table:
        scores = []
        for fold in range(2):
            held = np.arange(len(data)) % 2 == fold
            judge = KernelRidge(alpha=row["penalty"], kernel="rbf", gamma=row["width"])
            judge.fit(data[~held], np.eye(10)[labels[~held]])
            scores.append(np.mean(judge.predict(data[held]).argmax(axis=1) == labels[held]))
        assert row["mean"] == pytest.approx(np.mean(scores), abs=1e-9)
