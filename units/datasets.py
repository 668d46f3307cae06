"""Real data sets that come with scikit-learn: handwritten digits and wines."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from veloflow.units.fullbatch import FullBatchLoader, Samples

if TYPE_CHECKING:
    from veloflow.core import Workflow

__all__ = ["DigitsLoader"]


@final
class DigitsLoader(FullBatchLoader):
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998); 10 classes."""

    def load_samples(self) -> Samples:
        """Return the digits: one in five for validation."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        data, labels = bunch.data / 8.0 - 1.0, bunch.target
        held = np.arange(len(data)) % 5 == 0
        order = np.concatenate([np.flatnonzero(held), np.flatnonzero(~held)])
        lengths = (0, int(held.sum()), int((~held).sum()))
        return Samples(data[order], labels[order], lengths)
