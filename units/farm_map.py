"""A function over a list of items, whose calls slaves share among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, cast, final

import numpy as np

from veloflow.core import Farm, Input, Journal, Payload, Progress, Unit, Workflow
from veloflow.errors import GraphError, InputError

__all__ = ["FarmMap"]


@final
class FarmMap(Unit):
    """Calls ``function(**item)`` for each item; results stand in the order of the items.

    Alone it calls one after another. With slaves each call is a job: whoever is free takes the
    next, and what a lost slave had is called again elsewhere. In a run with a checkpoint folder
    each result is kept at once, and a run that is resumed calls for the others only. So the
    function must depend on its arguments only. Items and results are mappings of names to JSON
    values and arrays of numbers, for they travel.

    Args:
        function: item -> result, a function of the definition's module, which slaves have too.
        items: the items, unless ``items`` is linked to another unit's attribute.

    Attributes:
        outputs: one result per item, after the unit has run.
    """

    group: ClassVar[str] = "service"

    items = Input[Sequence[Payload]](optional=True)

    def __init__(
        self,
        workflow: Workflow,
        function: Callable[..., Payload],
        *,
        items: Sequence[Payload] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        self.function = function
        self.outputs: list[Payload] = []
        self._given = items
        self._done = self._total = 0
        self._item: Payload = {}
        self._result: Payload = {}

    def initialize(self) -> None:
        """Look whether there are items.

        Raises:
            GraphError: they are neither given nor linked, or both.
        """
        if self.has_input("items") == (self._given is not None):
            raise GraphError(
                f"unit {self.path!r}: give items=[…], or link 'items' to another unit, one of both"
            )

    def _all_items(self) -> Sequence[Payload]:
        items = self.items if self._given is None else self._given
        for number, item in enumerate(items):
            _check(item, f"unit {self.path!r}: item {number}")
        self._done, self._total = 0, len(items)
        return items

    def run(self) -> None:
        """Call the function for all items, one after another.

        Raises:
            InputError: an item or a result is not what can travel; the message says which.
        """
        journal = self.service(Journal)
        items = self._all_items()
        self.outputs = []
        for number, item in enumerate(items):
            result = journal.find(self, item)
            if result is None:
                result = self._call(item, f"item {number}")
                journal.add(self, item, result)
            self.outputs.append(result)
            self._done += 1

    def run_as_master(self) -> None:
        """Have slaves call it."""
        journal = self.service(Journal)
        items = self._all_items()
        found = [journal.find(self, item) for item in items]
        left = [number for number, result in enumerate(found) if result is None]
        self._done = len(items) - len(left)
        for place, result in self.service(Farm).map(self, [items[number] for number in left]):
            number = left[place]
            found[number] = result
            journal.add(self, items[number], result)
            self._done += 1
        self.outputs = [result for result in found if result is not None]

    def _call(self, item: Payload, what: str) -> Payload:
        result = self.function(**item)
        _check(result, f"unit {self.path!r}: the result of {what}")
        return result

    def take_job(self, payload: Payload) -> None:
        """Take an item."""
        self._item = payload

    def run_as_slave(self) -> None:
        """Call the function for the item that came, if one did."""
        item, self._item = self._item, {}
        self._result = self._call(item, "an item") if item else {}

    def make_update(self) -> Payload:
        """Return the result."""
        return self._result

    def progress(self) -> Progress | None:
        """Tell how many items are done."""
        return Progress(self.name, self._done, self._total) if self._total else None


def _check(payload: object, what: str) -> None:
    """Look whether a payload can travel.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(payload, Mapping) or not all(isinstance(name, str) for name in payload):
        raise InputError(
            f"{what} is {type(payload).__name__}; give a mapping of names to values, "
            'such as {"first": 0}'
        )
    for name, value in payload.items():
        if not _travels(value):
            raise InputError(
                f"{what}: {name!r} is {type(value).__name__}; only JSON values and arrays of "
                "numbers travel"
            )


def _travels(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    if isinstance(value, list | tuple):
        return all(_travels(one) for one in cast("Sequence[object]", value))
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _travels(one) for name, one in value.items())
    return value is None or isinstance(value, bool | int | float | str | np.generic)
