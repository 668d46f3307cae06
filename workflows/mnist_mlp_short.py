"""MNIST, or any IDX images, with a perceptron of one hidden layer: the short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import FanIn, IDXLoader, softmax, standard_workflow, tanh


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    hidden: int = 100,
    rate: float = 0.03,
    moment: float = 0.9,
    decay: float = 5e-4,
    epochs: int = 30,
    minibatch: int = 60,
) -> None:
    """Fill in a 784-hidden-10 network, the same as ``mnist_mlp`` to the last bit.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        hidden: neurons in the hidden layer.
        rate: the learning rate.
        moment: the momentum.
        decay: the weight decay.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
    """
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=[
            tanh(hidden, weights_filling=FanIn()),
            softmax(10, weights_filling=FanIn()),
        ],
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
        max_epochs=epochs,
    )
