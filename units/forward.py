"""What all forward units share: an input, an output, and parameters in the flat array."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from veloflow.core import Input
from veloflow.devices import Array
from veloflow.devices.parameters import Parameter, Parameters
from veloflow.devices.random import generator
from veloflow.units.activation import LINEAR, Activation
from veloflow.units.device_unit import DeviceUnit

if TYPE_CHECKING:
    import numpy as np

    from veloflow.core import Workflow

__all__ = ["Forward"]


class Forward(DeviceUnit):
    """A layer's forward pass. An outline: subclasses compute ``output`` from ``input``.

    Attributes:
        output: the layer's output; its first dimension is the minibatch.
        weights, bias: the layer's parameters, or None.
        sums: what the activation is applied to, where its gradient needs that; else None.
    """

    group: ClassVar[str] = "forward"
    #: what the layer's neurons make of their sums
    activation: Activation = LINEAR
    #: inputs that the short form links to the attributes of the loader that have the same names
    loader_inputs: ClassVar[tuple[str, ...]] = ()

    input = Input[Array]("batch ...")

    def __init__(self, workflow: Workflow, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self.output: Array
        self.weights: Parameter | None = None
        self.bias: Parameter | None = None
        self.sums: Array | None = None

    def parameters(self) -> list[Parameter]:
        """Return the layer's parameters, weights first."""
        return [one for one in (self.weights, self.bias) if one is not None]

    def _declare_parameter(self, purpose: str, *shape: int) -> Parameter:
        return self.service(Parameters).declare(f"{self.path}/{purpose}", shape)

    def _random(self, purpose: str) -> np.random.Generator:
        """Return the unit's own generator for ``purpose``: a function of seed and names only."""
        return generator(self.settings.seed, self.path, purpose)
