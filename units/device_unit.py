"""The base of units that compute on a device: access to it, and to its memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from veloflow.core import Settings, Unit
from veloflow.devices import Array, Device
from veloflow.devices.memory import Life, Memory
from veloflow.devices.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["DeviceUnit"]


class DeviceUnit(Unit):
    """A unit that works on device arrays. An outline.

    In a run with slaves it works there, and the master does nothing.
    """

    def run_as_master(self) -> None:
        """Do nothing: slaves compute."""

    def run_as_slave(self) -> None:
        """Do what a lone run does."""
        self.run()

    @property
    def is_steady(self) -> bool:
        """Whether it leaves all the work to slaves, and says nothing to them for a minibatch."""
        own = type(self)
        return own.run_as_master is DeviceUnit.run_as_master and own.make_job is Unit.make_job

    @property
    def device(self) -> Device:
        """The device that the workflow runs on."""
        return self.service(Device)

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.service(Settings)

    def declare(self, *shape: int, dtype: DTypeLike | None = None, life: Life = "always") -> Array:
        """Declare an array, by default of the run's dtype; call it in ``initialize``.

        ``life`` tells how long its contents are wanted: "always", in "run" of this unit only, or
        until the last of the "readers", the units linked to it, has run. Arrays that are never
        wanted together may then lie in the same memory, and begin with what is there.
        """
        memory = self.service(Memory)
        kind = self.settings.dtype if dtype is None else dtype
        return memory.declare(self.path, shape, kind, life)

    def watched(self) -> Iterator[tuple[str, Array]]:
        """Yield by name the arrays in which NaN may show first: parameters, then all the others.

        By default these are the unit's public attributes.
        """
        public = [(name, one) for name, one in vars(self).items() if not name.startswith("_")]
        yield from ((name, one.value) for name, one in public if isinstance(one, Parameter))
        yield from ((name, one) for name, one in public if isinstance(one, Array))

    def check_finite(self) -> str | None:
        """Say which of the unit's arrays holds NaN or infinity; None when all are finite.

        It reads whole arrays from the device: call it when a run has failed, not while it runs.
        Asked in the order of control, the first unit that answers is where the trouble began.
        """
        memory = self.service(Memory)
        for name, array in self.watched():
            if memory.shares(array):  # it may hold another unit's numbers by now
                continue
            if array.is_allocated and array.dtype.kind == "f":
                count = array.size - int(np.count_nonzero(np.isfinite(array.read())))
                if count:
                    return f"{name} ({count} of {array.size} numbers)"
        return None
