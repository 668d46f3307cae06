"""What all forward units share: an input, an output, and parameters in the flat array."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from veloflow.core import Input
from veloflow.devices import Array
from veloflow.devices.parameters import Parameter, Parameters
from veloflow.devices.random import generator
from veloflow.errors import GraphError
from veloflow.units.activation import LINEAR, Activation
from veloflow.units.device_unit import DeviceUnit

if TYPE_CHECKING:
    import numpy as np

    from veloflow.core import Workflow
    from veloflow.units.filling import Filling

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
    #: the attribute that a trained model gives when this is its last layer
    output_in_use: ClassVar[str] = "output"

    input = Input[Array]("batch ...")

    def __init__(self, workflow: Workflow, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self.output: Array
        self.weights: Parameter | None = None
        self.bias: Parameter | None = None
        self.sums: Array | None = None
        self._shares: Forward | None = None

    def parameters(self) -> list[Parameter]:
        """Return the layer's own parameters, weights first; those that are lent to it are not."""
        every = [one for one in (self.weights, self.bias) if one is not None]
        return [one for one in every if one.owner is None]

    def share_parameters(self, other: Forward) -> Self:
        """Use the parameters of ``other``, a layer of the same kind and size; return this unit.

        Both layers' gradients are added up, and the gradient unit of ``other`` moves them; it must
        run after this layer's own, as it does when ``other`` comes first in the forward pass.
        """
        self._shares = other
        return self

    def _declare_parameter(self, purpose: str, *shape: int) -> Parameter:
        if self._shares is None:
            return self.service(Parameters).declare(f"{self.path}/{purpose}", shape)
        return self._borrow(self._shares, purpose, shape)

    def _borrow(self, other: Forward, purpose: str, shape: tuple[int, ...]) -> Parameter:
        """Return a parameter of ``other``, with a gradient of this unit's own."""
        name = f"{other.path}/{purpose}"
        theirs = next((one for one in other.parameters() if one.name == name), None)
        if theirs is None or theirs.shape != shape:
            found = "none so far" if theirs is None else f"one of shape {theirs.shape}"
            raise GraphError(
                f"unit {self.path!r} shares {purpose} of shape {shape} with {other.path!r}, which "
                f"has {found}; it must come before, and be of the same kind and size"
            )
        return theirs.lend(self.declare(*shape))

    def _fill_parameter(
        self,
        parameter: Parameter | None,
        filling: Filling,
        default: float,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Write initial values, unless another unit does.

        Args:
            parameter: what to fill, if there is one.
            filling: what fills it.
            default: the layer's own magnitude.
            shape: as the filling sees it, where the parameter is flatter.
        """
        if parameter is not None and parameter.owner is None:
            random = self._random(parameter.name.rpartition("/")[2])
            values = filling.fill(random, parameter.shape if shape is None else shape, default)
            parameter.value.write(values.reshape(parameter.shape))

    def _random(self, purpose: str) -> np.random.Generator:
        """Return the unit's own generator for ``purpose``: a function of seed and names only."""
        return generator(self.settings.seed, self.path, purpose)
