"""The least that trains 784-100-10 on MNIST with PyTorch: what a whole run of ours is beside.

The network, rates, minibatches of 60 and the validation after each epoch are those of the workflow
mnist_mlp. Run it with the folder of the data and a number of epochs.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import torch


def read(folder, part):
    """Return images (n, 784) in [-1, 1] and labels of a part of MNIST."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)
    return (
        torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1),
        torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)),
    )


def main(folder, epochs):
    """Train, and print the errors after each epoch."""
    torch.manual_seed(0)
    x, labels = read(folder, "train10k")
    held_x, held_labels = read(folder, "t10k")
    net = torch.nn.Sequential(torch.nn.Linear(784, 100), torch.nn.Tanh(), torch.nn.Linear(100, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.03, 0.9, weight_decay=5e-4)
    criterion = torch.nn.CrossEntropyLoss()
    for epoch in range(1, epochs + 1):
        for places in torch.randperm(len(x)).split(60):
            loss = criterion(net(x[places]), labels[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            wrong = sum(
                int((net(part).argmax(1) != truth).sum())
                for part, truth in zip(held_x.split(60), held_labels.split(60), strict=True)
            )
        print(f"epoch {epoch}: {100 * wrong / len(held_x):.2f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
