"""The checkpoint unit: asks whoever runs the workflow to save it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

from veloflow.core import Bool, CheckpointWanted, Events, Input, Unit
from veloflow.errors import InputError

if TYPE_CHECKING:
    from veloflow.core import Workflow

__all__ = ["Checkpoint"]


@final
class Checkpoint(Unit):
    """Asks for a checkpoint after improvements, and after every so many epochs or minibatches.

    It publishes :class:`~veloflow.core.CheckpointWanted`; the runtime then pauses control at the
    next boundary (the repeater) and saves everything, if it was told where to. Wishes in seconds
    belong to the runtime, for units read no clock. Put it right after the decision::

        decision >> checkpoint >> gd2

    Args:
        on_improvement: ask when an epoch was the best so far.
        every_epochs: ask at the end of every n-th epoch.
        every_minibatches: ask at every n-th minibatch, of any class.
    """

    group: ClassVar[str] = "service"

    improved = Input[Bool]()
    epoch_ended = Input[Bool]()
    epoch_number = Input[int]()

    def __init__(
        self,
        workflow: Workflow,
        *,
        on_improvement: bool = True,
        every_epochs: int | None = None,
        every_minibatches: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        for what, number in (
            ("every_epochs", every_epochs),
            ("every_minibatches", every_minibatches),
        ):
            if number is not None and number < 1:
                raise InputError(f"unit {self.path!r}: {what} is {number}; give at least 1")
        self.on_improvement = on_improvement
        self.every_epochs = every_epochs
        self.every_minibatches = every_minibatches
        self._minibatches = 0

    def run(self) -> None:
        """Look whether a checkpoint is due."""
        self._minibatches += 1
        reason = self._reason()
        if reason:
            self.service(Events).publish(CheckpointWanted(reason))

    def _reason(self) -> str:
        if self.on_improvement and self.improved:
            return "improved"
        is_epoch_due = self.every_epochs and self.epoch_number % self.every_epochs == 0
        if self.epoch_ended and is_epoch_due:
            return "interval"
        if self.every_minibatches and self._minibatches % self.every_minibatches == 0:
            return "interval"
        return ""

    def state(self) -> Mapping[str, object]:
        """Return how many minibatches were seen."""
        return {"minibatches": self._minibatches}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on counting from there."""
        self._minibatches = int(cast("dict[str, Any]", state)["minibatches"])
