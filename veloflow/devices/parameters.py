"""All trainable parameters of a workflow in one flat array, and their gradients in another.

A layer's weights are a view at an aligned place. So one vector with named ranges is what solvers
update, slaves send, codecs compress and checkpoints keep.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from veloflow.errors import CheckpointError, GraphError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.devices.base import Array, Device

__all__ = ["ALIGNMENT", "Mover", "Parameter", "Parameters"]

#: each parameter starts at a multiple of this many elements, on every device
ALIGNMENT = 128


class Parameter:
    """A named range of the flat arrays: ``value``, ``gradient`` and the solver's ``slots``.

    Attributes:
        owner: whose value this is, when it is lent; None for a parameter of its own.
        lent: the gradients of those that it is lent to, in the order of lending: its own gradient
            is complete when they are added.
        mask: 1 where the value is trained, 0 where its gradient is to be 0; None for everywhere.
    """

    def __init__(self, device: Device, name: str, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.name = name
        self.start = 0
        self.value: Array = device.array(shape, dtype)
        self.gradient: Array = device.array(shape, dtype)
        self.slots: dict[str, Array] = {}
        self.owner: Parameter | None = None
        self.lent: list[Array] = []
        self.mask: Array | None = None

    def lend(self, gradient: Array) -> Parameter:
        """Return this parameter for another unit to use, with that unit's own ``gradient``."""
        other = copy(self)
        other.gradient = gradient
        other.owner = self
        self.lent.append(gradient)
        return other

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value and of the gradient."""
        return self.value.shape

    def slot(self, name: str) -> Array:
        """Declare an array beside the value that the solver keeps, such as the velocity."""
        if name not in self.slots:
            self.slots[name] = self.value.device.array(self.shape, self.value.dtype)
        return self.slots[name]


class Parameters:
    """The parameters of one workflow, a service of it. Declare, then allocate once, then use."""

    def __init__(self, device: Device, dtype: DTypeLike = np.float32) -> None:
        self.device = device
        self.dtype = np.dtype(dtype)
        self._by_name: dict[str, Parameter] = {}
        #: the flat arrays, those of slots by name; empty before :meth:`allocate`
        self.values: Array = device.array((0,), self.dtype)
        self.gradients: Array = device.array((0,), self.dtype)
        self.slots: dict[str, Array] = {}
        self.loads = 0  #: how often values were written back; who has copies looks here
        #: is told where in the flat array a gradient is complete, as (start, stop)
        self.watcher: Callable[[int, int], None] | None = None

    def declare(self, name: str, shape: Sequence[int]) -> Parameter:
        """Declare a parameter; it has no memory before :meth:`allocate`.

        Raises:
            GraphError: the name is taken.
        """
        if name in self._by_name:
            raise GraphError(f"two parameters are named {name!r}")
        parameter = Parameter(self.device, name, shape, self.dtype)
        self._by_name[name] = parameter
        return parameter

    def completed(self, parameters: Sequence[Parameter]) -> None:
        """Take note that the gradients of these are as they will be when the round is over."""
        if self.watcher is not None:
            for one in parameters:
                self.watcher(one.start, one.start + _aligned(one.value.size))

    def allocate(self) -> None:
        """Lay all declared parameters out in the flat arrays; a later call adds what is new."""
        new = [one for one in self if not one.value.is_allocated]
        if not new:
            return
        kept = self.save() if len(new) < len(self._by_name) else {}
        self._lay_out()
        self.load(kept)

    def _lay_out(self) -> None:
        end = 0
        for parameter in self:
            parameter.start = end
            end += _aligned(parameter.value.size)
        self.values = self.device.zeros((end,), self.dtype)
        self.gradients = self.device.zeros((end,), self.dtype)
        slots = {name for parameter in self for name in parameter.slots}
        self.slots = {name: self.device.zeros((end,), self.dtype) for name in sorted(slots)}
        for parameter in self:
            self.device.place(parameter.value, self.values, parameter.start)
            self.device.place(parameter.gradient, self.gradients, parameter.start)
            for name, array in parameter.slots.items():
                self.device.place(array, self.slots[name], parameter.start)

    def mirrored(self, device: Device) -> Parameters | None:
        """Return the same parameters as arrays of a device that computes in the host's memory.

        Their memory is the same. None if the memory of this device is not the host's.
        """
        twin = Parameters(device, self.dtype)
        flat: dict[str, Array] = {}
        for name, array in {"": self.values, "gradient": self.gradients, **self.slots}.items():
            memory = self.device.host(array)
            if memory is None:
                return None
            flat[name] = device.adopt(memory)
        twin.values, twin.gradients = flat[""], flat["gradient"]
        twin.slots = {name: flat[name] for name in self.slots}
        for one in self:
            copy = twin.declare(one.name, one.shape)
            copy.start = one.start
            device.place(copy.value, twin.values, one.start)
            device.place(copy.gradient, twin.gradients, one.start)
            for name in one.slots:
                device.place(copy.slot(name), twin.slots[name], one.start)
        return twin

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    def read_all(self) -> NDArray[np.floating]:
        """Return a copy of the values, and behind them of the solver's slots by name: (m n,)."""
        arrays = [self.values, *self.slots.values()]
        return np.concatenate([np.asarray(one.read()) for one in arrays])

    def write_all(self, vector: NDArray[np.floating]) -> None:
        """Write back what :meth:`read_all` gave."""
        size = self.values.size
        for place, array in enumerate((self.values, *self.slots.values())):
            array.write(vector[place * size : (place + 1) * size])

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return copies of all values (``name``) and solver slots (``name@slot``)."""
        saved = {one.name: np.array(one.value.read()) for one in self if one.value.is_allocated}
        for one in self:
            for slot, array in one.slots.items():
                if array.is_allocated:
                    saved[f"{one.name}@{slot}"] = np.array(array.read())
        return saved

    def load(self, saved: Mapping[str, NDArray[np.generic]], *, partial: bool = True) -> None:
        """Write back what :meth:`save` gave.

        Raises:
            CheckpointError: a name is unknown, a shape differs, or (unless ``partial``) a
                parameter is missing.
        """
        here = {one.name: one.value for one in self}
        for one in self:
            here.update({f"{one.name}@{slot}": array for slot, array in one.slots.items()})
        unknown = sorted(set(saved) - set(here))
        missing = [] if partial else sorted(set(here) - set(saved))
        if unknown or missing:
            raise CheckpointError(
                "the parameters differ: "
                + "; ".join(
                    f"{what} {', '.join(names[:3])}"
                    for what, names in (("not here:", unknown), ("not saved:", missing))
                    if names
                )
            )
        for name, values in saved.items():
            if here[name].shape != values.shape:
                raise CheckpointError(
                    f"parameter {name!r} has shape {values.shape} in the checkpoint "
                    f"and {here[name].shape} here"
                )
        for name, values in saved.items():
            here[name].write(values)
        self.loads += 1

    def sha256(self) -> str:
        """Return the SHA-256 of all values in name order, as little-endian float32."""
        digest = hashlib.sha256()
        for name in sorted(self._by_name):
            values = np.asarray(self._by_name[name].value.read())
            digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
        return digest.hexdigest()


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT


class Mover(ABC):
    """A unit that moves parameters by the gradients that are there.

    Twins of it on slaves can do so too, each with a copy of all parameters; for that they must
    know all that the step depends on.
    """

    @abstractmethod
    def update(self) -> None:
        """Move the parameters."""

    @abstractmethod
    def make_step(self) -> Mapping[str, object]:
        """Return all that the next step depends on, besides parameters, gradients and slots."""

    @abstractmethod
    def take_step(self, payload: Mapping[str, object]) -> None:
        """Take what the twin's :meth:`make_step` gave."""

    @abstractmethod
    def move_on(self, parameters: Parameters) -> None:
        """Move these parameters from now on: the same ones, see :meth:`Parameters.mirrored`."""
