"""Small networks on data given by hand, to run layer by layer, and numerical gradients of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from harness import workflow_on

from veloflow.core import Bool, Input, Settings, Unit
from veloflow.core.checks import data_graph
from veloflow.devices import Array, Device
from veloflow.units import StandardUnits, standard_workflow
from veloflow.units.loader import TRAIN


class Given(Unit):
    """Has the attributes that a test gives it; arrays of floats get the run's dtype."""

    def __init__(self, wf, *, name="given", **values):
        super().__init__(wf, name=name)
        self.give(**values)

    def give(self, **values):
        """Set attributes; an array that exists is written to, not replaced."""
        for key, value in values.items():
            old = getattr(self, key, None)
            if isinstance(old, Array):
                old.write(value)
            elif isinstance(old, Bool):
                old.set(value)
            elif isinstance(value, np.ndarray):
                is_float = value.dtype.kind == "f"
                dtype = self.service(Settings).dtype if is_float else value.dtype
                setattr(self, key, self.service(Device).asarray(value, dtype))
            else:
                setattr(self, key, Bool(value) if isinstance(value, bool) else value)

    def run(self):
        """Do nothing: everything is given."""


class Reader(Unit):
    """Reads an array, so that whoever makes it knows that it is wanted."""

    value = Input[Array]()

    def run(self):
        """Do nothing: the link is all."""


def minibatch(x, *, labels=None, targets=None, size=None, kind=TRAIN, epoch=0, position=0):
    """Return what a loader would say of this minibatch."""
    values = {
        "minibatch_data": x,
        "minibatch_labels": np.zeros(len(x)) if labels is None else labels,
        "minibatch_size": len(x) if size is None else size,
        "minibatch_class": kind,
        "minibatch_position": position,
        "epoch_number": epoch,
        "last_minibatch": False,
        "epoch_ended": False,
    }
    values["minibatch_labels"] = np.asarray(values["minibatch_labels"], np.int32)
    return values if targets is None else {**values, "minibatch_targets": targets}


@dataclass
class Network:
    """A standard workflow on given data, set up but run by hand."""

    given: Given
    units: StandardUnits

    def forward(self):
        """Run the forward pass; return the loss that the gradients are of, a mean."""
        for unit in (*self.units.forwards, self.units.evaluator):
            unit.run()
        evaluator = self.units.evaluator
        mean = evaluator.loss / max(evaluator.samples, 1)
        is_mse = hasattr(evaluator, "root")
        return mean * evaluator.output.size / len(evaluator.output) / 2 if is_mse else mean

    def backward(self):
        """Run the backward pass, which moves the parameters."""
        for unit in self.units.backward:
            unit.run()

    @property
    def parameters(self):
        """The parameters of all layers, the first layer's first."""
        return [one for unit in self.units.forwards for one in unit.parameters()]

    @property
    def err_input(self):
        """The gradient by the network's input, as it is now."""
        return np.array(self.units.gradients[0].err_input.read())


def network(
    layers, x, *, labels=None, targets=None, size=None, lengths=None, device=None,
    dtype="float64", seed=1, **more,
):  # fmt: skip
    """Return a network of ``layers`` on a minibatch; ``more`` goes to standard_workflow.

    Its learning rate is 0 unless given, so that gradients can be looked at in peace.
    """
    wf = workflow_on(device, seed=seed, dtype=dtype)
    given = Given(wf, **minibatch(x, labels=labels, targets=targets, size=size))
    if lengths is not None:
        given.give(minibatch_lengths=np.asarray(lengths, np.int32))
    loss = "softmax" if targets is None else "mse"
    rates = {"learning_rate": 0.0, "weights_decay": 0.0, **more}
    units = standard_workflow(wf, loader=given, layers=layers, loss=loss, **rates)
    if targets is not None:
        units.evaluator.root = False
    reader = Reader(wf, name="reader").insert_after(units.gradients[0])
    reader.link_data(units.gradients[0], value="err_input")
    wf.set_up()
    return Network(given, units)


def numerical_gradient(net, array, step=1e-5):
    """Return the central differences of the network's loss by the elements of a float64 array."""
    values = np.array(array.read())
    gradient = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        losses = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            array.write(moved)
            losses.append(net.forward())
        gradient[place] = (losses[0] - losses[1]) / (2 * step)
    array.write(values)
    return gradient


def graph_of(wf):
    """Return names, control links in order, data links and gates of a workflow."""
    control = {unit.name: [one.name for one in wf.successors(unit)] for unit in wf}
    data = {(a.name, b.name, *d.values()) for a, b, d in data_graph(wf).edges(data=True)}
    decision = wf["DecisionGD"]
    names = {id(decision.complete): "complete", id(decision.gd_skip): "gd_skip"}
    gates = {
        unit.name: [
            (gate.sign, [names[id(one)] for one in gate.operands]) if gate.sign
            else names.get(id(gate))
            for gate in (unit.gate_block, unit.gate_skip)
        ]
        for unit in wf
    }  # fmt: skip
    return control, data, gates
