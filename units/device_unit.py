"""The base of units that compute on a device: access to it, and to its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.core import Settings, Unit
from veloflow.devices import Array, Device
from veloflow.devices.memory import Memory

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["DeviceUnit"]


class DeviceUnit(Unit):
    """A unit that works on device arrays. An outline."""

    @property
    def device(self) -> Device:
        """The device that the workflow runs on."""
        return self.service(Device)

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.service(Settings)

    def declare(self, *shape: int, dtype: DTypeLike | None = None) -> Array:
        """Declare an array, by default of the run's dtype; call it in ``initialize``."""
        memory = self.service(Memory)
        return memory.declare(self.path, shape, self.settings.dtype if dtype is None else dtype)
