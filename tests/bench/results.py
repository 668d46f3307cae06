"""Workflows beside torch with the same network and settings: mean and deviation over seeds.

    python tests/bench/results.py mnist_residual lines --seeds 5

prints a line for the table in docs/results.md for each. Torch makes its own initial values, of the
same distributions, and its own order of samples. Add a workflow to ``WORKFLOWS``: what its options
are, and a function that trains torch with a seed and gives its best validation figure.
"""

from __future__ import annotations

import argparse
import atexit
import math
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import veloflow
from veloflow.units import read_idx
from veloflow.workflows.approximator import samples
from veloflow.workflows.docstrings import texts, tokens
from veloflow.workflows.lines import line_images
from veloflow.workflows.mnist7 import segments

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


@dataclass(frozen=True)
class Workflow:
    """A workflow and torch's twin of it.

    Attributes:
        settings: what the table says of them.
        theirs: trains torch with a seed; its best validation figure.
        options: of the workflow.
        figure: the figure's name in a result's ``best``.
        images: how many of MNIST's first it trains and is measured on; None if on others.
    """

    settings: str
    theirs: Callable[[int], float]
    options: dict[str, object] = field(default_factory=dict)
    figure: str = "validation_error_percent"
    images: tuple[int, int] | None = None


@cache
def folder(train: int, test: int) -> Path:
    """Return a folder with the first images of MNIST, so many; it is there as long as we are."""
    part = Path(tempfile.mkdtemp(prefix="veloflow-results-"))
    atexit.register(shutil.rmtree, part)
    for name, count in (("train10k", train), ("t10k", test)):
        for kind in ("images-idx3", "labels-idx1"):
            values = read_idx(DATA / f"{name}-{kind}-ubyte.gz")[:count]
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (part / f"{name}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return part


@cache
def mnist(train: int = 10000, test: int = 10000):
    """Return images (n, 1, 28, 28), each from -1 to 1, and labels: for training, then the tests."""
    found = []
    for name, count in (("train10k", train), ("t10k", test)):
        images = read_idx(DATA / f"{name}-images-idx3-ubyte.gz")[:count]
        x = torch.tensor(images, dtype=torch.float32)
        low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
        labels = read_idx(DATA / f"{name}-labels-idx1-ubyte.gz")[:count].astype(np.int64)
        found += [((x - low) / (high - low) * 2 - 1)[:, None], torch.tensor(labels)]
    return tuple(found)


@cache
def lines():
    """Return training and validation images (n, 1, 32, 32) and their angles."""
    images, angles = line_images(1200, 32)
    x, y = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(angles)
    return x[300:], y[300:], x[:300], y[:300]


@cache
def documents():
    """Return the words of training and validation texts, as numbers, and whose they are."""
    words, labels = texts(1000)
    held = np.arange(len(words)) % 5 == 0
    rows, y = torch.tensor(tokens(words, held, 2000, 30)), torch.tensor(labels)
    return rows[~held], y[~held], rows[held], y[held]


def begin(net: nn.Module) -> None:
    """Give weights U(-m, m) with m = 1 / sqrt(inputs), and biases 0, as ``FanIn`` does."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            m = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -m, m)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def sgd(net: nn.Module, rate: float, moment: float, decay: float) -> torch.optim.Optimizer:
    """Return momentum with weight decay for weights alone, as ours is."""
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    others = [p for name, p in net.named_parameters() if not name.endswith("weight")]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others}]
    return torch.optim.SGD(groups, lr=rate, momentum=moment)


def adam(net: nn.Module, rate: float, moment: float, decay: float) -> torch.optim.Optimizer:
    """Return Adam with its usual numbers."""
    return torch.optim.Adam(net.parameters(), lr=rate)


def error_percent(net: nn.Module, v: torch.Tensor, w: torch.Tensor) -> float:
    """Return how many of these samples are told wrongly."""
    with torch.no_grad():
        wrong = sum(
            int((net(one).argmax(1) != true).sum())
            for one, true in zip(v.split(1000), w.split(1000), strict=True)
        )
    return 100 * wrong / len(v)


def classify(make, data, *, epochs, minibatch, rate, moment=0.0, decay=0.0, solver=sgd):
    """Return a function of a seed: train a classifier, return its least error in percent."""

    def train(seed: int) -> float:
        torch.manual_seed(seed)
        x, y, v, w = data()
        net = make()
        begin(net)
        steps = solver(net, rate, moment, decay)
        best = 100.0
        for _ in range(epochs):
            net.train()
            for batch in torch.randperm(len(x)).split(minibatch):
                steps.zero_grad()
                functional.cross_entropy(net(x[batch]), y[batch]).backward()
                steps.step()
            net.eval()
            best = min(best, error_percent(net, v, w))
        return best

    return train


def encode(make, data, *, epochs, minibatch, rate, moment, decay):
    """Return a function of a seed: train an auto-encoder, return its least RMSE.

    The loss is ours: half the sum of squared differences of a sample, a mean over samples; the
    figure is the mean over samples of the root of the mean squared difference.
    """

    def train(seed: int) -> float:
        torch.manual_seed(seed)
        x, _, v, _ = data()
        net = make()
        begin(net)
        solver = sgd(net, rate, moment, decay)
        best = math.inf
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(minibatch):
                solver.zero_grad()
                (0.5 * (net(x[batch]) - x[batch]).square().sum() / len(batch)).backward()
                solver.step()
            with torch.no_grad():
                errors = [
                    (net(one) - one).square().flatten(1).mean(1).sqrt() for one in v.split(1000)
                ]
            best = min(best, float(torch.cat(errors).mean()))
        return best

    return train


class Tanh(nn.Module):
    """LeCun's tanh."""

    def forward(self, x):
        """Return 1.7159 tanh(0.6666 x)."""
        return 1.7159 * torch.tanh(0.6666 * x)


def large():
    """Return 64C5-MP2-87C5-MP2-791N-10N."""
    pool = nn.MaxPool2d(2)
    return nn.Sequential(nn.Conv2d(1, 64, 5), pool, nn.Conv2d(64, 87, 5), pool, nn.Flatten(),
                         nn.Linear(87 * 16, 791), nn.Softplus(), nn.Linear(791, 10))  # fmt: skip


def line_network():
    """Return 32C4-MP2-64C4-MP3-32N-4N."""
    return nn.Sequential(nn.Conv2d(1, 32, 4), Tanh(), nn.MaxPool2d(2, ceil_mode=True),
                         nn.Conv2d(32, 64, 4), Tanh(), nn.MaxPool2d(3, ceil_mode=True),
                         nn.Flatten(), nn.Linear(64 * 16, 32), Tanh(),
                         nn.Linear(32, 4))  # fmt: skip


def perceptron():
    """Return 784-100-10 with LeCun's tanh."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), Tanh(), nn.Linear(100, 10))


def lenet(seed: int, epochs: int = 15) -> float:
    """Train the network of workflows/mnist_caffe.py; return its least validation error in percent.

    The rate of step t is 0.01 (1 + 1e-4 t)^-0.75, and that of biases is twice as large.
    """
    torch.manual_seed(seed)
    x, y, v, w = mnist()
    pool = nn.MaxPool2d(2)
    net = nn.Sequential(nn.Conv2d(1, 20, 5), pool, nn.Conv2d(20, 50, 5), pool, nn.Flatten(),
                        nn.Linear(800, 500), nn.Softplus(), nn.Linear(500, 10))  # fmt: skip
    begin(net)
    solver = sgd(net, 0.01, 0.9, 5e-4)
    best, step = 100.0, 0
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            for group, factor in zip(solver.param_groups, (1, 2), strict=True):
                group["lr"] = factor * 0.01 * (1 + 1e-4 * step) ** -0.75
            solver.zero_grad()
            functional.cross_entropy(net(x[batch]), y[batch]).backward()
            solver.step()
            step += 1
        best = min(best, error_percent(net, v, w))
    return best


class Block(nn.Module):
    """relu(x + f(x)), as in workflows/mnist_residual.py."""

    def __init__(self, before: int, kernels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, kernels, 3, stride, 1, bias=False), nn.BatchNorm2d(kernels),
            nn.ReLU(), nn.Conv2d(kernels, kernels, 3, 1, 1, bias=False), nn.BatchNorm2d(kernels),
        )  # fmt: skip
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(
            nn.Conv2d(before, kernels, 1, stride, bias=False), nn.BatchNorm2d(kernels)
        )  # fmt: skip

    def forward(self, x):
        """Return the block's output."""
        return functional.relu(self.body(x) + self.shortcut(x))


def residual_network(kernels: int = 8):
    """Return the network of workflows/mnist_residual.py."""
    return nn.Sequential(
        nn.Conv2d(1, kernels, 3, padding=1, bias=False), nn.BatchNorm2d(kernels), nn.ReLU(),
        Block(kernels, kernels), Block(kernels, 2 * kernels, 2), Block(2 * kernels, 4 * kernels, 2),
        nn.AvgPool2d(7), nn.Flatten(), nn.Linear(4 * kernels, 10),
    )  # fmt: skip


class Tied(nn.Module):
    """784-100 tanh-784 with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(784, 100)
        self.bias = nn.Parameter(torch.zeros(784))

    def forward(self, x):
        """Return the images as they come back."""
        hidden = Tanh()(self.encoder(x.flatten(1)))
        return (hidden @ self.encoder.weight + self.bias).reshape(x.shape)


class ConvolutionalAutoencoder(nn.Module):
    """5C5, one value of each 3 x 3 window kept by chance in proportion to |x|, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, 5, 5, bias=False)

    def forward(self, x):
        """Return the images as they come back."""
        hidden = self.encoder(x)
        kept = hidden * self.kept(hidden.detach())
        return functional.conv_transpose2d(kept, self.encoder.weight)

    @staticmethod
    def kept(hidden):
        """Return 1 where a value wins in a window that it is in, else 0."""
        batch, channels, height, width = hidden.shape
        rows = -(-(height - 3) // 2) + 1
        size = (rows - 1) * 2 + 3
        wide = functional.pad(hidden.abs(), (0, size - width, 0, size - height))
        windows = functional.unfold(wide, 3, stride=2).reshape(batch, channels, 9, -1)
        weights = windows.transpose(2, 3).reshape(-1, 9)
        weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, torch.ones(1))
        winners = functional.one_hot(torch.multinomial(weights, 1)[:, 0], 9).float()
        back = (
            winners.reshape(batch, channels, -1, 9).transpose(2, 3).reshape(batch, channels * 9, -1)
        )
        counts = functional.fold(back, (size, size), 3, stride=2)
        return (counts[:, :, :height, :width] > 0).float()


class Rows(nn.Module):
    """An LSTM over the rows of images; the last state tells the class."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.last = nn.LSTM(28, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x):
        """Return the logits; pixels go from 0 to 1 here."""
        return self.last(self.rows((x[:, 0] + 1) / 2)[0][:, -1])


class Reader(nn.Module):
    """The network of workflows/docstrings.py."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(2000, 32, padding_idx=0)
        with torch.no_grad():
            self.vectors.weight[1:].normal_(std=1 / 3)
        self.words, self.last = nn.LSTM(32, 64, batch_first=True), nn.Linear(64, 4)

    def forward(self, x):
        """Return the logits."""
        return self.last(self.words(self.vectors(x))[0][:, -1])


def contrast(seed: int) -> float:
    """Train a Boltzmann machine by CD-1 as workflows/mnist_rbm.py does; return its least RMSE."""
    torch.manual_seed(seed)
    x, v = (one.flatten(1) / 2 + 0.5 for one in (mnist()[0], mnist()[2]))
    w, b, a = torch.randn(500, 784) * 0.01, torch.zeros(500), torch.zeros(784)
    speeds = [torch.zeros_like(one) for one in (w, b, a)]
    best = math.inf

    def chain(v0):
        h0 = torch.sigmoid(v0 @ w.T + b)
        vk = torch.sigmoid(torch.bernoulli(h0) @ w + a)
        return h0, vk, torch.sigmoid(vk @ w.T + b)

    for _ in range(15):
        for batch in torch.randperm(len(x)).split(100):
            v0 = x[batch]
            h0, vk, hk = chain(v0)
            steps = (h0.T @ v0 - hk.T @ vk - 2e-4 * len(v0) * w, (h0 - hk).sum(0), (v0 - vk).sum(0))
            for one, speed, step in zip((w, b, a), speeds, steps, strict=True):
                speed.mul_(0.5).add_(step, alpha=0.1 / len(v0))
                one.add_(speed)
        best = min(best, float((chain(v)[1] - v).square().mean(1).sqrt().mean()))
    return best


@cache
def digit_segments():
    """Return MNIST's images (n, 784) and the segments of each digit, for training and testing."""
    x, y, v, w = mnist()
    lit = torch.tensor(segments(), dtype=torch.float32)
    return x.flatten(1), lit[y], v.flatten(1), lit[w]


@cache
def nine_numbers():
    """Return the approximator's samples: 4,000 to learn from and 1,000 others."""
    x, y = (torch.tensor(one, dtype=torch.float32) for one in samples(5000))
    return x[1000:], y[1000:], x[:1000], y[:1000]


def approximate(make, data, *, epochs, minibatch, rate, moment, decay):
    """Return a function of a seed: train a network to targets, return its least figure.

    The figure is the error in percent of the nearest digit for segments, else the mean RMSE.
    """

    def figure(y, t):
        if y.shape[1] != 7:
            return float((y - t).square().mean(1).sqrt().mean())
        lit = torch.tensor(segments(), dtype=torch.float32)
        return (
            100
            * float((torch.cdist(y, lit).argmin(1) != torch.cdist(t, lit).argmin(1)).sum())
            / len(y)
        )

    def train(seed: int) -> float:
        torch.manual_seed(seed)
        x, t, v, u = data()
        net = make()
        begin(net)
        solver = sgd(net, rate, moment, decay)
        best = math.inf
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(minibatch):
                solver.zero_grad()
                ((net(x[batch]) - t[batch]).square().sum() / 2 / len(batch)).backward()
                solver.step()
            with torch.no_grad():
                best = min(best, figure(net(v), u))
        return best

    return train


def softplus_with_orthogonal_rows(seed: int) -> float:
    """Train mnist_relu's network, whose gradient has a term for orthogonality, as ours has."""
    torch.manual_seed(seed)
    x, y, v, w = mnist()
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.Softplus(), nn.Linear(100, 10))
    begin(net)
    solver = sgd(net, 0.03, 0.0, 0.0)
    best = 100.0
    for _ in range(10):
        for batch in torch.randperm(len(x)).split(60):
            solver.zero_grad()
            functional.cross_entropy(net(x[batch]), y[batch]).backward()
            with torch.no_grad():
                for layer in (net[1], net[3]):
                    rows = layer.weight
                    rows.grad += 0.001 / len(rows) * (rows.sum(0) - rows)
            solver.step()
        with torch.no_grad():
            best = min(best, 100 * float((net(v).argmax(1) != w).float().mean()))
    return best


def tumours(seed: int) -> float:
    """Train breast_cancer's network with AdamW; return the least validation loss."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    torch.manual_seed(seed)
    data, labels = load_breast_cancer(return_X_y=True)
    parts = train_test_split(data, labels, test_size=0.2, stratify=labels, random_state=seed)
    low, high = parts[0].min(0), parts[0].max(0)
    x, v = (torch.tensor((one - low) / (high - low) * 2 - 1).float() for one in parts[:2])
    y, w = (torch.tensor(one) for one in parts[2:])
    net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    begin(net)
    nn.init.kaiming_normal_(net[0].weight, nonlinearity="relu")
    biases = [layer.bias for layer in (net[0], net[2])]
    weights = [{"params": [net[0].weight, net[2].weight], "weight_decay": 0.01},
               {"params": biases, "weight_decay": 0.0}]  # fmt: skip
    solver = torch.optim.AdamW(weights, lr=0.003)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(solver, patience=4, threshold=0)
    best = math.inf
    for _ in range(40):
        for batch in torch.randperm(len(x)).split(32):
            solver.zero_grad()
            functional.cross_entropy(net(x[batch]), y[batch]).backward()
            solver.step()
        with torch.no_grad():
            loss = float(functional.cross_entropy(net(v), w))
        plateau.step(loss)
        best = min(best, loss)
    return best


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
        "40 epochs, minibatch 32, AdamW 0.003, decay 0.01, a tenth on plateaus; cross-entropy",
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
        "1,000 images (500 for validation), 2 epochs, minibatch 6, SGD 0.005, momentum 0.5, "
        "decay 5e-4",
        classify(large, partial(mnist, 1000, 500), epochs=2, minibatch=6, rate=0.005, moment=0.5,
                 decay=5e-4),
        {"epochs": 2},
        images=(1000, 500),
    ),
    "mnist_residual": Workflow(
        "1,000 images (500), 4 epochs, minibatch 20, SGD 0.05, momentum 0.9, decay 5e-4",
        classify(residual_network, partial(mnist, 1000, 500), epochs=4, minibatch=20, rate=0.05,
                 moment=0.9, decay=5e-4),
        {"epochs": 4, "minibatch": 20},
        images=(1000, 500),
    ),
    "mnist_tied": Workflow(
        "10,000 images (10,000), 10 epochs, minibatch 100, SGD 0.001, momentum 0.9, decay 5e-5",
        encode(Tied, partial(mnist, 10000, 10000), epochs=10, minibatch=100, rate=0.001, moment=0.9,
               decay=5e-5),
        figure="validation_loss",
        images=(10000, 10000),
    ),
    "mnist_autoencoder": Workflow(
        "1,000 images (500), 3 epochs, minibatch 20, SGD 1e-4, momentum 0.9, decay 5e-5",
        encode(ConvolutionalAutoencoder, partial(mnist, 1000, 500), epochs=3, minibatch=20,
               rate=1e-4, moment=0.9, decay=5e-5),
        {"epochs": 3, "minibatch": 20},
        "validation_loss",
        (1000, 500),
    ),
    "lines": Workflow(
        "900 images of 32 x 32 (300), 8 epochs, minibatch 12, SGD 0.01, decay 5e-5",
        classify(line_network, lines, epochs=8, minibatch=12, rate=0.01, moment=0.0, decay=5e-5),
    ),
}  # fmt: skip


def spread(values: list[float], digits: int) -> str:
    """Return mean and deviation."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {deviation:.{digits}f}"


def measure(name: str, seeds: int, device: str) -> str:
    """Run a workflow and its twin with each seed; return the table's line."""
    one = WORKFLOWS[name]
    began = time.perf_counter()
    ours = []
    options = {**one.options, **({} if one.images is None else {"data": folder(*one.images)})}
    for seed in range(seeds):
        result = veloflow.run(name, device=device, seed=seed, **options)
        ours.append(float(result.best[one.figure]))
    middle = time.perf_counter()
    theirs = [one.theirs(seed) for seed in range(seeds)]
    end = time.perf_counter()
    is_error = one.figure.endswith("percent")
    texts = [spread(values, 2 if is_error else 4) + (" %" if is_error else "")
             for values in (ours, theirs)]  # fmt: skip
    print(
        f"# {name}: ours {ours} in {middle - began:.0f} s, torch {theirs} in {end - middle:.0f} s"
    )
    return f"| `{name}` | {one.settings} | {texts[0]} | {texts[1]} |"


def main() -> None:
    """Measure the workflows that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflows", nargs="+", choices=sorted(WORKFLOWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="numpy")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.workflows:
        print(measure(name, given.seeds, given.device), flush=True)


if __name__ == "__main__":
    main()
