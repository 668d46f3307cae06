"""Wine: Veles's own published numbers, error by error; and that any seed gets there."""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pytest

import veloflow
from veloflow import Workflow
from veloflow.units import Filling
from veloflow.workflows import wine, wine_relu

_SEED = Path(__file__).parent.parent / "data" / "veles-seed.bin"


class _Stream(Filling):
    """Veles's one random stream: the first order, W1, b1, W2, b2, then an order an epoch."""

    def __init__(self, magnitude: float) -> None:
        self._magnitude = magnitude
        self._state = np.random.RandomState(np.fromfile(_SEED, "<u4"))

    def fill(self, random, shape, default):
        return (self._state.rand(*shape) * 2 - 1) * self._magnitude

    def shuffled(self, order, number):
        order = order.copy()
        self._state.shuffle(order)
        return order


def _errors(
    module, layers: tuple[str, str], bias_rate: float, magnitude: float = 0.05, device=None
) -> list[int]:
    stream = _Stream(magnitude)

    def change(wf: Workflow) -> None:
        wf["WineLoader"].shuffled = stream.shuffled
        for name in layers:
            wf[name].weights_filling = wf[name].bias_filling = stream
        for unit in wf:
            if unit.group == "trainer":
                unit.bias_numbers.rate = bias_rate

    wf = harness.trained(module.build, device=device, dtype="float64", change=change)
    return [one["train"]["n_errors"] for one in wf["DecisionGD"].epochs]


_WINE = ("All2AllTanh", "All2AllSoftmax")
_RELU = ("All2AllSoftplus", "All2AllSoftmax")


def test_wine_gives_the_published_errors() -> None:
    published = [70, 15, 5, 3, 4, 1, 1, 1, 1, 2, 1, 0]
    assert _errors(wine, _WINE, bias_rate=0.01) == published


def test_wine_with_the_rate_of_the_other_backend() -> None:
    published = [91, 18, 6, 2, 3, 2, 1, 1, 1, 2, 1, 0]
    assert _errors(wine, _WINE, bias_rate=0.3) == published


def test_wine_relu_gives_the_published_errors() -> None:
    errors = _errors(wine_relu, _RELU, bias_rate=0.03, magnitude=0.5)
    assert errors[:10] == [100, 71, 36, 24, 18, 15, 14, 11, 7, 7]
    assert errors.index(0) + 1 == len(errors) == 146


@pytest.mark.opencl
def test_wine_gives_the_published_errors_on_opencl() -> None:
    from veloflow.devices.opencl import OpenCLDevice

    device = OpenCLDevice.open()
    try:
        published = [70, 15, 5, 3, 4, 1, 1, 1, 1, 2, 1, 0]
        assert _errors(wine, _WINE, bias_rate=0.01, device=device) == published
    finally:
        device.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_any_seed_learns_all_wines(seed: int) -> None:
    first = veloflow.run("wine", device="numpy", seed=seed)
    assert first.epochs[-1]["train"]["n_errors"] == 0
    assert first.epochs[-1]["epoch"] <= 20
    second = veloflow.run("wine_relu", device="numpy", seed=seed)
    assert second.epochs[-1]["train"]["n_errors"] == 0
    assert second.epochs[-1]["epoch"] <= 220
