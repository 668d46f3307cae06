"""One training step of a network with tinygrad, timed: ``DEV=CL python tinygrad_step.py conv``.

It runs in a process of its own: tinygrad picks its device from the environment. Prints the median
of some steps in seconds.
"""

from __future__ import annotations

import statistics
import sys
import time

from tinygrad import Context, Tensor, TinyJit, nn

BATCH = 100


class Conv:
    """32 conv 5x5 - max 2 - 64 conv 5x5 - max 2 - 128 - 10, ReLU."""

    shape = (1, 28, 28)

    def __init__(self) -> None:
        self.one, self.two = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 5, padding=2)
        self.three, self.four = nn.Linear(7 * 7 * 64, 128), nn.Linear(128, 10)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.one(x).relu().max_pool2d(2)
        x = self.two(x).relu().max_pool2d(2).flatten(1)
        return self.four(self.three(x).relu())


class Mlp:
    """784-100-10, tanh."""

    shape = (784,)

    def __init__(self) -> None:
        self.one, self.two = nn.Linear(784, 100), nn.Linear(100, 10)

    def __call__(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).tanh())


def main() -> None:
    """Time the steps of the network that the first argument names."""
    net = {"conv": Conv, "mlp": Mlp}[sys.argv[1]]()
    optimizer = nn.optim.SGD(nn.state.get_parameters(net), lr=0.01, momentum=0.9)
    x = Tensor.rand(BATCH, *net.shape).clone().realize()
    labels = (Tensor.arange(BATCH) % 10).clone().realize()

    @TinyJit
    def step(x: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = net(x).sparse_categorical_crossentropy(labels).backward()
        return loss.realize(*optimizer.schedule_step())

    times = []
    with Context(TRAINING=1):
        for _ in range(12):
            began = time.perf_counter()
            step(x, labels).item()
            times.append(time.perf_counter() - began)
    print(statistics.median(times[4:]))


if __name__ == "__main__":
    main()
