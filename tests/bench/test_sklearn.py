"""The estimator for scikit-learn beside scikit-learn's own network: time to fit the digits."""

from __future__ import annotations

import statistics
import time
import warnings

import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from veloflow.sklearn import VeloflowClassifier


@pytest.mark.bench
def test_time_to_fit_the_digits():
    x, y = load_digits(return_X_y=True)
    x = x / 16
    held, train = slice(0, None, 5), [n for n in range(len(x)) if n % 5]
    same = {"hidden_layer_sizes": (100,), "activation": "relu", "solver": "adam", "batch_size": 50}
    makers = {
        "veloflow": lambda seed: VeloflowClassifier(
            **same, max_epochs=30, normalization="none", random_state=seed
        ),
        "scikit-learn": lambda seed: MLPClassifier(
            **same, max_iter=30, alpha=0.0, n_iter_no_change=30, random_state=seed
        ),
    }
    seconds = {name: [] for name in makers}
    scores = {name: [] for name in makers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 30 epochs are what is compared
        for seed in range(5):
            for name, make in makers.items():
                start = time.perf_counter()
                model = make(seed).fit(x[train], y[train])
                seconds[name].append(time.perf_counter() - start)
                scores[name].append(model.score(x[held], y[held]))
    ratio = statistics.median(seconds["scikit-learn"]) / statistics.median(seconds["veloflow"])
    for name in makers:
        error = 100 * (1 - statistics.mean(scores[name]))
        print(f"{name}: {statistics.median(seconds[name]):.3f} s, error {error:.2f} %")
    print(f"scikit-learn takes {ratio:.2f} times as long")
    assert abs(statistics.mean(scores["veloflow"]) - statistics.mean(scores["scikit-learn"])) < 0.02
