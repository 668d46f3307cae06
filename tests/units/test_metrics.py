"""Metrics against scikit-learn, whole and in parts; and their way into records, with slaves too."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from harness import trained
from sklearn import metrics as judge

import veloflow
from veloflow.errors import InputError, UnitError
from veloflow.units import (
    AUC,
    F1,
    R2,
    Accuracy,
    DigitsLoader,
    EvaluatorSoftmax,
    MeanAbsoluteError,
    TopKError,
    softmax,
    standard_workflow,
    tanh,
)
from veloflow.units.metrics import join_measured, measure_all, values_of

random = np.random.default_rng(8)
SCORES = random.dirichlet(np.ones(4), 200)
SCORES[::3] = SCORES[::3].round(1)  # with ties
LABELS = random.integers(0, 4, 200)
TARGETS = random.standard_normal((200, 3))
NEAR = TARGETS + 0.3 * random.standard_normal((200, 3))

CASES = {
    "accuracy": (
        Accuracy(), SCORES, LABELS,
        lambda y, t: judge.accuracy_score(t, y.argmax(1)),
    ),
    "top2": (
        TopKError(2), SCORES + 1e-9 * random.random(SCORES.shape), LABELS,
        lambda y, t: 100 - 100 * judge.top_k_accuracy_score(t, y, k=2),
    ),
    "f1": (
        F1(), SCORES, LABELS,
        lambda y, t: judge.f1_score(t, y.argmax(1), average="macro"),
    ),
    "auc": (
        AUC(), SCORES / SCORES.sum(1, keepdims=True), LABELS,
        lambda y, t: judge.roc_auc_score(t, y, multi_class="ovr"),
    ),
    "auc of two": (
        AUC(), np.stack([1 - SCORES[:, 0], SCORES[:, 0]], 1), LABELS % 2,
        lambda y, t: judge.roc_auc_score(t, y[:, 1]),
    ),
    "auc of labels": (
        AUC(), SCORES, (SCORES + random.random(SCORES.shape) > 0.7).astype(float),
        lambda y, t: judge.roc_auc_score(t, y),
    ),
    "mean absolute error": (
        MeanAbsoluteError(), NEAR, TARGETS,
        lambda y, t: judge.mean_absolute_error(t, y),
    ),
    "r2": (
        R2(), NEAR, TARGETS,
        lambda y, t: judge.r2_score(t, y),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_metric_is_scikit_learns(case):
    metric, outputs, targets, expected = case
    cuts = [0, 1, 30, 90, len(outputs)]
    parts = [measure_all([metric], outputs[a:b], targets[a:b]) for a, b in pairwise(cuts)]
    whole = measure_all([metric], outputs, targets)
    for measured in (whole, join_measured([metric], [{}, *parts])):
        found = values_of([metric], measured)[metric.name]
        assert found == pytest.approx(expected(outputs, targets), rel=1e-12)


def test_nothing_to_measure():
    assert values_of([AUC()], join_measured([AUC()], [{}, {}])) == {}
    one_class = measure_all([AUC()], SCORES, np.zeros(200, int))
    assert np.isnan(values_of([AUC()], one_class)["auc"])


def build(wf, *, epochs: int = 2, monitor: str = "", metrics: str = "auc"):
    """Train a small network on digits, with metrics."""
    several = [AUC(), TopKError(2), F1()] if metrics == "auc" else [Accuracy(), Accuracy()]
    standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=100),
        layers=[tanh(20), softmax(10)],
        learning_rate=0.05,
        max_epochs=epochs,
        metrics=several,
        monitor=monitor or None,
    )


def test_records_have_metrics():
    result = veloflow.run(build, device="numpy")
    entry = result.epochs[-1]["validation"]
    assert entry["auc"] > 0.9
    assert 0 < entry["top2_error_percent"] < entry["error_percent"]
    assert 0.5 < entry["f1"] < 1


def test_a_decision_may_go_by_a_metric():
    wf = trained(build, monitor="auc", epochs=3)
    decision = wf["DecisionGD"]
    best = max(decision.epochs, key=lambda record: record["validation"]["auc"])
    assert decision.best["epoch"] == best["epoch"]
    assert decision.best["validation_auc"] == best["validation"]["auc"]


def test_unknown_monitor_is_named():
    with pytest.raises((InputError, UnitError), match=r"monitor is 'acu'.*did you mean 'auc'"):
        trained(build, monitor="acu")


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(InputError, match="two metrics have one name: accuracy"):
        trained(build, metrics="twice")


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"class_weights": [1, -1]}]
)
def test_options_of_the_evaluator_without_sense(options):
    from harness import workflow_on

    with pytest.raises(InputError):
        EvaluatorSoftmax(workflow_on(), **options)


def test_k_is_at_least_one():
    with pytest.raises(InputError, match="k is 0"):
        TopKError(0)
