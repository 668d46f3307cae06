"""MNIST images through a convolution and pooling by chance and back, as in Veles; short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import (
    FanIn,
    IDXLoader,
    conv,
    depool,
    standard_workflow,
    stochastic_abs_pool,
    tied_conv,
)


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    kernels: int = 5,
    epochs: int = 6,
    minibatch: int = 100,
    rate: float = 1e-4,
    moment: float = 0.9,
    decay: float = 5e-5,
) -> None:
    """Make the network 5C5 - stochastic abs pooling 3/2 - depooling - transposed convolution, MSE.

    The decoder has the encoder's weights, and values are picked by chance in use too, as in Veles.
    Shape and minibatch are Veles's, the rates are not.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        kernels: of the convolution.
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
            conv(kernels, 5, "linear", weights_filling=FanIn(), include_bias=False, name="encoder"),
            stochastic_abs_pool(3, 2, name="pooling", picks_always=True),
            depool("pooling"),
            tied_conv("encoder"),
        ],
        loss="mse",
        target="minibatch_data",
        max_epochs=epochs,
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
