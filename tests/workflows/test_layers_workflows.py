"""Workflows with branches, normalisation and auto-encoders: two epochs on a part of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import veloflow
from tests.workflows.judged import most
from tests.workflows.test_mnist import _DATA
from tests.workflows.test_short_forms import write_idx
from veloflow.units import read_idx
from veloflow.workflows.lines import line_images

pytestmark = [pytest.mark.slow]
needs_mnist = pytest.mark.skipif(
    not _DATA.is_dir(), reason="the images are not beside the checkout"
)


@pytest.fixture
def few(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder with a few of the images: so many, or 1,000, and 300 to validate with."""
    for name, count in (("train10k", getattr(request, "param", 1000)), ("t10k", 300)):
        for kind in ("images-idx3", "labels-idx1"):
            values = read_idx(_DATA / f"{name}-{kind}-ubyte.gz")[:count]
            write_idx(tmp_path / f"{name}-{kind}-ubyte.gz", values)
    return tmp_path


@needs_mnist
@pytest.mark.parametrize(
    ("name", "figure", "most"),
    [
        ("mnist_residual", "validation_error_percent", 75.0),
        ("mnist_tied", "validation_loss", 0.45),
        ("mnist_autoencoder", "validation_loss", 0.8),
    ],
)
def test_it_learns_in_two_epochs(few: Path, name: str, figure: str, most: float) -> None:
    result = veloflow.run(name, data=few, epochs=2, minibatch=20, device="numpy")
    assert result.best[figure] <= most


@needs_mnist
@pytest.mark.parametrize("few", [400], indirect=True)
def test_the_large_network_learns_from_few_images(few: Path) -> None:
    result = veloflow.run("mnist_conv", data=few, epochs=1, moment=0.9, device="numpy")
    assert result.best["validation_error_percent"] <= 60.0


def test_lines_are_learned() -> None:
    result = veloflow.run("lines", samples=240, epochs=3, noise=0.1, rate=0.03, device="numpy")
    assert result.best["validation_error_percent"] <= 35.0


def test_line_images_are_the_same_everywhere() -> None:
    images, angles = line_images(8, 32, noise=0.0)
    assert images.shape == (8, 32, 32, 1)
    np.testing.assert_array_equal(angles, [0, 1, 2, 3] * 2)
    assert images.sum() == pytest.approx(366.71, abs=0.01)
    larger, _ = line_images(8, 128, noise=0.0)
    assert larger.mean() == pytest.approx(images.mean(), rel=0.02)  # the same pictures, larger
    for number, is_flat in ((0, True), (2, False)):  # at 0 degrees it is long in x, at 90 in y
        columns, rows = ((images[number, ..., 0].max(axis=axis) > 0.5).sum() for axis in (0, 1))
        assert (columns > rows) == is_flat


@pytest.mark.stress
@needs_mnist
@pytest.mark.parametrize(
    ("name", "epochs", "figure"),
    [
        ("mnist_autoencoder", 6, "validation_loss"),
        ("mnist_conv", 3, "validation_error_percent"),
        ("mnist_residual", 5, "validation_error_percent"),
        ("mnist_tied", 10, "validation_loss"),
    ],
)
def test_whole_runs_are_as_good_as_torchs(name: str, epochs: int, figure: str) -> None:
    result = veloflow.run(name, data=_DATA, epochs=epochs)
    assert result.best[figure] <= most(name)
