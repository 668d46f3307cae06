"""A slave's own copy of the parameters and of what solvers keep, moved as the master's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from veloflow.core.checks import control_order
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Mover

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Payload, Workflow
    from veloflow.devices import Array
    from veloflow.devices.parameters import Parameters

__all__ = ["Replica"]


class Replica:
    """The parameters of a slave's workflow, with the units that move them.

    A master moves its parameters with NumPy. So does this, for the same bits: in the device's own
    memory, which must be the host's.

    Args:
        parameters: of the workflow.
        movers: the units, by path, in the order in which a master runs them.
    """

    def __init__(self, parameters: Parameters, movers: Mapping[str, Mover]) -> None:
        self._parameters = parameters
        self._movers = movers
        self._total = cast("NDArray[np.floating]", parameters.device.host(parameters.gradients))

    @classmethod
    def of(cls, workflow: Workflow, parameters: Parameters) -> Replica | None:
        """Return the replica of a workflow that is set up; None where it cannot have one."""
        movers = {one.path: one for one in control_order(workflow) if isinstance(one, Mover)}
        if not movers or isinstance(parameters.device, NumpyDevice):
            return cls(parameters, movers) if movers else None
        seen = parameters.mirrored(NumpyDevice())
        if seen is None:
            return None
        for one in movers.values():
            one.move_on(seen)
        return cls(seen, movers)

    @property
    def size(self) -> int:
        """How many numbers the parameters and what solvers keep have together."""
        return sum(one.size for one in self._arrays())

    def _arrays(self) -> list[Array]:
        return [self._parameters.values, *self._parameters.slots.values()]

    def load(self, state: NDArray[np.floating], steps: Mapping[str, Payload]) -> None:
        """Take the parameters and what solvers keep, one after another, and what else there is."""
        size = self._parameters.values.size
        for place, array in enumerate(self._arrays()):
            array.write(state[place * size : (place + 1) * size])
        for path, step in steps.items():
            self._movers[path].take_step(step)

    def save(self, out: NDArray[np.floating]) -> dict[str, Payload]:
        """Write the parameters and what solvers keep into ``out``; return what else there is."""
        size = self._parameters.values.size
        for place, array in enumerate(self._arrays()):
            np.copyto(out[place * size : (place + 1) * size], array.read())
        return {path: unit.make_step() for path, unit in self._movers.items()}

    def move(self, gradients: Sequence[NDArray[np.floating]]) -> None:
        """Add up the gradients of a minibatch's shards, in order, and move the parameters.

        Nothing may be under way on the device.
        """
        total = self._total
        if len(gradients) == 1:
            np.copyto(total, gradients[0])
        else:
            np.add(gradients[0], gradients[1], out=total)
        for gradient in gradients[2:]:
            np.add(total, gradient, out=total)
        for unit in self._movers.values():
            unit.update()
