"""The working memory of a workflow: units declare arrays first, and all get memory at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from veloflow.devices.base import Array, Device

__all__ = ["Memory"]


class Memory:
    """The declared arrays of a workflow, a service of it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._arrays: list[tuple[str, Array]] = []

    def declare(self, owner: str, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Declare an array of ``owner``, a unit's path; it has no memory before allocate()."""
        array = self.device.array(shape, dtype)
        self._arrays.append((owner, array))
        return array

    def allocate(self) -> None:
        """Give memory to what has none yet."""
        for _, array in self._arrays:
            if not array.is_allocated:
                self.device.allocate(array)

    def bytes_by_owner(self) -> dict[str, int]:
        """Return how many bytes each unit has declared."""
        sizes: dict[str, int] = {}
        for owner, array in self._arrays:
            sizes[owner] = sizes.get(owner, 0) + array.nbytes
        return sizes
