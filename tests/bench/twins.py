"""How torch trains the twins of the workflows: each gives its best validation figure of a seed."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional
from twin_data import mnist, tumour_parts, wine_table
from twin_networks import begin

from veloflow.workflows.mnist7 import segments


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
            for one, true in zip(v.split(100), w.split(100), strict=True)
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
    """Train breast_cancer's network with AdamW on the same split; return the least loss of it."""
    torch.manual_seed(seed)
    x, y, v, w = tumour_parts(seed)
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


def wines(hidden: int, activation: nn.Module, gain: float, rate: float, most: int):
    """Return a function of a seed: in which epoch of training does no wine come out wrongly?

    Values begin as Veles's: uniform in +-sqrt(gain / (inputs + outputs)), at most 0.5, biases too;
    the gain of the last layer is 10.
    """

    def train(seed: int) -> float:
        torch.manual_seed(seed)
        x, y = wine_table()
        net = nn.Sequential(nn.Linear(13, hidden), activation, nn.Linear(hidden, 3))
        for layer, own in ((net[0], gain), (net[2], 10.0)):
            m = min(math.sqrt(own / sum(layer.weight.shape)), 0.5)
            for values in layer.parameters():
                nn.init.uniform_(values, -m, m)
        solver = torch.optim.SGD(net.parameters(), lr=rate)
        for epoch in range(1, most + 1):
            wrong = 0
            for batch in torch.randperm(len(x)).split(10):
                solver.zero_grad()
                found = net(x[batch])
                wrong += int((found.argmax(1) != y[batch]).sum())
                functional.cross_entropy(found, y[batch]).backward()
                solver.step()
            if not wrong:
                return epoch
        return math.inf

    return train
