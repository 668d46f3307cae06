"""What codecs have left out when a run changes its mode: who is to send it then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import CheckpointError
from veloflow.sharing.codecs import parse_codec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Crew

__all__ = ["Handover", "Leftover"]


@dataclass(frozen=True)
class Leftover:
    """What all slaves have left out of updates of one sort.

    Attributes:
        is_local: whether of what stretches have changed; otherwise of gradients.
        residuals: a vector for each who left it.
    """

    is_local: bool
    residuals: Sequence[NDArray[Any]]


class Handover:
    """Sees that what was left out before a change of mode comes after it.

    Where updates are of the same sort and the next codec has a residual, slaves add it to theirs.
    Otherwise the master makes it good: what stretches have changed is added to the parameters at
    once, as the next exchange would have done; gradients to the next gradient. From gradients to
    stretches there is no way, for a step belongs to the solver: they are dropped.

    Args:
        parameters: the master's own.
        crew: who computes.
    """

    def __init__(self, parameters: Parameters, crew: Crew) -> None:
        self._parameters, self._crew = parameters, crew
        self._owed: NDArray[Any] | None = None  # of gradients (n,)

    def pass_on(self, left: Leftover, *, to_local: bool, codec: str) -> None:
        """Pass on what was left out; the crew has the form of the new mode already.

        Args:
            left: what.
            to_local: whether slaves take steps of their own from now on.
            codec: how updates travel from now on.
        """
        if to_local:
            self._owed = None
        if not left.residuals:
            return
        if left.is_local == to_local and parse_codec(codec).has_feedback:
            self._crew.inherit(left.residuals)
        elif left.is_local:
            # each would have come with its slave's next stretch, and the mean of those is taken;
            # what solvers keep is left alone: a mean of squares must not fall below 0
            found = np.mean(left.residuals, axis=0)
            size = self._parameters.values.size
            state = self._parameters.read_all()
            state[:size] += found[:size]
            self._parameters.write_all(state)
        elif not to_local:
            total = np.sum(left.residuals, axis=0)
            self._owed = total if self._owed is None else self._owed + total

    def settle(self) -> None:
        """Add what is owed to the gradient of the present minibatch."""
        if self._owed is not None:
            self._parameters.gradients.write(self._parameters.gradients.read() + self._owed)
            self._owed = None

    def state(self) -> dict[str, object]:
        """Return what a checkpoint must keep."""
        return {} if self._owed is None else {"auto_owed": [self._owed]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            CheckpointError: it is of another size.
        """
        owed = state.get("auto_owed", [None])[0]
        if owed is not None and np.shape(owed) != (self._parameters.gradients.size,):
            raise CheckpointError("what auto owes in the checkpoint is of another size")
        self._owed = owed
