"""Small sets of random images with labels in IDX files, as MNIST comes."""

from __future__ import annotations

import gzip
import struct

import numpy as np

from veloflow.runtime.storage.files import write_atomically


def write_idx(folder, counts, shape=(28, 28)):
    """Write so many images of each part, ("train", "t10k"), into a folder or below a URL."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        labels = np.arange(count) % 10
        images = random.integers(0, 100, (count, *shape), np.uint8)
        images[np.arange(count), 2 * labels] += 150  # a bright row tells the label
        for what, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            content = gzip.compress(head + values.astype(np.uint8).tobytes(), mtime=0)
            write_atomically(folder / f"{name}-{what}-ubyte.gz", [content])
