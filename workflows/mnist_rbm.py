"""MNIST, or any IDX images, as a restricted Boltzmann machine sees them; short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import IDXLoader, RangeLinear, rbm, standard_workflow


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    hidden: int = 500,
    k: int = 1,
    epochs: int = 15,
    minibatch: int = 100,
    rate: float = 0.1,
    moment: float = 0.5,
    decay: float = 2e-4,
) -> None:
    """Make the machine, trained by contrastive divergence to reconstruct images.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        hidden: hidden units.
        k: steps of Gibbs sampling for each image.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
        rate: the learning rate.
        moment: the momentum.
        decay: the weight decay.
    """
    standard_workflow(
        wf,
        loader=IDXLoader(wf, data, minibatch_size=minibatch, normalization=RangeLinear((0, 1))),
        layers=[rbm(hidden, k=k)],
        loss="mse",
        target="minibatch_data",
        max_epochs=epochs,
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
