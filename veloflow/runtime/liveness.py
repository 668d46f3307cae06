"""Which arrays of a workflow are never alive together: how long each one's contents are wanted.

Only arrays that their unit has declared for it are looked at (errors on their way back, scratch).
An array of one run is alive while its unit runs; one for readers from its unit to the last unit
that a data link leads to. Places are those in :func:`veloflow.core.checks.round_of`. An array
shares no memory if

- its unit or a reader is not on that chain (a side branch, a nested workflow), or comes before it;
- its unit may be skipped when a reader is not, for then the reader takes what a round before left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from veloflow.core.checks import round_of
from veloflow.devices import Array

if TYPE_CHECKING:
    from veloflow.core import Unit, Workflow
    from veloflow.devices.memory import Declared, Span

__all__ = ["spans_in"]


def spans_in(workflow: Workflow) -> Callable[[Sequence[Declared]], Mapping[Declared, Span]]:
    """Return what finds the spans of the arrays of a root workflow, once units are initialized."""

    def find(declared: Sequence[Declared]) -> Mapping[Declared, Span]:
        places = {unit: place for place, unit in enumerate(round_of(workflow))}
        owners = {unit.path: unit for unit in places}
        readers = _readers(workflow)
        spans: dict[Declared, Span] = {}
        for one in declared:
            owner = owners.get(one.owner)
            if one.life == "always" or owner is None:
                continue
            read_by = readers.get(id(one.array), [])
            if one.life == "run" and read_by:
                continue
            first = places[owner]
            if all(
                places.get(reader, -1) > first and owner.is_skipped_with(reader)
                for reader in read_by
            ):
                spans[one] = first, max((places[reader] for reader in read_by), default=first)
        return spans

    return find


def _readers(workflow: Workflow) -> dict[int, list[Unit]]:
    """Return the units that are linked to each array, by the array's identity."""
    readers: dict[int, list[Unit]] = {}
    for unit in workflow.all_units():
        for link in unit.data_links.values():
            value = getattr(link.source, link.attribute, None)
            for array in value if isinstance(value, list | tuple) else (value,):
                if isinstance(array, Array):
                    readers.setdefault(id(array), []).append(unit)
    return readers
