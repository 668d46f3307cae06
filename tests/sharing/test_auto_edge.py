"""How near to the edge a rate is: two steps tell of rate, momentum and curvature."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.sharing.auto_edge import Edge
from veloflow.sharing.auto_guard import Guard

CURVATURES = np.array([4.0, 1.0, 0.25])


def trained(rate, momentum, steps, *, stale=0, curvatures=CURVATURES, edge=None):
    """Return the losses of a quadratic bowl with a heavy ball whose gradients are so many old."""
    places = [np.ones(len(curvatures))] * (stale + 1)
    velocity = np.zeros(len(curvatures))
    losses = []
    for _ in range(steps):
        losses.append(float(curvatures @ places[-1] ** 2) / 2)
        gradient = curvatures * places[-1 - stale]
        velocity = momentum * velocity - rate * gradient
        if edge is not None:
            edge.step(gradient.astype(np.float32), velocity.astype(np.float32), losses[-1])
        places = [*places[1:], places[-1] + velocity]
    return losses


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_it_is_the_length_of_a_step_by_the_curvature(momentum):
    edge = Edge()
    trained(0.01, momentum, 2, curvatures=np.array([3.0]), edge=edge)
    exact = 0.01 * 3.0 / (1 - momentum)
    assert edge.kappa == pytest.approx(exact, rel=1e-3)


def test_of_many_curvatures_it_is_between_the_mean_and_the_largest():
    edge = Edge()
    trained(0.01, 0.9, 2, edge=edge)
    mean = 0.01 * CURVATURES.mean() / 0.1
    assert mean < edge.kappa < 0.01 * CURVATURES.max() / 0.1


@pytest.mark.parametrize("stale", [1, 2, 4, 7])
@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_stale_gradients_are_stable_to_one_by_their_staleness(stale, momentum):
    """The rule that the module states: s κ < 1, within a third."""
    for share, is_stable in ((0.95, True), (1.4, False)):
        rate = share / stale * (1 - momentum)
        steps = int(200 / (1 - momentum) ** 0.5)
        losses = trained(rate, momentum, steps, stale=stale, curvatures=np.array([1.0]))
        assert (max(losses[-100:]) < losses[0]) == is_stable


def test_steps_that_tell_nothing_are_passed_over():
    edge = Edge()
    one = np.ones(2, np.float32)
    edge.step(one * 0, one, 1.0)
    edge.step(one, -one, 0.0)
    edge.step(one, -one, float("nan"))
    edge.step(one, one, 1.0)  # uphill
    assert edge.kappa is None
    edge.step(one, -0.01 * one, 1.0)
    edge.step(one, -0.019 * one, 1.0)
    assert edge.kappa == pytest.approx(0.01 * 2 / 2 / 0.1, rel=1e-5)
    edge.step(one, -5 * one, 1.0)
    assert edge.kappa == pytest.approx(0.1, rel=1e-5)


def test_a_mode_that_diverges_says_that_the_edge_is_near():
    guard = Guard()
    assert guard.edge(None) is None
    assert guard.edge(0.08) == 0.08
    guard.begin("groups", is_trial=True)
    guard.bar()
    assert guard.edge(None) == guard.edge(0.08) > 0.3
    assert guard.edge(0.7) == 0.7
