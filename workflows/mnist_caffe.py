"""MNIST, or any IDX images, with Caffe's LeNet: two convolutions, two dense layers; short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import (
    FanIn,
    IDXLoader,
    Inv,
    Layer,
    conv,
    max_pool,
    softmax,
    softplus,
    standard_workflow,
)


def lenet(first: int, second: int, hidden: int) -> list[Layer]:
    """Return two convolutions of 5 x 5 with so many kernels and two dense layers, for 10 digits."""
    filling = FanIn()
    return [
        conv(first, 5, "linear", weights_filling=filling),
        max_pool(2),
        conv(second, 5, "linear", weights_filling=filling),
        max_pool(2),
        softplus(hidden, weights_filling=filling),
        softmax(10, weights_filling=filling),
    ]


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    epochs: int = 15,
    minibatch: int = 64,
    rate: float = 0.01,
    moment: float = 0.9,
    decay: float = 5e-4,
) -> None:
    """Make the network with Veles's settings of it.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
        rate: the learning rate; that of biases is twice as large.
        moment: the momentum.
        decay: the weight decay.
    """
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=lenet(20, 50, 500),
        max_epochs=epochs,
        policy=Inv(gamma=1e-4, power=0.75),
        learning_rate=rate,
        learning_rate_bias=2 * rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
