"""How fast a device is: a product of matrices, and one step of training a small network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.expressions import element, index, scalar, tanh

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["SmallStep", "gemm_gflops", "least_seconds", "seconds_of_call", "small_step_seconds"]


def seconds_of_call(call: Callable[[], object], device: Device, seconds: float) -> float:
    """Return the least time of a call that was seen within about ``seconds``.

    The least, because whatever else the machine does can only add to it. Calls are timed in
    groups of at least a millisecond, each ended by a wait for the device.
    """
    return least_seconds(call, device.synchronize, seconds)


def least_seconds(call: Callable[[], object], wait: Callable[[], object], seconds: float) -> float:
    """Return the least time of a call within about ``seconds``; ``wait`` ends what it began."""
    call()
    wait()
    repeats, best = 1, float("inf")
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        wait()
        now = time.perf_counter()
        best = min(best, (now - start) / repeats)
        if now - start < 1e-3:
            repeats *= 2
        if now >= end:
            return best


def gemm_gflops(device: Device, size: int = 512, seconds: float = 0.1) -> float:
    """Return the speed of a float32 product of two square matrices, in GFLOP/s."""
    random = np.random.default_rng(0)
    a, b = (device.asarray(random.random((size, size), np.float32)) for _ in range(2))
    launch = device.gemm(a, b, device.zeros((size, size)))
    return 2e-9 * size**3 / seconds_of_call(launch, device, seconds)


def small_step_seconds(device: Device, seconds: float = 0.1) -> float:
    """Return the time of a :class:`SmallStep`."""
    return seconds_of_call(SmallStep(device), device, seconds)


class SmallStep:
    """One step of training 784-100-10 with tanh, softmax and momentum on a minibatch of 100.

    Call it to launch the step. ``parameters`` (float32, flat) are what it trains: weights and
    biases of both layers, each from a multiple of 128 elements on.
    """

    sizes = (784, 100, 10)
    batch = 100

    def __init__(self, device: Device) -> None:
        self.device = device
        n_input, n_hidden, n_output = self.sizes
        self._shapes = [(n_input, n_hidden), (n_hidden,), (n_hidden, n_output), (n_output,)]
        self._starts = self._offsets()
        random = np.random.default_rng(0)
        values = 0.1 * (random.random(self._starts[-1], np.float32) - 0.5)
        self.parameters = device.asarray(values, np.float32)
        self._gradients = device.zeros((self._starts[-1],))
        self._velocity = device.zeros((self._starts[-1],))
        self._input = device.asarray(random.random((self.batch, n_input), np.float32))
        self._labels = device.asarray(np.arange(self.batch) % n_output, np.int32)
        self._launches = [*self._forward_and_back(), self._update()]

    def __call__(self) -> None:
        *launches, update = self._launches
        for launch in launches:
            launch()
        update(rate=0.1, moment=0.9)

    def _offsets(self) -> list[int]:
        starts = [0]
        for shape in self._shapes:
            starts.append(starts[-1] + -(-int(np.prod(shape)) // 128) * 128)
        return starts

    def _views(self, flat: Array) -> list[Array]:
        return [
            self.device.view(flat, start, shape)
            for start, shape in zip(self._starts, self._shapes, strict=False)
        ]

    def _forward_and_back(self) -> list[Launch]:
        device, x = self.device, element("x")
        w1, b1, w2, b2 = self._views(self.parameters)
        dw1, db1, dw2, db2 = self._views(self._gradients)
        hidden, output = (device.zeros((self.batch, size)) for size in self.sizes[1:])
        back1, back2 = (device.zeros((self.batch, size)) for size in self.sizes[1:])
        winners = device.zeros((self.batch,), np.int32)
        wrong = (element("y") - index(1).equals(element("label"))) * (1 / self.batch)
        slope = 1.14381894 - 0.388484177 * element("h") * element("h")
        arrays = {"y": output, "label": self._labels, "back": back2}
        return [
            device.gemm(self._input, w1, hidden, bias=b1, activation=1.7159 * tanh(0.6666 * x)),
            device.gemm(hidden, w2, output, bias=b2),
            device.softmax(output, output, winners),
            device.elementwise({"back": wrong}, arrays),
            device.gemm(hidden, back2, dw2, transpose_a=True),
            device.reduce("sum", x, {"x": back2}, db2, axis=0),
            device.gemm(back2, w2, back1, transpose_b=True),
            device.elementwise({"x": x * slope}, {"x": back1, "h": hidden}),
            device.gemm(self._input, back1, dw1, transpose_a=True),
            device.reduce("sum", x, {"x": back1}, db1, axis=0),
        ]

    def _update(self) -> Launch:
        velocity = scalar("moment") * element("v") - scalar("rate") * element("g")
        return self.device.elementwise(
            {"v": velocity, "w": element("w") + velocity},
            {"w": self.parameters, "v": self._velocity, "g": self._gradients},
        )
