"""What codecs have left out before a change of mode: added once, by whoever can."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Parameters
from veloflow.errors import CheckpointError
from veloflow.runtime.farms.handover import Handover, Leftover

ONE, TWO = np.array([1.0, 2.0], np.float32), np.array([3.0, -2.0], np.float32)


class Heirs:
    """A crew that only inherits."""

    def __init__(self):
        self.has = []

    def inherit(self, residuals):
        self.has += list(residuals)


@pytest.fixture
def handover():
    """Parameters of two numbers, a crew and what hands over between them."""
    parameters = Parameters(NumpyDevice())
    parameters.declare("w", (2,))
    parameters.allocate()
    crew = Heirs()
    return parameters, crew, Handover(parameters, crew)


def padded(parameters, vector):
    """The vector as long as the flat array is."""
    found = np.zeros(parameters.values.size, np.float32)
    found[: len(vector)] = vector
    return found


def left(parameters, *, is_local):
    """What two slaves have left out."""
    return Leftover(is_local, [padded(parameters, one) for one in (ONE, TWO)])


@pytest.mark.parametrize("is_local", [False, True])
def test_where_updates_are_alike_slaves_inherit(handover, is_local):
    parameters, crew, one = handover
    one.pass_on(left(parameters, is_local=is_local), to_local=is_local, codec="int8")
    assert len(crew.has) == 2
    assert not parameters.values.read().any()


@pytest.mark.parametrize(("to_local", "codec"), [(True, "plain"), (False, "onebit")])
def test_what_stretches_have_changed_is_added_to_the_parameters(handover, to_local, codec):
    parameters, crew, one = handover
    one.pass_on(left(parameters, is_local=True), to_local=to_local, codec=codec)
    assert parameters.values.read()[:2].tolist() == [2.0, 0.0]  # the mean
    assert not crew.has


def test_gradients_are_added_to_the_next_gradient_once(handover):
    parameters, crew, one = handover
    one.pass_on(left(parameters, is_local=False), to_local=False, codec="plain")
    assert not crew.has
    for expected in ([5.0, 1.0], [1.0, 1.0]):
        parameters.gradients.write(padded(parameters, [1.0, 1.0]))
        one.settle()
        assert parameters.gradients.read()[:2].tolist() == expected


def test_what_is_owed_is_in_checkpoints(handover):
    parameters, crew, one = handover
    assert one.state() == {}
    one.pass_on(left(parameters, is_local=False), to_local=False, codec="plain")
    another = Handover(parameters, crew)
    another.restore(one.state())
    another.settle()
    assert parameters.gradients.read()[:2].tolist() == [4.0, 0.0]
    with pytest.raises(CheckpointError, match="owes in the checkpoint is of another size"):
        another.restore({"auto_owed": [np.zeros(1, np.float32)]})


def test_gradients_are_dropped_where_slaves_take_the_steps(handover):
    parameters, crew, one = handover
    one.pass_on(left(parameters, is_local=False), to_local=True, codec="int8")
    assert not crew.has
    assert one.state() == {}
