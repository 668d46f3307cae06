"""A function of nine numbers to nine numbers, learned from samples of it that are generated."""

import numpy as np

from veloflow import Workflow
from veloflow.units import (
    R2,
    ArrayLoader,
    FanIn,
    MeanAbsoluteError,
    Metric,
    linear,
    standard_workflow,
    tanh,
)


def samples(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points in [-1, 1]^9 and the values there, both (count, 9).

    y = tanh(A x + sin(pi B x)); A and B are always the same.
    """
    fixed = np.random.default_rng(1234)
    a, b = fixed.standard_normal((2, 9, 9)) / 3
    x = np.random.default_rng(seed).uniform(-1, 1, (count, 9))
    return x, np.tanh(x @ a.T + np.sin(np.pi * (x @ b.T)))


def build(
    wf: Workflow,
    *,
    hidden: int = 810,
    rate: float = 0.01,
    moment: float = 0.9,
    epochs: int = 20,
    count: int = 5000,
) -> None:
    """Make Veles's 9-hidden-9 network, without an activation at its end.

    Args:
        hidden: neurons in the hidden layer.
        rate: the learning rate.
        moment: the momentum.
        epochs: passes over the samples.
        count: samples, of which a fifth are for validation.
    """
    x, y = samples(count)
    metrics: list[Metric] = [MeanAbsoluteError(), R2()]
    filling = FanIn()
    standard_workflow(
        wf,
        loader=ArrayLoader(wf, x, targets=y, validation_ratio=0.2, minibatch_size=100),
        layers=[tanh(hidden, weights_filling=filling), linear(9, weights_filling=filling)],
        loss="mse",
        learning_rate=rate,
        gradient_moment=moment,
        metrics=metrics,
        max_epochs=epochs,
    )
