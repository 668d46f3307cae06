"""The networks of the workflows, in torch, with the same initial distributions."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


def begin(net: nn.Module) -> None:
    """Give weights U(-m, m) with m = 1 / sqrt(inputs), and biases 0, as ``FanIn`` does."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            m = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -m, m)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


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


def line_network(size: int = 32):
    """Return 32C4-MP2-64C4-MP3-32N-4N for images of this height and width."""
    left = math.ceil((math.ceil((size - 3) / 2) - 3) / 3)
    return nn.Sequential(nn.Conv2d(1, 32, 4), Tanh(), nn.MaxPool2d(2, ceil_mode=True),
                         nn.Conv2d(32, 64, 4), Tanh(), nn.MaxPool2d(3, ceil_mode=True),
                         nn.Flatten(), nn.Linear(64 * left**2, 32), Tanh(),
                         nn.Linear(32, 4))  # fmt: skip


def perceptron():
    """Return 784-100-10 with LeCun's tanh."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), Tanh(), nn.Linear(100, 10))


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
        """Return the logits."""
        return self.last(self.rows(x[:, 0])[0][:, -1])


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
