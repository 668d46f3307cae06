"""MNIST with the large convolutional network of Veles: 64C5-MP2-87C5-MP2-791N-10N; short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import IDXLoader, standard_workflow
from veloflow.workflows.mnist_caffe import lenet


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    epochs: int = 5,
    minibatch: int = 6,
    rate: float = 0.005,
    moment: float = 0.5,
    decay: float = 5e-4,
) -> None:
    """Make the network. Its shape and minibatch are Veles's, its rates are not.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
        rate: the learning rate.
        moment: the momentum.
        decay: the weight decay.
    """
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=lenet(64, 87, 791),
        max_epochs=epochs,
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
