"""Real data sets that come with scikit-learn: handwritten digits and wines."""

from __future__ import annotations

from typing import final

import numpy as np

from veloflow.units.fullbatch import FullBatchLoader, Samples

__all__ = ["DigitsLoader", "WineLoader"]


@final
class DigitsLoader(FullBatchLoader):
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998); 10 classes.

    Pixels are in [-1, 1]. Every fifth digit is for validation.
    """

    def load_samples(self) -> Samples:
        """Return the digits."""
        from sklearn.datasets import load_digits

        data, labels = load_digits(return_X_y=True)
        held = np.arange(len(data)) % 5 == 0
        order = np.concatenate([np.flatnonzero(held), np.flatnonzero(~held)])
        lengths = (0, int(held.sum()), int((~held).sum()))
        return Samples(data[order] / 8.0 - 1.0, labels[order], lengths)


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
