"""Solvers against torch.optim for a hundred steps, alone and several in one network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness import workflow_on
from networks import Given, Network, minibatch, network

from veloflow.core import Bool
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Parameters
from veloflow.errors import GraphError, InputError
from veloflow.units import (
    AdaDelta,
    AdaGrad,
    Adam,
    AdamW,
    All2AllTanh,
    GDTanh,
    Hyperparameters,
    Momentum,
    Nesterov,
    RMSprop,
    Rprop,
    linear,
    softmax,
    standard_workflow,
    tanh,
)
from veloflow.units.solvers import SOLVERS, solver_of
from veloflow.units.update import Moved, Update, declare_slots

STEPS = 100
optim = torch.optim


class Counter:
    """Counts the steps of a parameter."""

    def __init__(self):
        self.steps = 0


#: solver, numbers, and the optimizer of torch that must go the same way
CASES = {
    "momentum": (
        Momentum(), Hyperparameters(0.02, 0.9, 0.1),
        lambda w: optim.SGD(w, lr=0.02, momentum=0.9, weight_decay=0.1),
    ),
    "nesterov": (
        Nesterov(), Hyperparameters(0.02, 0.9, 0.1),
        lambda w: optim.SGD(w, lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=True),
    ),
    "adagrad": (
        AdaGrad(rate_decay=0.01, initial=0.3), Hyperparameters(0.1, decay=0.1),
        lambda w: optim.Adagrad(
            w, lr=0.1, lr_decay=0.01, initial_accumulator_value=0.3, weight_decay=0.1
        ),
    ),
    "adadelta": (
        AdaDelta(rho=0.8), Hyperparameters(1.0, decay=0.01),
        lambda w: optim.Adadelta(w, lr=1.0, rho=0.8, weight_decay=0.01),
    ),
    "rmsprop": (
        RMSprop(rho=0.9), Hyperparameters(0.01, 0.5, 0.01),
        lambda w: optim.RMSprop(w, lr=0.01, alpha=0.9, momentum=0.5, weight_decay=0.01),
    ),
    "rmsprop centred": (
        RMSprop(rho=0.9, centered=True), Hyperparameters(0.01),
        lambda w: optim.RMSprop(w, lr=0.01, alpha=0.9, centered=True),
    ),
    "rprop": (
        Rprop(), Hyperparameters(0.01),
        lambda w: optim.Rprop(w, lr=0.01),
    ),
    "adam": (
        Adam(beta1=0.8), Hyperparameters(0.05, decay=0.1),
        lambda w: optim.Adam(w, lr=0.05, betas=(0.8, 0.999), weight_decay=0.1),
    ),
    "adamw": (
        AdamW(), Hyperparameters(0.05, decay=0.3),
        lambda w: optim.AdamW(w, lr=0.05, weight_decay=0.3),
    ),
}  # fmt: skip


@pytest.fixture(params=["numpy", "opencl"])
def device(request):
    """Return each kind of device in turn."""
    if request.param == "numpy":
        return NumpyDevice()
    return request.getfixturevalue("opencl_device")


def parameters_of(device, shapes, slots=()):
    """Return allocated float64 parameters of these shapes with standard normal values."""
    parameters = Parameters(device, "float64")
    for number, (shape, names) in enumerate(zip(shapes, slots, strict=True)):
        one = parameters.declare(f"p{number}", shape)
        for name in names:
            one.slot(name)
    parameters.allocate()
    random = np.random.default_rng(4)
    for one in parameters:
        one.value.write(random.standard_normal(one.shape))
    return parameters


def gradient_at(w, step):
    """Return a gradient that turns its sign now and then, as Rprop needs."""
    random = np.random.default_rng(step // 3)
    return 0.5 * w + random.standard_normal(w.shape)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_goes_where_torch_goes(device, case):
    solver, numbers, optimizer = case
    parameters = parameters_of(device, [(7, 11)], [solver.slots])
    one = parameters["p0"]
    w = torch.tensor(np.array(one.value.read()), requires_grad=True)
    judge = optimizer([w])
    update = Update(parameters, [Moved(one, solver, numbers, Counter())])
    for step in range(STEPS):
        g = gradient_at(w.detach().numpy(), step)
        one.gradient.write(g)
        w.grad = torch.from_numpy(g.copy())
        update()
        judge.step()
        found = np.asarray(one.value.read())
        np.testing.assert_allclose(found, w.detach().numpy(), rtol=1e-6, atol=1e-9)


def test_many_parameters_move_as_each_would_alone(device):
    """Different numbers in one launch, in float64 to the last bits, whatever lies beside."""
    kinds = [
        (Momentum(), Hyperparameters(0.1, 0.9, 0.01)),
        (Momentum(), Hyperparameters(0.2, 0.0, 0.0)),
        (Adam(), Hyperparameters(0.01, decay=0.1, l1=0.5)),
        (Momentum(), Hyperparameters(0.1, 0.9, 0.01)),
        (Adam(beta1=0.5), Hyperparameters(0.03)),
    ]
    shapes = [(5, 30), (5,), (300,), (2, 2), (129,)]
    slots = [solver.slots for solver, _ in kinds]
    together, alone = (parameters_of(device, shapes, slots) for _ in range(2))
    counter = Counter()
    moved = [Moved(p, s, n, counter) for p, (s, n) in zip(together, kinds, strict=True)]
    updates = [
        Update(alone, [Moved(p, s, n, Counter())]) for p, (s, n) in zip(alone, kinds, strict=True)
    ]
    update = Update(together, moved)
    for step in range(5):
        if step == 3:
            kinds[0][1].rate = 0.05
        for parameters in (together, alone):
            for one in parameters:
                one.gradient.write(gradient_at(np.asarray(one.value.read()), step))
        update()
        for single in updates:
            single()
    assert counter.steps == 5
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.value.read(), other.value.read())


def test_one_launch_for_a_whole_network():
    net = network(
        [tanh(5), tanh(4), softmax(3)],
        np.eye(6, 4),
        labels=[0, 1, 2] * 2,
        learning_rate=0.1,
        learning_rate_bias=0.2,
        weights_decay=0.01,
        gradient_moment=0.9,
    )
    net.forward()
    net.backward()
    (solved,) = net.units.gradients[0]._update._solved
    assert len(solved._launches) == 1
    assert [unit._update is None for unit in net.units.gradients] == [False, True, True]
    assert [unit.steps for unit in net.units.gradients] == [1, 1, 1]


def test_units_with_gates_of_their_own_move_alone(numpy_device):
    """A frozen layer stands still, and the others move without it."""
    wf = workflow_on(numpy_device, dtype="float64")
    given = Given(wf, **minibatch(np.eye(6, 4), labels=[0, 1, 2] * 2))
    units = standard_workflow(
        wf, loader=given, layers=[tanh(5), tanh(4), softmax(3)], learning_rate=0.1
    )
    units.gradients[1].gate_skip = Bool(True)
    wf.set_up()
    net = Network(given, units)
    before = [np.array(one.value.read()) for one in net.parameters]
    net.forward()
    for unit in (units.gradients[2], units.gradients[0]):
        unit.run()
    is_moved = [
        not np.array_equal(one.value.read(), was)
        for one, was in zip(net.parameters, before, strict=True)
    ]
    assert is_moved[4:] == [True, True]
    assert is_moved[2:4] == [False, False]
    assert [unit.steps for unit in units.gradients] == [1, 0, 1]


def test_a_unit_left_waiting_is_an_error():
    net = network([tanh(5), softmax(3)], np.eye(6, 4), labels=[0, 1, 2] * 2)
    first, last = net.units.gradients
    net.forward()
    with pytest.raises(GraphError, match=r"'GDSoftmax' and 'GDTanh' were to move .* together"):
        first.run()
    last.run()
    with pytest.raises(GraphError, match="were to move their parameters together"):
        last.run()


def test_clipping_by_norm_is_torchs(device):
    numbers = [Hyperparameters(0.1, clip_norm=1.5), Hyperparameters(0.1, clip_norm=1.5)]
    parameters = parameters_of(device, [(9, 20), (9,)], [("velocity",)] * 2)
    ours = [*parameters]
    theirs = [torch.tensor(np.array(one.value.read()), requires_grad=True) for one in ours]
    judge = optim.SGD(theirs, lr=0.1)
    update = Update(
        parameters,
        [Moved(p, Momentum(), n, Counter()) for p, n in zip(ours, numbers, strict=True)],
    )
    for step in range(6):
        for one, other in zip(ours, theirs, strict=True):
            g = (0.05 if step % 2 else 3.0) * gradient_at(other.detach().numpy(), step)
            one.gradient.write(g)
            other.grad = torch.from_numpy(g)
        torch.nn.utils.clip_grad_norm_(theirs, 1.5)
        update()
        judge.step()
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.value.read(), other.detach().numpy(), rtol=1e-9)


def test_clipping_by_value_and_largest_norm(device):
    numbers = Hyperparameters(1.0, clip_value=0.5, max_norm=1.0)
    parameters = parameters_of(device, [(4, 3)], [("velocity",)])
    one = parameters["p0"]
    w, g = np.array(one.value.read()), np.linspace(-2, 2, 12).reshape(4, 3)
    one.gradient.write(g)
    Update(parameters, [Moved(one, Momentum(), numbers, Counter())])()
    expected = w - np.clip(g, -0.5, 0.5)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    assert (norms > 1).any()
    expected *= np.where(norms > 1, 1 / norms, 1)
    np.testing.assert_allclose(one.value.read(), expected, rtol=1e-12)


def test_a_step_for_several_minibatches_is_by_their_mean(device):
    parameters = parameters_of(device, [(4, 3)], [()])
    one, counter = parameters["p0"], Counter()
    moved = [Moved(one, Momentum(), Hyperparameters(0.1), counter)]
    declare_slots(moved, accumulate=3)
    parameters = parameters_of(device, [(4, 3)], [tuple(one.slots)])
    one = parameters["p0"]
    update = Update(
        parameters, [Moved(one, Momentum(), Hyperparameters(0.1), counter)], accumulate=3
    )
    w = np.array(one.value.read())
    gradients = [np.full((4, 3), number) for number in (1.0, 2.0, 6.0, 5.0)]
    for number, g in enumerate(gradients):
        one.gradient.write(g)
        update()
        moves = 0.3 if number >= 2 else 0.0
        np.testing.assert_allclose(one.value.read(), w - moves, rtol=1e-12)
    assert (counter.steps, update.gathered) == (1, 1)


def test_names():
    assert [*SOLVERS] == [
        "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "rprop", "adam", "adamw"
    ]  # fmt: skip
    assert solver_of("Adam") == Adam()
    assert solver_of(Adam(beta1=0.5)) == Adam(beta1=0.5)
    with pytest.raises(InputError, match=r"no solver 'adm' \(did you mean 'adam'\?\)"):
        solver_of("adm")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(beta1=1.0), r"Adam: beta1 is 1.0; give one in \[0, 1\)"),
        (lambda: AdaDelta(rho=-0.1), "AdaDelta: rho"),
        (lambda: RMSprop(eps=float("nan")), "RMSprop: eps is nan; give one at least 0"),
        (lambda: Rprop(plus=0.9), "Rprop: plus"),
        (lambda: AdaGrad(rate_decay=-1), "AdaGrad: rate_decay"),
    ],
)
def test_numbers_without_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"solver": "adam", "gradient_moment": 0.9}, "'GDSoftmax': Adam has no gradient_moment"),
        ({"solver": "nesterov"}, "Nesterov is nothing without gradient_moment"),
        ({"solver": "adem"}, "did you mean 'adam'"),
        ({"accumulate": 0}, "accumulate is 0"),
    ],
)
def test_rates_without_sense_are_refused(rates, message):
    with pytest.raises(InputError, match=message):
        network([softmax(3)], np.eye(6, 4), labels=[0, 1, 2] * 2, **rates)


def test_solver_per_layer_and_for_bias():
    net = network(
        [tanh(5, solver="rprop"), linear(3, solver_bias=Adam(beta1=0.5))],
        np.eye(6, 4),
        targets=np.ones((6, 3)),
        solver=AdamW(),
    )
    first, last = net.units.gradients
    assert (first.weights_solver, first.bias_solver) == (Rprop(), Rprop())
    assert (last.weights_solver, last.bias_solver) == (AdamW(), Adam(beta1=0.5))
    before = [np.array(one.value.read()) for one in net.parameters]
    net.forward()
    for unit in net.units.gradients:
        unit.weights_numbers.rate = unit.bias_numbers.rate = 0.1
    net.backward()
    for one, was in zip(net.parameters, before, strict=True):
        assert np.abs(one.value.read() - was).max() == pytest.approx(0.1, rel=1e-3)


def test_rate_is_the_solvers_usual_one_unless_given():
    wf = workflow_on()
    layer = All2AllTanh(wf, 3)
    assert GDTanh(wf, layer, solver="adam").weights_numbers.rate == 0.001
    assert GDTanh(wf, layer, solver="adam", learning_rate=0.5).bias_numbers.rate == 0.5
    unit = GDTanh(wf, layer, solver_bias="adadelta")
    assert (unit.weights_numbers.rate, unit.bias_numbers.rate) == (0.01, 1.0)
