"""Real data sets that come with scikit-learn: handwritten digits and wines."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, final

import numpy as np

from veloflow.units.fullbatch import FullBatchLoader, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BreastCancerLoader", "DigitsLoader", "WineLoader", "digits"]


@cache
def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pixels of 1,797 handwritten digits (n, 64), in [-1, 1], and their classes (n,)."""
    from sklearn.datasets import load_digits

    data, labels = load_digits(return_X_y=True)
    return data / 8.0 - 1.0, labels


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
        from sklearn.datasets import load_wine

        data, labels = load_wine(return_X_y=True)
        return Samples(data, labels, (0, 0, len(data)))


@final
class BreastCancerLoader(FullBatchLoader):
    """569 breast tumours with 30 measurements each, malignant (0) or benign (1) (Wolberg, 1995).

    All are for training; ``validation_ratio`` holds some out.
    """

    def load_samples(self) -> Samples:
        """Return the tumours."""
        from sklearn.datasets import load_breast_cancer

        data, labels = load_breast_cancer(return_X_y=True)
        return Samples(data, labels, (0, 0, len(data)))
