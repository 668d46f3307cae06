"""MNIST, or any IDX images, with softplus neurons (Veles's "relu") and orthogonal rows."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import FanIn, IDXLoader, softmax, softplus, standard_workflow


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    hidden: int = 100,
    rate: float = 0.03,
    epochs: int = 10,
    minibatch: int = 60,
) -> None:
    """Make a 784-hidden-10 network with Veles's settings of it.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        hidden: neurons in the hidden layer.
        rate: the learning rate.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
    """
    filling = FanIn()
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=[softplus(hidden, weights_filling=filling), softmax(10, weights_filling=filling)],
        learning_rate=rate,
        weights_decay=0.0,
        factor_ortho=0.001,
        max_epochs=epochs,
    )
