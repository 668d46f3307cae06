"""Stretches: several minibatches in one job, and what units say of each, on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from veloflow.errors import WireError

if TYPE_CHECKING:
    from veloflow.core import Payload

__all__ = ["Place", "join_steps", "place_of", "split_steps"]

#: between the number of a step and the path of a unit; no path holds it
_BAR = "|"

#: the path under which a step's job says where training is
_PLACE = ""


@dataclass(frozen=True)
class Place:
    """Where training is: see ``Unit.go_to``."""

    steps: int
    minibatches: int

    def into(self, jobs: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return the payloads of a step's job with the place among them."""
        return {**jobs, _PLACE: {"steps": self.steps, "minibatches": self.minibatches}}


def place_of(jobs: Mapping[str, Payload]) -> tuple[Place, dict[str, Payload]]:
    """Return where training is, and the payloads of the units.

    Raises:
        WireError: the job of a step does not say it.
    """
    units = dict(jobs)
    found = units.pop(_PLACE, {})
    steps, minibatches = found.get("steps"), found.get("minibatches")
    if not isinstance(steps, int) or not isinstance(minibatches, int):
        raise WireError("the job of a stretch does not say where training is")
    return Place(steps, minibatches), units


def join_steps(steps: Sequence[Mapping[str, Payload]]) -> dict[str, Payload]:
    """Return the payloads of all steps by ``number|path``."""
    return {
        f"{number}{_BAR}{path}": payload
        for number, step in enumerate(steps)
        for path, payload in step.items()
    }


def split_steps(joined: Mapping[str, Payload]) -> list[dict[str, Payload]]:
    """Return the payloads of each step by path.

    Raises:
        WireError: this is not what :func:`join_steps` gives.
    """
    found: dict[int, dict[str, Payload]] = {}
    for key, payload in joined.items():
        number, bar, path = key.partition(_BAR)
        if not bar or not (number.isascii() and number.isdecimal()) or len(number) > 4:
            raise WireError(f"payloads of a stretch with {key!r:.80}")
        found.setdefault(int(number), {})[path] = payload
    if sorted(found) != list(range(len(found))):
        raise WireError("payloads of a stretch lack a step")
    return [found[number] for number in range(len(found))]
