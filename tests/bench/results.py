"""Workflows beside torch with the same network and settings: mean and deviation over seeds.

    python tests/bench/results.py mnist_residual lines --seeds 5

prints a line for the table in docs/results.md for each. Torch makes its own initial values, of the
same distributions, and its own order of samples. Add a workflow to ``WORKFLOWS``: what its options
are, and a function that trains torch with a seed and gives its best validation figure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import mean, stdev

import torch
from torch import nn
from twin_data import DATA, digit_segments, documents, folder, lines, mnist, nine_numbers
from twin_networks import (
    ConvolutionalAutoencoder,
    Reader,
    Rows,
    Tanh,
    Tied,
    large,
    line_network,
    perceptron,
    residual_network,
)
from twins import (
    adam,
    approximate,
    classify,
    contrast,
    encode,
    lenet,
    softplus_with_orthogonal_rows,
    tumours,
    wines,
)

import veloflow


@dataclass(frozen=True)
class Workflow:
    """A workflow and torch's twin of it.

    Attributes:
        settings: what the table says of them.
        theirs: trains torch with a seed; its best validation figure.
        options: of the workflow.
        figure: the figure's name in a result's ``best``.
        images: how many of MNIST's first it trains and is measured on; None if on others.
        workflow: its name, where that is not the row's.
    """

    settings: str
    theirs: Callable[[int], float]
    options: dict[str, object] = field(default_factory=dict)
    figure: str = "validation_error_percent"
    images: tuple[int, int] | None = None
    workflow: str | None = None


WORKFLOWS = {
    "mnist_mlp": Workflow(
        "30 epochs, minibatch 60, SGD 0.03, momentum 0.9, decay 5e-4",
        classify(perceptron, mnist, epochs=30, minibatch=60, rate=0.03, moment=0.9, decay=5e-4),
        {"data": DATA, "epochs": 30},
    ),
    "mnist_caffe": Workflow(
        "15 epochs, minibatch 64, SGD 0.01 (biases 0.02) by inv, momentum 0.9, decay 5e-4",
        lenet,
        {"data": DATA},
    ),
    "mnist_relu": Workflow(
        "10 epochs, minibatch 60, SGD 0.03, orthogonality 0.001",
        softplus_with_orthogonal_rows,
        {"data": DATA},
    ),
    "mnist7": Workflow(
        "10 epochs, minibatch 60, SGD 0.01, decay 5e-5; error of the nearest digit",
        approximate(
            lambda: nn.Sequential(nn.Linear(784, 100), Tanh(), nn.Linear(100, 100), Tanh(),
                                  nn.Linear(100, 7), Tanh()),
            digit_segments, epochs=10, minibatch=60, rate=0.01, moment=0.0, decay=5e-5,
        ),
        {"data": DATA},
    ),
    "approximator": Workflow(
        "5,000 samples, 20 epochs, minibatch 100, SGD 0.01, momentum 0.9, decay 5e-5",
        approximate(
            lambda: nn.Sequential(nn.Linear(9, 810), Tanh(), nn.Linear(810, 9)),
            nine_numbers, epochs=20, minibatch=100, rate=0.01, moment=0.9, decay=5e-5,
        ),
        figure="validation_loss",
    ),
    "breast_cancer": Workflow(
        "40 epochs, minibatch 32, AdamW 0.003, decay 0.01, a tenth on plateaus; cross-entropy; "
        "a split of its own for each seed, the same for both",
        tumours,
        figure="validation_loss",
    ),
    "mnist_lstm": Workflow(
        "15 epochs, minibatch 100, Adam 0.002",
        classify(Rows, mnist, epochs=15, minibatch=100, rate=0.002, solver=adam),
        {"data": DATA},
    ),
    "mnist_rbm": Workflow(
        "500 hidden, CD-1, 15 epochs, minibatch 100, SGD 0.1, momentum 0.5, decay 2e-4",
        contrast,
        {"data": DATA},
        "validation_loss",
    ),
    "docstrings": Workflow(
        "8 epochs, minibatch 50, Adam 0.003",
        classify(Reader, documents, epochs=8, minibatch=50, rate=0.003, solver=adam),
    ),
    "mnist_conv": Workflow(
        "3 epochs, minibatch 6, SGD 0.005, momentum 0.5, decay 5e-4",
        classify(large, mnist, epochs=3, minibatch=6, rate=0.005, moment=0.5, decay=5e-4),
        {"data": DATA, "epochs": 3},
    ),
    "mnist_residual": Workflow(
        "5 epochs, minibatch 64, SGD 0.05, momentum 0.9, decay 5e-4",
        classify(residual_network, mnist, epochs=5, minibatch=64, rate=0.05, moment=0.9,
                 decay=5e-4),
        {"data": DATA},
    ),
    "mnist_tied": Workflow(
        "10 epochs, minibatch 100, SGD 0.001, momentum 0.9, decay 5e-5",
        encode(Tied, mnist, epochs=10, minibatch=100, rate=0.001, moment=0.9, decay=5e-5),
        {"data": DATA},
        "validation_loss",
    ),
    "mnist_autoencoder": Workflow(
        "6 epochs, minibatch 100, SGD 1e-4, momentum 0.9, decay 5e-5",
        encode(ConvolutionalAutoencoder, mnist, epochs=6, minibatch=100, rate=1e-4, moment=0.9,
               decay=5e-5),
        {"data": DATA},
        "validation_loss",
    ),
    "mnist_autoencoder_part": Workflow(
        "1,000 images (500), 3 epochs, minibatch 20, SGD 1e-4, momentum 0.9, decay 5e-5",
        encode(ConvolutionalAutoencoder, partial(mnist, 1000, 500), epochs=3, minibatch=20,
               rate=1e-4, moment=0.9, decay=5e-5),
        {"epochs": 3, "minibatch": 20},
        "validation_loss",
        (1000, 500),
        "mnist_autoencoder",
    ),
    "wine": Workflow(
        "minibatch 10, SGD 0.3; epochs until no wine comes out wrongly",
        wines(8, Tanh(), 9.0, 0.3, 100),
        figure="epoch",
    ),
    "wine_relu": Workflow(
        "minibatch 10, SGD 0.03; epochs until no wine comes out wrongly",
        wines(10, nn.Softplus(), 10.0, 0.03, 500),
        figure="epoch",
    ),
    "lines": Workflow(
        "900 images of 32 x 32 (300), 8 epochs, minibatch 12, SGD 0.01, decay 5e-5",
        classify(line_network, lines, epochs=8, minibatch=12, rate=0.01, moment=0.0, decay=5e-5),
    ),
    "lines_256": Workflow(
        "360 images of 256 x 256 (120), 6 epochs, minibatch 12, SGD 0.01, decay 5e-5",
        classify(partial(line_network, 256), partial(lines, 256, 480), epochs=6, minibatch=12,
                 rate=0.01, moment=0.0, decay=5e-5),
        {"size": 256, "samples": 480, "epochs": 6},
        workflow="lines",
    ),
}  # fmt: skip


def spread(values: list[float], digits: int) -> str:
    """Return mean and deviation."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {deviation:.{digits}f}"


def measure(name: str, seeds: range, device: str) -> str:
    """Run a workflow and its twin with each seed; return the table's line."""
    one = WORKFLOWS[name]
    began = time.perf_counter()
    ours = []
    options = {**one.options, **({} if one.images is None else {"data": folder(*one.images)})}
    for seed in seeds:
        result = veloflow.run(one.workflow or name, device=device, seed=seed, **options)
        ours.append(float(result.best[one.figure]))
    middle = time.perf_counter()
    theirs = [one.theirs(seed) for seed in seeds]
    end = time.perf_counter()
    is_error = one.figure.endswith("percent")
    digits = 1 if one.figure == "epoch" else 2 if is_error else 4
    texts = [spread(values, digits) + " %" * is_error for values in (ours, theirs)]
    print(
        f"# {name}: ours {ours} in {middle - began:.0f} s, torch {theirs} in {end - middle:.0f} s"
    )
    return f"| `{name}` | {one.settings} | {texts[0]} | {texts[1]} |"


def main() -> None:
    """Measure the workflows that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflows", nargs="+", choices=sorted(WORKFLOWS))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="to go on with earlier ones")
    parser.add_argument("--device", default="numpy")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    for name in given.workflows:
        print(measure(name, seeds, given.device), flush=True)


if __name__ == "__main__":
    main()
