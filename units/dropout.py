"""Dropout: neurons silenced at random while training (Srivastava, Hinton et al., 2014)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, final

from veloflow.core import Input
from veloflow.devices.expressions import element, where
from veloflow.devices.random import key_of
from veloflow.errors import InputError
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer
from veloflow.units.loader import TRAIN

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch

__all__ = ["Dropout", "GDDropout", "dropout"]


@final
class Dropout(Forward):
    """Inverted dropout: y = x / (1 - p) where a random u >= p, else 0; y = x when not training.

    It drops on minibatches of the class TRAIN only, and never in testing. The numbers u are a
    function of the seed, the unit's path, the epoch and the sample's place in the epoch's order:
    the same on every device, whoever computes a sample, and after a resumption.

    Shapes: input and output are (batch, ...), of the run's dtype.

    Args:
        p: the share of neurons to silence, 0 <= p < 1.

    Attributes:
        noise: the numbers u of the last minibatch on which it dropped, shaped as the input.
        is_dropping: whether it dropped on the present minibatch.
    """

    loader_inputs: ClassVar[tuple[str, ...]] = (
        "minibatch_class", "minibatch_position", "epoch_number",
    )  # fmt: skip

    minibatch_class = Input[int]()
    minibatch_position = Input[int]()
    epoch_number = Input[int]()

    def __init__(self, workflow: Workflow, p: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        if not 0 <= p < 1:
            raise InputError(f"unit {self.path!r}: p is {p}; the share to drop is in [0, 1)")
        self.p = p
        self.is_dropping = False
        self.noise: Array
        self._draw: Launch
        self._drop: Launch
        self._pass: Launch

    def initialize(self) -> None:
        """Declare output and noise."""
        self.output = self.declare(*self.input.shape)
        self.noise = self.declare(*self.input.shape)
        self._may_drop = self.p > 0 and not self.settings.testing

    def prepare(self) -> None:
        """Bind drawing, dropping and passing on."""
        self._draw = self.device.uniform(
            self.noise, key_of(self.settings.seed, self.path, "dropout")
        )
        self._drop = self.bind_dropping(self.input, self.output)
        self._pass = self.device.copy(self.input, self.output)

    def bind_dropping(self, source: Array, target: Array) -> Launch:
        """Bind target = source / (1 - p) where noise >= p, else 0: the same for x and for dL/dy."""
        return self.device.elementwise(
            {"target": where(element("noise") < self.p, 0.0, element("source") * self._scale)},
            {"target": target, "source": source, "noise": self.noise},
        )

    @property
    def _scale(self) -> float:
        return 1.0 / (1.0 - self.p)

    def run(self) -> None:
        """Compute ``output``."""
        self.is_dropping = self._may_drop and self.minibatch_class == TRAIN
        if self.is_dropping:
            self._draw(stream=self.epoch_number, row=self.minibatch_position)
            self._drop()
        else:
            self._pass()


@final
class GDDropout(Backward):
    """The gradient of :class:`Dropout`: dL/dx = dL/dy / (1 - p) where it let x through, else 0."""

    forward: Dropout
    forward_kind: ClassVar[type[Forward]] = Dropout

    def prepare(self) -> None:
        """Bind both ways back, when anybody reads ``err_input``."""
        self._drop: Launch | None = None
        if self.needs_err_input:
            self._drop = self.forward.bind_dropping(self.err_output, self.err_input)
            self._pass = self.device.copy(self.err_output, self.err_input)

    def run(self) -> None:
        """Compute ``err_input``."""
        if self._drop is not None:
            (self._drop if self.forward.is_dropping else self._pass)()


# -- the short form --------------------------------------------------------------------------------


def dropout(p: float = 0.5, *, name: str | None = None) -> Layer:
    """Return a layer that silences a share ``p`` of the neurons before it while training."""
    return Layer(f"dropout({p})", partial(Dropout, p=p, name=name), GDDropout)
