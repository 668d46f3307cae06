"""Data sets of scikit-learn: read from its files, without a second of importing it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets

from veloflow.units import datasets

TABLES = {"digits": ("digits.csv.gz", 0), "wine": ("wine_data.csv", 1),
          "breast_cancer": ("breast_cancer.csv", 1)}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_samples_are_those_that_scikit_learn_gives(name, is_elsewhere):
    file, header = TABLES[name]
    found = datasets._samples(name, "elsewhere" if is_elsewhere else file, header)
    expected = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.slow
def test_a_run_with_digits_imports_neither_scikit_learn_nor_scipy():
    text = (
        "import sys, veloflow; veloflow.run('digits_mlp', epochs=1, device='numpy'); "
        "sys.exit(', '.join({'sklearn', 'scipy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
