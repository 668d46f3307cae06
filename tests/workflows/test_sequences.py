"""Real images read row by row by an LSTM, and seen by a restricted Boltzmann machine."""

from __future__ import annotations

import pytest

import veloflow
from tests.workflows.test_mnist import _DATA

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _DATA.is_dir(), reason="the images are not beside the checkout"),
]


def test_the_lstm_learns_in_two_epochs() -> None:
    result = veloflow.run("mnist_lstm", data=_DATA, epochs=2, cells=32, device="numpy")
    assert result.best["validation_error_percent"] <= 30


@pytest.mark.stress
def test_the_lstm_is_as_good_as_torch() -> None:
    """torch with the same network and settings: see docs/results.md."""
    result = veloflow.run("mnist_lstm", data=_DATA, device="numpy")
    assert result.best["validation_error_percent"] <= 3.6


def test_the_machine_learns_to_reconstruct_in_two_epochs() -> None:
    result = veloflow.run("mnist_rbm", data=_DATA, epochs=2, hidden=100, device="numpy")
    errors = [one["validation"]["loss"] for one in result.epochs]
    assert errors[2] < errors[1] < 0.5 * errors[0]
