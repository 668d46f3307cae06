"""MNIST with a small residual network with batch normalisation (He et al., 2016); short form."""

from pathlib import Path

from veloflow import Workflow
from veloflow.units import (
    Branches,
    FanIn,
    IDXLoader,
    Layer,
    activation,
    avg_pool,
    batch_norm,
    conv,
    residual,
    softmax,
    standard_workflow,
)


def block(kernels: int, stride: int = 1) -> list[Layer | Branches]:
    """Return relu(x + f(x)), f being two convolutions of 3 x 3; a stride makes images smaller."""

    def convolution(size: int, step: int, padding: int) -> Layer:
        return conv(kernels, size, "linear", stride=step, padding=padding,
                    weights_filling=FanIn(), include_bias=False)  # fmt: skip

    inner = [convolution(3, stride, 1), batch_norm(), activation("relu")]
    shortcut = [] if stride == 1 else [convolution(1, stride, 0), batch_norm()]
    body = residual(*inner, convolution(3, 1, 1), batch_norm(), shortcut=shortcut)
    return [body, activation("relu")]


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    kernels: int = 8,
    epochs: int = 5,
    minibatch: int = 64,
    rate: float = 0.05,
    moment: float = 0.9,
    decay: float = 5e-4,
) -> None:
    """Make a network of three blocks at 28, 14 and 7 pixels.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        kernels: in the first block; each following one has twice as many.
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
            conv(kernels, 3, "linear", padding=1, weights_filling=FanIn(), include_bias=False),
            batch_norm(),
            activation("relu"),
            *block(kernels),
            *block(2 * kernels, stride=2),
            *block(4 * kernels, stride=2),
            avg_pool(7),
            softmax(10, weights_filling=FanIn()),
        ],
        max_epochs=epochs,
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
