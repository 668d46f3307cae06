"""The working memory of a workflow: units declare arrays first, and all get memory at once.

Arrays that are never alive together may lie in the same memory. Which those are follows from the
order of the units, which is not known here: whoever knows gives each array its span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from veloflow.errors import GraphError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from veloflow.devices.base import Array, Device

__all__ = ["Declared", "Life", "Memory", "Slot", "Span", "share_memory"]

#: how long the contents of an array are wanted: for good; until the last unit that is linked to it
#: has run; or for the run of its own unit only
Life: TypeAlias = Literal["always", "readers", "run"]

#: the places, in the order of a round, of the first and the last unit that need the contents
Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Declared:
    """An array of ``owner``, a unit's path."""

    owner: str
    array: Array
    life: Life = "always"


class Slot:
    """A piece of memory for arrays of one dtype whose spans are apart."""

    def __init__(self) -> None:
        self.members: list[tuple[Declared, Span]] = []

    @property
    def size(self) -> int:
        """The elements of its largest array."""
        return max(one.array.size for one, _ in self.members)

    @property
    def nbytes(self) -> int:
        """The bytes of its largest array."""
        return max(one.array.nbytes for one, _ in self.members)

    def has_room(self, declared: Declared, span: Span) -> bool:
        """Whether the array may lie here as well."""
        first, last = span
        return all(
            one.array.dtype == declared.array.dtype and (last < begin or end < first)
            for one, (begin, end) in self.members
        )


def share_memory(spans: Sequence[tuple[Declared, Span]]) -> list[Slot]:
    """Put arrays into as few bytes as a simple rule finds: the largest first, where it first fits.

    (That is how buffers of neural networks are usually planned; Pisarchyk and Lee, "Efficient
    memory management for deep neural net inference", 2020.)
    """
    slots: list[Slot] = []
    for declared, span in sorted(spans, key=lambda one: -one[0].array.nbytes):
        slot = next((one for one in slots if one.has_room(declared, span)), None)
        if slot is None:
            slot = Slot()
            slots.append(slot)
        slot.members.append((declared, span))
    return slots


class Memory:
    """The declared arrays of a workflow, a service of it.

    Attributes:
        declared: all of them, in order.
        slots: those pieces of memory that several arrays share.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.declared: list[Declared] = []
        self.slots: list[Slot] = []
        #: gives the spans of arrays that may share; by default none may
        self.find_spans: Callable[[Sequence[Declared]], Mapping[Declared, Span]] = lambda every: {}

    def declare(
        self, owner: str, shape: Sequence[int], dtype: DTypeLike, life: Life = "always"
    ) -> Array:
        """Declare an array of ``owner``, a unit's path; it has no memory before allocate()."""
        array = self.device.array(shape, dtype)
        self.declared.append(Declared(owner, array, life))
        return array

    def allocate(self) -> None:
        """Give memory to what has none yet; only the first time may arrays share it.

        Raises:
            GraphError: units that came later read an array that shares memory with others.
        """
        new = [one for one in self.declared if not one.array.is_allocated]
        if len(new) == len(self.declared):
            spans = self.find_spans(new)
            least = self.device.least_shared
            large = [one for one in new if one.array.nbytes >= least]
            slots = share_memory([(one, spans[one]) for one in large if one in spans])
            self.slots = [slot for slot in slots if len(slot.members) > 1]
            for slot in self.slots:
                whole = self.device.zeros((slot.size,), slot.members[0][0].array.dtype)
                for one, _ in slot.members:
                    self.device.place(one.array, whole, 0)
        elif self.slots:
            self._check_slots()
        for one in new:
            if not one.array.is_allocated:
                self.device.allocate(one.array)

    def _check_slots(self) -> None:
        """Look whether the arrays that share memory are still never alive together."""
        spans = self.find_spans([one for slot in self.slots for one, _ in slot.members])
        for slot in self.slots:
            now = Slot()
            for one, _ in slot.members:
                if one not in spans or not now.has_room(one, spans[one]):
                    raise GraphError(
                        f"a unit that came while running needs an error of unit {one.owner!r}, "
                        "whose memory others use by then; run with --no-reuse-memory"
                    )
                now.members.append((one, spans[one]))

    def shares(self, array: Array) -> bool:
        """Whether other arrays use its memory too, so that it may hold their numbers."""
        return any(one.array is array for slot in self.slots for one, _ in slot.members)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays, shared ones counted once."""
        return sum(one.array.nbytes for one in self.declared) - self.saved

    @property
    def saved(self) -> int:
        """The bytes that sharing saves."""
        return sum(
            sum(one.array.nbytes for one, _ in slot.members) - slot.nbytes for slot in self.slots
        )

    def bytes_by_owner(self) -> dict[str, int]:
        """Return how many bytes each unit has declared."""
        sizes: dict[str, int] = {}
        for one in self.declared:
            sizes[one.owner] = sizes.get(one.owner, 0) + one.array.nbytes
        return sizes
