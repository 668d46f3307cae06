"""MNIST, or any IDX images, read row by row by an LSTM; short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import Adam, FanIn, IDXLoader, lstm, softmax, standard_workflow


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    cells: int = 128,
    epochs: int = 15,
    minibatch: int = 100,
    rate: float = 0.002,
) -> None:
    """Make the network: each row of an image is a time step, the last state tells the digit.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        cells: of the LSTM.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
        rate: the learning rate of Adam.
    """
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=[lstm(cells), softmax(10, weights_filling=FanIn())],
        max_epochs=epochs,
        learning_rate=rate,
        solver=Adam(),
        weights_decay=0.0,
    )
