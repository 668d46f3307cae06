"""A classifier of texts that come with Python: it learns, and torch's twin is as good."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from tests.workflows.judged import most
from veloflow.workflows.docstrings import LIBRARIES, texts, tokens

pytestmark = pytest.mark.slow


def test_texts_are_read_and_numbered() -> None:
    documents, labels = texts(200)
    assert np.bincount(labels).tolist() == [200] * len(LIBRARIES)
    assert all(len(words) >= 5 for words in documents)
    held = np.arange(len(documents)) % 5 == 0
    rows = tokens(documents, held, 50, 12)
    assert rows.shape == (len(documents), 12)
    assert rows.max() == 49
    short = next(number for number, words in enumerate(documents) if len(words) == 6)
    assert not rows[short, :6].any()
    assert rows[short, 6:].all()


def test_it_learns_in_two_epochs() -> None:
    result = veloflow.run("docstrings", device="numpy", epochs=2, limit=400, cells=32)
    assert result.best["validation_error_percent"] < 60  # of four libraries; 75 by chance


@pytest.mark.stress
def test_it_is_as_good_as_torch() -> None:
    """The same network and settings in torch: see docs/results.md."""
    result = veloflow.run("docstrings", device="numpy")
    assert result.best["validation_error_percent"] <= most("docstrings")
