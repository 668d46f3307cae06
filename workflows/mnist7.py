"""MNIST as seven segments: a network learns to light them, and the nearest digit is its answer."""

from pathlib import Path

import numpy as np

from veloflow import Workflow
from veloflow.devices import Array
from veloflow.errors import DataError
from veloflow.units import FanIn, FullBatchLoader, Samples, read_idx, standard_workflow, tanh


def segments() -> np.ndarray:
    """Return the segments of each digit, (10, 7): 1 is lit, -1 is dark.

    They are the top, upper left, upper right, middle, lower left, lower right and bottom one.
    """
    lit = ("1110111", "0010010", "1011101", "1011011", "0111010",
           "1101011", "1101111", "1010010", "1111111", "1111011")  # fmt: skip
    return np.array([[2.0 * int(one) - 1 for one in digit] for digit in lit])


class SegmentLoader(FullBatchLoader):
    """Images of digits whose targets are the segments that show them.

    Attributes:
        class_targets: the segments of each digit, (10, 7).
    """

    class_targets: Array

    def __init__(self, wf: Workflow, folder: Path, *, minibatch_size: int) -> None:
        super().__init__(wf, minibatch_size=minibatch_size, normalization="linear")
        self._folder = folder

    def initialize(self) -> None:
        """Read the images; put the digits' segments on the device."""
        super().initialize()
        self.class_targets = self.device.asarray(segments(), self.settings.dtype)

    def load_samples(self) -> Samples:
        """Return the images, those for validation first.

        Raises:
            DataError: a file is missing or damaged.
        """
        names = sorted(self._folder.glob("*-images-idx3-ubyte*"))
        names.sort(key=lambda name: name.name.startswith("train"))
        if [name.name.startswith("train") for name in names] != [False, True]:
            raise DataError(f"{self._folder}: it must have images train… and others, one of each")
        images = [read_idx(name) for name in names]
        labels = [
            read_idx(name.with_name(name.name.replace("images-idx3", "labels-idx1")))
            for name in names
        ]
        numbers = np.concatenate(labels)
        lengths = (0, len(labels[0]), len(labels[1]))
        data, targets = np.concatenate(images), segments()[numbers]
        return Samples(data, numbers, lengths, targets, classes=range(10))


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    hidden: int = 100,
    rate: float = 0.01,
    epochs: int = 10,
    minibatch: int = 60,
) -> None:
    """Make Veles's 784-hidden-hidden-7 network; its rate is larger, for there are fewer images.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        hidden: neurons in each hidden layer.
        rate: the learning rate.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
    """
    loader = SegmentLoader(wf, data, minibatch_size=minibatch)
    filling = FanIn()
    units = standard_workflow(
        wf,
        loader=loader,
        layers=[tanh(neurons, weights_filling=filling) for neurons in (hidden, hidden, 7)],
        loss="mse",
        learning_rate=rate,
        max_epochs=epochs,
    )
    units.evaluator.link_data(loader, "class_targets", labels="minibatch_labels")
    units.decision.link_data(units.evaluator, "n_err")
