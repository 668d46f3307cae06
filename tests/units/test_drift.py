"""Drift between sets of samples, against SciPy's own tests; and classes served equally often."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, workflow_on
from scipy.stats import chi2, chi2_contingency, ks_2samp

from veloflow.core import Events, Message
from veloflow.errors import InputError
from veloflow.units import ArrayLoader
from veloflow.units.drift import _chi_squared_tail, feature_drift, label_drift


def test_labels_are_compared_as_scipy_does():
    first, second = {"a": 50, "b": 30, "c": 20}, {"a": 10, "b": 25, "c": 15, "d": 0}
    found = label_drift(first, second)
    expected = chi2_contingency([[50, 30, 20], [10, 25, 15]], correction=False)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.what == "label 'a' has 50.0 % and 20.0 %"
    assert label_drift({"a": 5}, {"a": 9}).p == 1


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 10, 99, 1000])
def test_the_tail_of_chi_squared_is_that_of_scipy(freedom):
    for statistic in (0.0, 1e-3, 0.5, freedom / 2, freedom, 2.5 * freedom, 700.0):
        expected = chi2.sf(statistic, freedom)
        assert _chi_squared_tail(freedom, statistic) == pytest.approx(expected, rel=1e-9)


def test_features_are_compared_as_scipy_does():
    random = np.random.default_rng(3)
    first, second = random.integers(0, 9, (300, 4)).astype(float), random.normal(4, 2, (200, 4))
    first[:, :3] = second[:100].repeat(3, axis=0)[:, :3]
    found = feature_drift(first, second)
    expected = ks_2samp(first[:, 3], second[:, 3], method="asymp")
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, rel=0.5)  # ours is corrected for small sets
    assert found.what.startswith("feature 3 has means")
    assert found.tests == 4


def _messages(**options):
    wf, said = workflow_on(), []
    wf.find_service(Events).subscribe(Message, lambda event: said.append(event.text))
    with ready(ArrayLoader(wf, **options)):
        return said


def test_it_is_warned_of_with_figures_and_only_then():
    random = np.random.default_rng(0)
    data, labels = random.normal(size=(400, 3)), random.integers(0, 2, 400)
    held = random.normal(size=(100, 3)), random.integers(0, 2, 100)
    assert _messages(data=data, labels=labels, validation=held, drift="all") == []
    moved = held[0] + [0, 2, 0], np.zeros(100, int)
    assert _messages(data=data, labels=labels, validation=moved, drift="none") == []
    (label,) = _messages(data=data, labels=labels, validation=moved)
    assert "train and validation samples differ: label" in label
    assert "chi-squared" in label
    _, feature = _messages(data=data, labels=labels, validation=moved, drift="all")
    assert "feature 1 has means" in feature
    with pytest.raises(InputError, match="drift is 'some'"):
        _messages(data=data, labels=labels, drift="some")


def test_classes_come_equally_often_when_asked():
    labels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    loader = ArrayLoader(
        workflow_on(), np.arange(100.0).reshape(-1, 1), labels, balanced=True, minibatch_size=100
    )
    with ready(loader):
        orders = []
        for _ in range(2):
            loader.run()
            assert np.bincount(loader.minibatch_labels.read()).tolist() == [34, 33, 33]
            orders.append(loader.minibatch_indices.tolist())
        assert orders[0] != orders[1]
        counts = np.bincount(orders[0], minlength=100)
        assert counts[:70].max() == 1
        assert sorted(set(counts[90:])) == [3, 4]
        assert loader.label_counts == {"train": {0: 70, 1: 20, 2: 10}}
