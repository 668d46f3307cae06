"""What a run gives back: a record that is also the JSON of ``--result``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from veloflow.places import Place, place_of
from veloflow.runtime.storage.files import write_atomically

if TYPE_CHECKING:
    from veloflow.core import Workflow

__all__ = ["Result"]


@dataclass
class Result:
    """The result of a run.

    Attributes:
        workflow: the definition's name.
        options: its options, as JSON values.
        seed: the root of all random numbers.
        device: the device's name.
        epochs: ``{"epoch", "train": {"samples", "n_errors", "error_percent", "loss"},
            "validation": {…}, "test": {…}}`` for each epoch; classes that the data has.
        best: ``{"epoch", "validation_error_percent", …}``.
        unit_seconds: seconds by unit.
        seconds: wall time of the run, over all its resumptions, without start-up.
        parameters_sha256: of the final parameters in name order, as little-endian float32.
        more: what other units report.
        graph: the workflow itself, to read parameters from; not part of the JSON.
    """

    workflow: str
    options: Mapping[str, Any]
    seed: int
    device: str
    epochs: list[Mapping[str, Any]]
    best: Mapping[str, Any]
    unit_seconds: Mapping[str, float]
    seconds: float
    parameters_sha256: str
    more: Mapping[str, Any] = field(default_factory=dict)
    graph: Workflow | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        record = {k: v for k, v in vars(self).items() if k not in ("more", "graph")}
        return {**record, **self.more}

    def save(self, path: str | Place) -> None:
        """Write the record to a file or URL.

        Raises:
            StorageError: it cannot be written.
        """
        text = json.dumps(self.as_json(), indent=2, default=str)
        write_atomically(place_of(path), [text.encode() + b"\n"])
