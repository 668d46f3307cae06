"""Zero filter: weights of a layer that are 0 and stay 0, such as those between groups of channels.

It stands behind the layer, passes everything on, and has two effects: the masked weights begin with
0, and their gradients are 0; so no solver moves them. (AlexNet's groups in Veles: kernel i sees
channel j where i and j are equal modulo the number of groups. For new networks take the groups of a
convolution, which computes less.)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from veloflow.errors import GraphError, ShapeError
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Layer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameter

__all__ = ["GDZeroFilter", "ZeroFilter", "zero_filter"]


@final
class ZeroFilter(Forward):
    """Keeps weights of the layer that its input comes from at 0; its output is its input.

    The orthogonality term of a gradient unit would move them, for it is no part of the gradient.

    Args:
        groups: how many groups of channels; or
        mask: (neurons or kernels, inputs), 0 where a weight is to be 0.
    """

    def __init__(
        self,
        workflow: Workflow,
        groups: int = 1,
        *,
        mask: ArrayLike | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if groups < 1:
            raise ShapeError(f"unit {self.path!r}: {groups} groups; give at least one")
        self.groups = groups
        self.mask = mask
        self._masked: Parameter

    def initialize(self) -> None:
        """Pass the input on; declare the mask.

        Raises:
            GraphError: the input does not come from a layer with weights of its own.
        """
        layer = self.data_links["input"].source
        weights = layer.weights if isinstance(layer, Forward) else None
        if not isinstance(layer, Forward) or weights is None or weights.owner is not None:
            raise GraphError(
                f"unit {self.path!r}: its input comes from {layer.path!r}, which has no weights of "
                "its own; put it right behind the layer"
            )
        self.output = self.input
        self._channels = layer.input.shape[-1]
        self._masked = weights
        weights.mask = self.declare(*weights.shape)

    def prepare(self) -> None:
        """Write the mask, and 0 into what it masks.

        Raises:
            ShapeError: the mask is not of the weights' shape.
        """
        weights = self._masked
        mask = self._groups_of(weights.shape) if self.mask is None else np.asarray(self.mask) != 0
        if mask.shape != weights.shape:
            raise ShapeError(
                f"unit {self.path!r}: the mask has shape {mask.shape}, and the weights have "
                f"{weights.shape}"
            )
        assert weights.mask is not None
        weights.mask.write(mask.astype(np.float64))
        weights.value.write(np.where(mask, weights.value.read(), 0))

    def _groups_of(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        kernel, place = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
        mask: NDArray[Any] = kernel % self.groups == place % self._channels % self.groups
        return mask

    def run(self) -> None:
        """Do nothing: the output is the input."""


@final
class GDZeroFilter(Backward):
    """The way back through :class:`ZeroFilter`: the error passes as it is."""

    forward: ZeroFilter
    forward_kind: ClassVar[type[Forward]] = ZeroFilter

    def initialize(self) -> None:
        """Pass the error on."""
        self.err_input = self.err_output

    def run(self) -> None:
        """Do nothing: the error is there."""


# -- the short form --------------------------------------------------------------------------------


def zero_filter(
    groups: int = 1, *, mask: ArrayLike | None = None, name: str | None = None
) -> Layer:
    """Return a layer that keeps weights of the layer before it at 0: all but those of groups."""
    make = partial(ZeroFilter, groups=groups, mask=mask, name=name)
    return Layer(f"zero_filter({groups})", make, GDZeroFilter)
