"""Lines: at which of four angles does a noisy line lie? Generated images; Veles's topology."""

import numpy as np
from numpy.typing import NDArray

from veloflow import Workflow
from veloflow.units import ArrayLoader, FanIn, conv, max_pool, softmax, standard_workflow, tanh


def line_images(
    count: int, size: int, noise: float = 0.5, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images (count, size, size, 1) of lines, and their angles 0 to 3: steps of 45 degrees.

    A line is 1/32 to 1/16 of the size thick, goes by the middle at up to a quarter of the size, and
    is turned by up to 15 degrees from its angle; the noise is normal. A seed gives the same images
    everywhere.
    """
    random = np.random.Generator(np.random.Philox(seed))
    angles = np.arange(count) % 4
    turned = np.deg2rad(45 * angles + random.uniform(-15, 15, count))[:, None, None]
    offset = random.uniform(-size / 4, size / 4, count)[:, None, None]
    width = random.uniform(0.5, 1.0, count)[:, None, None] * size / 32
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.abs(x * np.sin(turned) - y * np.cos(turned) - offset)
    images = np.clip(width + 0.5 - distance, 0, 1)
    images = images + noise * random.standard_normal(images.shape)
    return images[..., None].astype(np.float32), angles


def build(
    wf: Workflow,
    *,
    samples: int = 1200,
    size: int = 32,
    noise: float = 0.5,
    epochs: int = 8,
    minibatch: int = 12,
    rate: float = 0.01,
    moment: float = 0.0,
    decay: float = 5e-5,
) -> None:
    """Make the network 32C4-MP2-64C4-MP3-32N-4N; a quarter of the images is for validation.

    Args:
        samples: how many images.
        size: their height and width (256 in Veles).
        noise: the standard deviation of the noise; a line is 1 on 0.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
        rate: the learning rate.
        moment: the momentum.
        decay: the weight decay.
    """
    images, angles = line_images(samples, size, noise)
    held = samples // 4
    filling = FanIn()
    standard_workflow(
        wf,
        loader=ArrayLoader(
            wf,
            images[held:],
            angles[held:],
            validation=(images[:held], angles[:held]),
            minibatch_size=minibatch,
        ),
        layers=[
            conv(32, 4, "tanh", weights_filling=filling),
            max_pool(2),
            conv(64, 4, "tanh", weights_filling=filling),
            max_pool(3),
            tanh(32, weights_filling=filling),
            softmax(4, weights_filling=filling),
        ],
        max_epochs=epochs,
        learning_rate=rate,
        gradient_moment=moment,
        weights_decay=decay,
    )
