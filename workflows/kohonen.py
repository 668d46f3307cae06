"""A self-organizing map of points in a plane: Veles's Kohonen demo, on points made here."""

import numpy as np

from veloflow import Workflow
from veloflow.units import ArrayLoader, kohonen_workflow


def points(count: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 2) on a ring and in a cloud within it, and which of both each is of."""
    random = np.random.default_rng(2015)
    on_ring = np.arange(count) % 4 > 0
    angle = random.uniform(0, 2 * np.pi, count)
    radius = np.where(on_ring, random.normal(0.8, 0.05, count), random.normal(0, 0.2, count))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), on_ring.astype(int)


def build(
    wf: Workflow,
    *,
    side: int = 8,
    online: bool = False,
    plane: bool = False,
    epochs: int = 160,
    minibatch: int = 10,
    rate: float = 0.05,
    rate_decay: float = 0.01,
    radius: float = 1.0,
    radius_decay: float | None = None,
) -> None:
    """Make a map of side x side neurons.

    Args:
        side: neurons in a row, and rows.
        online: move the neurons sample by sample, as Veles did, and not once an epoch.
        plane: begin on the plane of the points' principal components, not near the origin.
        epochs: passes over the points.
        minibatch: points in a minibatch.
        rate: how far a point pulls a neuron, with ``online``.
        rate_decay: how fast that fades.
        radius: how far on the grid, [-1, 1] in both directions, a point pulls.
        radius_decay: how fast that shrinks; by default 0.01 with ``online``, as in Veles, else 0.3.
    """
    data, kinds = points()
    kohonen_workflow(
        wf,
        loader=ArrayLoader(wf, data, kinds, minibatch_size=minibatch),
        shape=(side, side),
        rule="online" if online else "batch",
        rate=rate,
        rate_decay=rate_decay,
        radius=radius,
        radius_decay=(0.01 if online else 0.3) if radius_decay is None else radius_decay,
        classes=2,
        plane_of=data if plane else None,
        max_epochs=epochs,
    )
