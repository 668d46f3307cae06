"""The first images of MNIST as a data set of their own, for runs whose times are virtual."""

from __future__ import annotations

import gzip
import struct

from checkout import ROOT

MNIST = ROOT.parent / "shared" / "data" / "mnist"


def write_small_mnist(folder, *, train=2000, validation=500):
    """Write so many training and validation images into a folder, as IDX files."""
    for kind, count in (("train10k", train), ("t10k", validation)):
        for what, head, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            name = f"{kind}-{what}-ubyte.gz"
            raw = gzip.decompress((MNIST / name).read_bytes())
            header = raw[:4] + struct.pack(">i", count) + raw[8:head]
            (folder / name).write_bytes(gzip.compress(header + raw[head : head + count * size]))
    return folder
