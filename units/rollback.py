"""What follows from how epochs go: back to the best parameters, slower rates on a plateau.

Both stand right after the decision, before anything that trains::

    decision >> rollback >> gd2
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

from veloflow.core import Bool, Input, Unit
from veloflow.devices.parameters import Parameters
from veloflow.errors import GraphError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.gradient import GradientUnit

__all__ = ["EpochWatcher", "OnPlateau", "Rollback"]


class EpochWatcher(Unit):
    """Counts epochs without improvement, and scales learning rates. An outline.

    What it scales is beside the rates that policies set: the rate in use is the product. With
    slaves it runs on the master, where the parameters move; so it does the same as without.

    Attributes:
        waited: epochs since the last improvement, or since it last did something about it.
    """

    group: ClassVar[str] = "trainer"

    epoch_ended = Input[Bool]()
    improved = Input[Bool]()

    def __init__(self, workflow: Workflow, *, patience: int, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        if patience < 1:
            raise InputError(f"unit {self.path!r}: patience is {patience}; give 1 epoch or more")
        self.patience = patience
        self.waited = 0
        self._scaled: list[GradientUnit] = []

    def add(self, *units: GradientUnit) -> None:
        """Scale the rates of these units."""
        self._scaled += units

    def initialize(self) -> None:
        """Look whether there is anything to scale."""
        if not self._scaled:
            raise GraphError(
                f"unit {self.path!r} scales nothing; tell it what: .add(gradient_unit)"
            )

    def run(self) -> None:
        """At the end of an epoch: wait, or lose patience."""
        if not self.epoch_ended:
            return
        if self.improved:
            self.waited = 0
            self._on_improvement()
        else:
            self.waited += 1
            if self.waited >= self.patience:
                self.waited = 0
                self._on_lost_patience()

    def _on_improvement(self) -> None:
        """Do what is to be done after the best epoch so far."""

    @abstractmethod
    def _on_lost_patience(self) -> None:
        """Do what is to be done after ``patience`` epochs without improvement."""

    def _scale(self, factor: float, smallest: float = 0.0) -> None:
        for unit in self._scaled:
            for numbers in (unit.weights_numbers, unit.bias_numbers):
                # what is below already, by other hands, is left there
                numbers.scale = max(numbers.scale * factor, min(smallest, numbers.scale))

    def state(self) -> Mapping[str, object]:
        """Return how long it has waited; the gradient units keep the scales."""
        return {"waited": self.waited}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take it back."""
        self.waited = int(cast("dict[str, Any]", state)["waited"])


@final
class OnPlateau(EpochWatcher):
    """Multiplies learning rates by ``factor`` after ``patience`` epochs without improvement.

    As torch.optim.lr_scheduler.ReduceLROnPlateau with threshold 0 and patience - 1.

    Args:
        factor: in (0, 1).
        patience: epochs.
        smallest: never below this share of the rates at the start.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        factor: float = 0.1,
        patience: int = 10,
        smallest: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, patience=patience, name=name)
        if not (0 < factor < 1 and 0 <= smallest <= 1):
            raise InputError(
                f"unit {self.path!r}: factor is {factor} and smallest {smallest}; give a factor in "
                "(0, 1) and a share in [0, 1]"
            )
        self.factor = factor
        self.smallest = smallest

    def _on_lost_patience(self) -> None:
        self._scale(self.factor, self.smallest)


@final
class Rollback(EpochWatcher):
    """Keeps the best parameters, and goes back to them when epochs do not get better.

    As Veles's: after an improvement rates are multiplied by ``plus`` and the parameters kept with
    all that solvers keep; after ``patience`` epochs without one they are written back and rates
    multiplied by ``minus``. When the run is complete the best parameters are written back too, if
    ``complete`` is linked and ``keep_best`` is set. What was kept is in checkpoints.

    Without a validation set an epoch ends with a TRAIN minibatch, whose gradient is of the
    parameters before the rollback; it still moves those after it.

    Args:
        patience: epochs.
        plus: in [1, inf).
        minus: in (0, 1].
        keep_best: whether a complete run ends with its best parameters.

    Attributes:
        rollbacks: how often it went back.
    """

    complete = Input[Bool](optional=True)

    def __init__(
        self,
        workflow: Workflow,
        *,
        patience: int = 3,
        plus: float = 1.04,
        minus: float = 0.65,
        keep_best: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, patience=patience, name=name)
        if not (plus >= 1 and 0 < minus <= 1):
            raise InputError(
                f"unit {self.path!r}: plus is {plus} and minus {minus}; give a plus of 1 or more "
                "and a minus in (0, 1]"
            )
        self.plus = plus
        self.minus = minus
        self.keep_best = keep_best
        self.rollbacks = 0
        self._best: dict[str, NDArray[np.generic]] = {}

    def run(self) -> None:
        """At the end of an epoch: keep what is best, or go back to it."""
        super().run()
        is_over = self.keep_best and self.has_input("complete") and self.complete
        if is_over and self._best and not self.improved:
            self.service(Parameters).load(self._best)

    def _on_improvement(self) -> None:
        self._best = self.service(Parameters).save()
        self._scale(self.plus)

    def _on_lost_patience(self) -> None:
        if self._best:
            self.service(Parameters).load(self._best)
            self.rollbacks += 1
        self._scale(self.minus)

    def results(self) -> Mapping[str, object]:
        """Return how often it went back."""
        return {"rollbacks": self.rollbacks}

    def state(self) -> Mapping[str, object]:
        """Return the count, and the best parameters."""
        return {**super().state(), "rollbacks": self.rollbacks, "best": dict(self._best)}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take them back."""
        super().restore(state)
        saved = cast("dict[str, Any]", state)
        self.rollbacks = int(saved["rollbacks"])
        self._best = dict(saved["best"])
