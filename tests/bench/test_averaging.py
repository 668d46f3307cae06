"""SparkNet's table: how many steps averaging saves, by slaves and by the length of a stretch.

P. Moritz, R. Nishihara, I. Stoica, M. Jordan: SparkNet: Training Deep Networks in Spark. ICLR 2016.
It gains only where gradients are noisy, so minibatches have 4 images, and each cell has the best of
some learning rates, as serial training has. The arithmetic is real; it takes some ten minutes.
"""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest

import veloflow
from checkout import ROOT
from veloflow.errors import NumericsError, UnitError
from veloflow.runtime.farms.local import LocalFarm

pytestmark = pytest.mark.bench

DATA = ROOT.parent / "shared" / "data" / "mnist"
TARGET, MOST_EPOCHS = 8.0, 6
TAUS, SLAVES = (1, 5, 20, 50, 100), (2, 4, 8)
RATES = {1: (0.05, 0.1, 0.2), 2: (0.1, 0.2), 4: (0.2, 0.3), 8: (0.2, 0.4)}
#: minibatches between two looks at the validation error
LOOK = 200

DEFINITION = """
import numpy as np
from veloflow.units import ArrayLoader, FanIn, softmax, standard_workflow, tanh

def build(wf, *, rate: float = 0.1, epochs: int = 3) -> None:
    found = np.load({path!r})
    loader = ArrayLoader(wf, found["images"], found["labels"], minibatch_size=4)
    layers = [tanh(100, weights_filling=FanIn()), softmax(10, weights_filling=FanIn())]
    standard_workflow(wf, loader=loader, layers=layers, learning_rate=rate, weights_decay=0.0,
                      max_epochs=epochs)
"""


class ReachedError(Exception):
    """The error is as low as wanted."""


def read(name):
    """Return images in [0, 1] as rows, and labels."""
    with gzip.open(DATA / f"{name}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(DATA / f"{name}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images.astype(np.float32) / 255, labels.astype(np.int32)


def error_of(parameters, images, labels):
    """Return the error % of a perceptron with these parameters."""
    w1, b1, w2, b2 = (np.asarray(one.value.read()) for one in parameters)
    hidden = 1.7159 * np.tanh(0.6666 * (images @ w1.T + b1))
    return 100 * float(np.mean((hidden @ w2.T + b2).argmax(1) != labels))


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    """The file of a definition on the training images."""
    folder = tmp_path_factory.mktemp("averaging")
    images, labels = read("train10k")
    np.savez(folder / "train.npz", images=images, labels=labels)
    own = folder / "noisy.py"
    own.write_text(DEFINITION.format(path=str(folder / "train.npz")))
    return own


def steps_to_target(monkeypatch, definition, validation, slaves, tau, rate):
    """Return how many steps each slave takes until the error is as low; infinity for never."""
    looked, found = 0, math.inf
    exchange = LocalFarm._exchange

    def look(farm, stretches):
        nonlocal looked, found
        exchange(farm, stretches)
        if farm._trained - looked < LOOK:
            return
        looked = farm._trained
        if error_of(farm._parameters, *validation) <= TARGET:
            found = farm._trained / slaves
            raise ReachedError

    with monkeypatch.context() as patch:
        patch.setattr(LocalFarm, "_exchange", look)
        try:
            veloflow.run(
                definition, device="numpy", sharing=f"average:every={tau},parts={slaves}",
                rate=rate, epochs=MOST_EPOCHS,
            )  # fmt: skip
        except UnitError as error:
            if not isinstance(error.__cause__, ReachedError):
                raise
        except NumericsError:  # it has diverged
            return math.inf
    return found


def test_steps_that_averaging_saves(monkeypatch, definition):
    validation = read("t10k")
    best = {}

    def measure(slaves, tau):
        found = {
            rate: steps_to_target(monkeypatch, definition, validation, slaves, tau, rate)
            for rate in RATES[slaves]
        }
        rate = min(found, key=found.get)
        best[slaves, tau] = found[rate]
        print(
            f"\n{slaves} slaves, a mean every {tau:3d}: {found[rate]:6.0f} steps to {TARGET:g} %, "
            f"{best[1, 20] / found[rate]:5.2f} times fewer, rate {rate}",
            end="",
            flush=True,
        )

    measure(1, 20)
    for slaves in SLAVES:
        for tau in TAUS:
            measure(slaves, tau)
    print("\nC computes a step, S takes a mean; time is steps x (1 + S / (C tau))")
    for slaves in SLAVES:
        crossings = [
            f"{max(0.0, tau * (best[1, 20] / best[slaves, tau] - 1)):.1f} (every {tau})"
            for tau in TAUS
        ]
        print(f"{slaves} slaves are slower than one from S/C = {', '.join(crossings)}")
    for slaves in SLAVES:
        assert best[slaves, 1] <= 1.1 * best[slaves, 100]  # it rises with tau …
        assert best[1, 20] / best[slaves, 1] > 1.3
    assert best[8, 20] < best[2, 20]  # … and falls with slaves
