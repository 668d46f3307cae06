"""Real data sets that come with scikit-learn: handwritten digits and wines."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from veloflow.units.fullbatch import FullBatchLoader, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BreastCancerLoader", "DigitsLoader", "WineLoader", "digits"]


@cache
def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pixels of 1,797 handwritten digits (n, 64), in [-1, 1], and their classes (n,)."""
    data, labels = _samples("digits", "digits.csv.gz")
    return data / 8.0 - 1.0, labels


def _samples(
    name: str, file: str, header: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the samples (n, features) and classes (n,) of a data set of scikit-learn's.

    Its file is read here: importing scikit-learn takes a second, which every slave would wait.

    Args:
        name: by which scikit-learn loads it.
        file: where it is kept, a table whose last column is the class.
        header: how many lines stand before the table.
    """
    found = find_spec("sklearn")
    folder = Path(found.origin).parent if found and found.origin else Path()
    path = folder / "datasets" / "data" / file
    if not path.is_file():  # a release that keeps it elsewhere knows where
        load = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")
        data, labels = load(return_X_y=True)
        return data, labels
    table = np.loadtxt(path, delimiter=",", skiprows=header)
    return table[:, :-1], table[:, -1].astype(np.int64)


@final
class DigitsLoader(FullBatchLoader):
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998); 10 classes.

    Pixels are in [-1, 1]. Every fifth digit is for validation.
    """

    def load_samples(self) -> Samples:
        """Return the digits."""
        data, labels = digits()
        held = np.arange(len(data)) % 5 == 0
        order = np.concatenate([np.flatnonzero(held), np.flatnonzero(~held)])
        lengths = (0, int(held.sum()), int((~held).sum()))
        return Samples(data[order], labels[order], lengths)


@final
class WineLoader(FullBatchLoader):
    """178 wines of 3 growers, with 13 measurements each (Forina and others, 1988).

    All are for training, as in Veles; ``validation_ratio`` holds some out.
    """

    def load_samples(self) -> Samples:
        """Return the wines."""
        data, labels = _samples("wine", "wine_data.csv", header=1)
        return Samples(data, labels, (0, 0, len(data)))


@final
class BreastCancerLoader(FullBatchLoader):
    """569 breast tumours with 30 measurements each, malignant (0) or benign (1) (Wolberg, 1995).

    All are for training; ``validation_ratio`` holds some out.
    """

    def load_samples(self) -> Samples:
        """Return the tumours."""
        data, labels = _samples("breast_cancer", "breast_cancer.csv", header=1)
        return Samples(data, labels, (0, 0, len(data)))
