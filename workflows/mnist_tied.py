"""MNIST images through 100 neurons and back: a dense auto-encoder with tied weights; short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import FanIn, IDXLoader, standard_workflow, tanh, tied


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    hidden: int = 100,
    epochs: int = 10,
    minibatch: int = 100,
    rate: float = 0.001,
    moment: float = 0.9,
    decay: float = 5e-5,
) -> None:
    """Make a 784-hidden-784 network whose decoder has the weights of its encoder, transposed.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        hidden: neurons between.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
        rate: the learning rate.
        moment: the momentum.
        decay: the weight decay.
    """
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch),
        layers=[
            tanh(hidden, weights_filling=FanIn(), name="encoder"),
            tied("encoder"),
        ],
        loss="mse",
        target="minibatch_data",
        max_epochs=epochs,
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
