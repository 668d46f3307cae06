"""Policies of learning rates against their formulas, and the unit that applies them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness import trained, workflow_on
from networks import Given, network

from veloflow.errors import GraphError, InputError
from veloflow.units import (
    All2AllTanh,
    ArbitraryStep,
    Cosine,
    Exp,
    Fixed,
    GDTanh,
    Inv,
    LearningRateAdjust,
    StepExp,
    WarmUp,
    WineLoader,
    dropout,
    softmax,
    standard_workflow,
    tanh,
)
from veloflow.units.loader import TEST, TRAIN, VALIDATION

PLACES = (0, 1, 2, 3, 9, 10, 11, 100, 12345)
FORMULAS = {
    Fixed(): lambda i: 0.3,
    Exp(0.99): lambda i: 0.3 * 0.99**i,
    Exp(0.9, a=0.25): lambda i: 0.3 * 0.9 ** (0.25 * i),
    StepExp(0.5, 10): lambda i: 0.3 * 0.5 ** (i // 10),
    Inv(1e-4, 0.75): lambda i: 0.3 * (1 + 1e-4 * i) ** -0.75,
    Cosine(100): lambda i: 0.15 * (1 + math.cos(math.pi * min(i, 100) / 100)),
    Cosine(10, floor=0.5, restarts=True): lambda i: (
        0.15 + 0.075 * (1 + math.cos(math.pi * (i % 10) / 10))
    ),
    WarmUp(10, Exp(0.9), start=1.0): lambda i: 0.3 * 0.9 ** max(i - 10, 0),
}


@pytest.mark.parametrize("policy", FORMULAS, ids=repr)
def test_policy_follows_its_formula(policy):
    for i in PLACES:
        assert policy.rate(0.3, i) == pytest.approx(FORMULAS[policy](i), rel=1e-14)
    assert policy.rate(0.3, 0) == 0.3


def test_warm_up_rises_to_the_base_and_goes_on():
    policy = WarmUp(4, Cosine(2))
    assert [policy.rate(2.0, i) for i in range(5)] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert policy.rate(2.0, 6) == 0.0


def test_arbitrary_steps():
    policy = ArbitraryStep((1, 3), (0.1, 2), (5, 1))
    assert [policy.rate(2.0, i) for i in range(6)] == [2.0] * 3 + [0.2] * 2 + [10.0]


def test_last_coefficient_stays_unless_another_is_given():
    assert ArbitraryStep((1, 3), (0.1, 2)).rate(2.0, 1000) == 0.2
    assert ArbitraryStep((1, 3), (0.1, 2), after=0.0).rate(2.0, 5) == 0.0  # as in Veles
    assert ArbitraryStep((1, 3), after=0.5).rate(2.0, 3) == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Exp(-0.5),
        lambda: Exp(0.5, a=float("nan")),
        lambda: StepExp(0.5, 0),
        lambda: Inv(-1.0, 1.0),
        lambda: Inv(1.0, float("inf")),
        ArbitraryStep,
        lambda: ArbitraryStep((1, 0)),
        lambda: ArbitraryStep((-1, 10)),
        lambda: ArbitraryStep((1, 10), after=-1.0),
        lambda: Cosine(0),
        lambda: Cosine(10, floor=-0.1),
        lambda: WarmUp(0),
        lambda: WarmUp(5, start=float("nan")),
    ],
)
def test_policies_without_sense_are_refused(make):
    with pytest.raises(InputError):
        make()


def adjusted(policy, **options):
    """Return a gradient unit, what adjusts it, and a setter of the minibatch's class."""
    wf = workflow_on()
    given = Given(wf, minibatch_class=TRAIN)
    gradient = GDTanh(wf, All2AllTanh(wf, 2), learning_rate=0.5, learning_rate_bias=0.25)
    unit = LearningRateAdjust(wf, policy, **options).link_data(given, "minibatch_class")
    unit.add(gradient)
    unit.initialize()
    return gradient, unit, given


def rates(gradient):
    """Return the rates of weights and bias."""
    return gradient.weights_numbers.rate, gradient.bias_numbers.rate


def test_only_training_counts():
    gradient, unit, given = adjusted(StepExp(0.5, 1))
    for kind in (TEST, VALIDATION, TRAIN, VALIDATION, TRAIN):
        given.give(minibatch_class=kind)
        unit.run()
    assert unit.minibatches == 2
    assert rates(gradient) == (0.125, 0.0625)


def test_first_minibatch_has_a_rate_of_the_policy_too():
    assert rates(adjusted(ArbitraryStep((0.5, 10), (1, 10)))[0]) == (0.25, 0.125)


def test_bias_may_have_its_own_policy():
    gradient, unit, _ = adjusted(StepExp(0.5, 1), bias_policy=Fixed())
    unit.run()
    assert rates(gradient) == (0.25, 0.25)


def test_units_may_have_their_own_policy():
    wf = workflow_on()
    layers = [GDTanh(wf, All2AllTanh(wf, 2), learning_rate=1.0) for _ in range(3)]
    unit = LearningRateAdjust(wf, Exp(0.5)).link_data(
        Given(wf, minibatch_class=TRAIN), "minibatch_class"
    )
    unit.add(layers[0])
    unit.add(layers[1], policy=Exp(0.1))
    unit.add(layers[2], bias_policy=Fixed())
    unit.initialize()
    unit.run()
    assert [rates(one) for one in layers] == [(0.5, 0.5), (0.1, 0.1), (0.5, 1.0)]


def test_unit_that_adjusts_nothing_is_refused():
    with pytest.raises(GraphError, match=r"adjusts nothing.*\.add\("):
        LearningRateAdjust(workflow_on(), Fixed()).initialize()


def test_restored_unit_goes_on_counting():
    _, unit, _ = adjusted(Exp(0.9))
    for _ in range(7):
        unit.run()
    gradient, other, _ = adjusted(Exp(0.9))
    other.restore(unit.state())
    assert rates(gradient) == (0.5 * 0.9**7, 0.25 * 0.9**7)
    other.run()
    assert rates(gradient) == (0.5 * 0.9**8, 0.25 * 0.9**8)


def test_run_counts_its_training_minibatches():
    def build(wf):
        loader = WineLoader(wf, minibatch_size=30, validation_ratio=0.25)
        layers = [tanh(8, learning_rate=0.1), dropout(0.1), softmax(3)]
        standard_workflow(
            wf, loader=loader, layers=layers, learning_rate=0.2, max_epochs=3, policy=Exp(0.9)
        )

    wf = trained(build)
    per_epoch = -(-wf["WineLoader"].class_lengths[TRAIN] // 30)
    assert wf["LearningRateAdjust"].minibatches == 3 * per_epoch
    assert rates(wf["GDTanh"]) == (pytest.approx(0.1 * 0.9 ** (3 * per_epoch)),) * 2
    assert rates(wf["GDSoftmax"]) == (pytest.approx(0.2 * 0.9 ** (3 * per_epoch)),) * 2


def test_step_is_made_with_the_rate_of_its_minibatch():
    net = network([softmax(3)], np.eye(4), labels=[0, 1, 2, 0], learning_rate=1.0, policy=Exp(0.5))
    parameter = net.parameters[0]
    for i in range(4):
        before = np.array(parameter.value.read())
        net.forward()
        net.backward()
        net.units.adjust.run()
        expected = before - 0.5**i * np.array(parameter.gradient.read())
        np.testing.assert_allclose(parameter.value.read(), expected, rtol=1e-12)
