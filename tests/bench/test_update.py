"""The update of a whole network in one launch, beside one launch a parameter and torch.optim."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from veloflow.devices.benchmark import seconds_of_call
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Parameters
from veloflow.units.solvers import Adam, Hyperparameters, Momentum
from veloflow.units.update import Moved, Update, declare_slots

pytestmark = pytest.mark.bench

#: name -> the shapes of its parameters
NETWORKS = {
    "784-100-10": [(100, 784), (100,), (10, 100), (10,)],
    "LeNet": [(20, 25), (20,), (50, 500), (50,), (500, 800), (500,), (10, 500), (10,)],
}
SOLVERS = {"momentum": (Momentum(), 0.9), "adam": (Adam(), 0.0)}
TURNS = 7


class Counter:
    """Counts the steps of a parameter."""

    steps = 0


def ours(device, shapes, solver, moment):
    """Return an update of all parameters at once, and what updates one after another."""
    parameters = Parameters(device)
    counter = Counter()
    moved = []
    for number, shape in enumerate(shapes):
        decay = 5e-4 if len(shape) > 1 else 0.0
        one = parameters.declare(str(number), shape)
        moved.append(Moved(one, solver, Hyperparameters(0.01, moment, decay), counter))
    declare_slots(moved)
    parameters.allocate()
    parameters.gradients.write(np.full(parameters.gradients.size, 1e-3, np.float32))
    single = [Update(parameters, [one]) for one in moved]

    def each():
        for update in single:
            update()

    return Update(parameters, moved), each


def theirs(torch, shapes, name):
    """Return a step of torch.optim with the same numbers."""
    parameters = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    for one in parameters:
        one.grad = torch.full(one.shape, 1e-3)
    groups = [{"params": [p], "weight_decay": 5e-4 if p.ndim > 1 else 0.0} for p in parameters]
    if name == "adam":
        return torch.optim.Adam(groups, lr=0.01).step
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9).step


@pytest.mark.parametrize("kind", ["numpy", "opencl"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_one_launch_moves_a_network(request, kind, solver, network):
    torch = pytest.importorskip("torch")
    device = NumpyDevice() if kind == "numpy" else request.getfixturevalue("opencl_device")
    shapes = NETWORKS[network]
    whole, each = ours(device, shapes, *SOLVERS[solver])
    step = theirs(torch, shapes, solver)
    idle = NumpyDevice()
    times = {"whole": [], "each": [], "torch": []}
    for _ in range(TURNS):
        times["whole"].append(seconds_of_call(whole, device, 0.05))
        times["each"].append(seconds_of_call(each, device, 0.05))
        times["torch"].append(seconds_of_call(step, idle, 0.05))
    middle = {name: 1e6 * median(values) for name, values in times.items()}
    print(
        f"\n{network}, {solver}, {kind}: one launch {middle['whole']:.0f} us, a launch each "
        f"{middle['each']:.0f} us ({middle['whole'] / middle['each']:.2f}), torch.optim "
        f"{middle['torch']:.0f} us ({middle['whole'] / middle['torch']:.2f})"
    )
