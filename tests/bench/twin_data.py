"""What torch's twins of the workflows learn from: the same samples, as tensors."""

from __future__ import annotations

import atexit
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_wine

from veloflow.devices.random import generator
from veloflow.units import read_idx
from veloflow.units.labels import hold_out
from veloflow.workflows.approximator import samples
from veloflow.workflows.docstrings import texts, tokens
from veloflow.workflows.lines import line_images
from veloflow.workflows.mnist7 import segments

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


@cache
def folder(train: int, test: int) -> Path:
    """Return a folder with the first images of MNIST, so many; it is there as long as we are."""
    part = Path(tempfile.mkdtemp(prefix="veloflow-results-"))
    atexit.register(shutil.rmtree, part)
    for name, count in (("train10k", train), ("t10k", test)):
        for kind in ("images-idx3", "labels-idx1"):
            values = read_idx(DATA / f"{name}-{kind}-ubyte.gz")[:count]
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (part / f"{name}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return part


@cache
def mnist(train: int = 10000, test: int = 10000):
    """Return images (n, 1, 28, 28), each from -1 to 1, and labels: for training, then the tests."""
    found = []
    for name, count in (("train10k", train), ("t10k", test)):
        images = read_idx(DATA / f"{name}-images-idx3-ubyte.gz")[:count]
        x = torch.tensor(images, dtype=torch.float32)
        low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
        labels = read_idx(DATA / f"{name}-labels-idx1-ubyte.gz")[:count].astype(np.int64)
        found += [((x - low) / (high - low) * 2 - 1)[:, None], torch.tensor(labels)]
    return tuple(found)


@cache
def lines(size: int = 32, count: int = 1200):
    """Return training and validation images (n, 1, size, size) and their angles."""
    images, angles = line_images(count, size)
    x, y = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(angles)
    return x[count // 4 :], y[count // 4 :], x[: count // 4], y[: count // 4]


@cache
def documents():
    """Return the words of training and validation texts, as numbers, and whose they are."""
    words, labels = texts(1000)
    held = np.arange(len(words)) % 5 == 0
    rows, y = torch.tensor(tokens(words, held, 2000, 30)), torch.tensor(labels)
    return rows[~held], y[~held], rows[held], y[held]


@cache
def digit_segments():
    """Return MNIST's images (n, 784) and the segments of each digit, for training and testing."""
    x, y, v, w = mnist()
    lit = torch.tensor(segments(), dtype=torch.float32)
    return x.flatten(1), lit[y], v.flatten(1), lit[w]


@cache
def nine_numbers():
    """Return the approximator's samples: 4,000 to learn from and 1,000 others."""
    x, y = (torch.tensor(one, dtype=torch.float32) for one in samples(5000))
    return x[1000:], y[1000:], x[:1000], y[:1000]


@cache
def wine_table():
    """Return the 178 wines, (178, 13), each feature from -1 to 1, and whose they are."""
    data, labels = load_wine(return_X_y=True)
    low, high = data.min(0), data.max(0)
    return torch.tensor((data - low) / (high - low) * 2 - 1).float(), torch.tensor(labels)


def tumour_parts(seed: int):
    """Return the tumours that the workflow trains on with this seed, and those it holds out.

    Which of 569 tumours are held out moves the loss more than anything else: 0.03 to 0.21 in 20
    seeds. So both sides train on the same ones.
    """
    data, labels = load_breast_cancer(return_X_y=True)
    random = generator(seed, "BreastCancerLoader", "validation")
    order, (_, held, _) = hold_out(labels, (0, 0, len(labels)), 0.2, random)
    v, x = np.split(data[order], [held])
    low, high = x.min(0), x.max(0)
    w, y = torch.tensor(labels[order]).tensor_split([held])
    x, v = (torch.tensor((one - low) / (high - low) * 2 - 1).float() for one in (x, v))
    return x, y, v, w
