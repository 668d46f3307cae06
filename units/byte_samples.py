"""Data sets of bytes that stay bytes on the device: minibatches are normalized on their way.

So they take a quarter of the memory, and a gathered sample a quarter of the reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.expressions import element, where
from veloflow.units.normalization import (
    ExternalMean,
    InternalMean,
    Linear,
    MeanDispersion,
    NoNormalization,
    Normalizer,
    Pointwise,
    RangeLinear,
    Standard,
)

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from veloflow.devices import Array, Launch

__all__ = ["ByteSamples", "line_of"]

#: what treats each feature by itself, and all samples alike, as y = factor x + term
_STRAIGHT = (
    NoNormalization, RangeLinear, Pointwise, MeanDispersion, Standard, InternalMean, ExternalMean,
)  # fmt: skip
_LARGEST = 255


def line_of(
    normalizer: Normalizer, samples: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return factor and term with which a normalized sample is factor * sample + term.

    Args:
        normalizer: what has analyzed what it needs.
        samples: (n, *sample shape), bytes.

    Returns:
        Two arrays of one shape: (1,) where all numbers are treated alike, (1, *sample shape) where
        features differ, (n,) where samples do; None where it is no such formula.
    """
    if type(normalizer) is Linear:
        return _lines_of_samples(normalizer, samples)
    if type(normalizer) not in _STRAIGHT:
        return None
    ends = np.zeros((2, *samples.shape[1:]))
    ends[1] = _LARGEST
    low, high = np.asarray(normalizer.normalize(ends), np.float64)
    factor, term = ((high - low) / _LARGEST)[np.newaxis], low[np.newaxis]
    if np.ptp(factor) == 0 and np.ptp(term) == 0:
        return factor.reshape(-1)[:1], term.reshape(-1)[:1]
    return factor, term


def _lines_of_samples(
    normalizer: Linear, samples: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    flat = samples.reshape(len(samples), -1)
    low, high = (find(axis=1).astype(np.float64) for find in (flat.min, flat.max))
    start, stop = normalizer.interval
    spread = high - low
    factor = np.where(spread == 0, 0.0, (stop - start) / np.where(spread == 0, 1.0, spread))
    return factor, np.where(spread == 0, (start + stop) / 2, start - low * factor)


class ByteSamples:
    """Bytes on a device, and what gives a minibatch of them, normalized.

    Args:
        samples: (n, *sample shape), uint8.
        indices: int32 (batch,) on the device; rows of negative ones become 0.
        out: (batch, *sample shape) on the device, of a floating dtype.
        line: see :func:`line_of`.
    """

    def __init__(
        self,
        samples: NDArray[np.uint8],
        indices: Array,
        out: Array,
        line: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        device, batch = indices.device, len(indices)
        data, picked = device.asarray(samples), device.zeros(out.shape, np.uint8)
        self._launches: list[Launch] = [device.gather(data, indices, picked)]
        factor, term = (device.asarray(one, out.dtype) for one in line)
        arrays = {"x": picked, "y": out, "factor": factor, "term": term}
        formula = element("x") * element("factor") + element("term")
        #: what makes padding 0, where the formula does not
        self._blank: Launch | None = None
        if len(line[0]) == len(samples) > 1:  # samples differ, and padding has neither
            for name, whole in (("factor", factor), ("term", term)):
                arrays[name] = device.zeros((batch,), out.dtype)
                self._launches.append(device.gather(whole, indices, arrays[name]))
        else:
            is_there = where(element("i") >= 0, element("y"), 0.0)
            self._blank = device.elementwise({"y": is_there}, {"i": indices, "y": out})
        self._launches.append(device.elementwise({"y": formula}, arrays))

    def __call__(self, *, is_whole: bool) -> None:
        """Give the minibatch of the indices; ``is_whole``: none of them is negative."""
        for launch in self._launches:
            launch()
        if self._blank is not None and not is_whole:
            self._blank()
