"""Checkpoints: all that a run needs to go on, in one safetensors file with a JSON header.

A file holds the parameters and solver state by name, the arrays of units' states, and in its
metadata one JSON document with everything else. One file is replaced atomically, so there is
always a whole one. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors
import safetensors.numpy

from veloflow.errors import CheckpointError, NotFoundError
from veloflow.places import Place, RemotePath, local_copy
from veloflow.runtime.storage.files import write_atomically
from veloflow.runtime.storage.remote_folder import follow

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BEST",
    "LAST",
    "Checkpoint",
    "find_checkpoint",
    "read_checkpoint",
    "summary",
    "write_checkpoint",
]

FORMAT = 1
LAST = "last.safetensors"
BEST = "best.safetensors"
_KEY = "veloflow"

Arrays = dict[str, "NDArray[np.generic]"]


@dataclass
class Checkpoint:
    """The state of a run.

    Attributes:
        workflow: the name of the definition.
        options: its options, as JSON values.
        settings: seed and dtype.
        flow: where control is (see ``Flow.state``).
        units: the state of each unit, by path; arrays anywhere inside.
        parameters: values and solver slots (see ``Parameters.save``).
        seconds: how long the run has taken so far.
        unit_seconds: the same by unit.
        reason: why it was written: "improved", "interval", "interrupted", "finished".
    """

    workflow: str
    options: dict[str, Any]
    settings: dict[str, Any]
    flow: dict[str, Any]
    units: dict[str, dict[str, Any]]
    parameters: Arrays
    seconds: float = 0.0
    unit_seconds: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def write_checkpoint(checkpoint: Checkpoint, path: Place) -> int:
    """Write ``path``, replacing an older file only when the new one is whole and on disk.

    Returns:
        How many bytes it has.

    Raises:
        StorageError: it cannot be written; the older file is untouched.
    """
    arrays: Arrays = {f"parameter:{name}": a for name, a in checkpoint.parameters.items()}
    document = {
        name: value
        for name, value in vars(checkpoint).items()
        if name not in ("parameters", "units")
    }
    document["format"] = FORMAT
    document["units"] = {
        path_: _take_arrays(state, f"unit:{path_}", arrays)
        for path_, state in checkpoint.units.items()
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    document["digest"] = _digest(arrays)
    metadata = {_KEY: json.dumps(document, allow_nan=False)}
    content = safetensors.numpy.save(arrays, metadata)
    write_atomically(path, [content])
    return len(content)


def _take_arrays(value: Any, name: str, arrays: Arrays) -> Any:
    """Return ``value`` as JSON, its arrays moved to ``arrays`` and named in their place."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"$array": name}
    if isinstance(value, Mapping):
        return {key: _take_arrays(item, f"{name}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(item, f"{name}.{n}", arrays) for n, item in enumerate(value)]
    return value


def _put_arrays(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$array"}:
            return arrays[value["$array"]]
        return {key: _put_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_arrays(item, arrays) for item in value]
    return value


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def find_checkpoint(
    place: Place, *, best: bool = False, cure: str = "give a file or a folder of a run"
) -> Place:
    """Return the file to read: ``place`` itself, or the last (or best) one in that folder.

    At a URL that is what the folder's pointer names, or, where there is no pointer, a file that was
    copied there; see :mod:`veloflow.runtime.storage.remote_folder`.

    Raises:
        CheckpointError: there is none; ``cure`` says what to do.
    """
    if place.is_file():
        return place
    for name in (BEST, LAST) if best else (LAST,):
        if isinstance(place, RemotePath) and (found := follow(place, name)) is not None:
            return found
        if (place / name).is_file():
            return place / name
    raise CheckpointError(f"no checkpoint in {place}; {cure}")


def read_checkpoint(path: Place) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is no checkpoint, of a later format, damaged or cut short.
        NotFoundError: there is no such file.
    """
    if not path.is_file():
        raise NotFoundError(f"no checkpoint {path}")
    try:
        with local_copy(path) as here, safetensors.safe_open(here, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, struct.error) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); use another checkpoint or start again"
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but no checkpoint of veloflow")
    document = cast("dict[str, Any]", json.loads(metadata[_KEY]))
    if document.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path} was written by another version of veloflow")
    if document.pop("digest", None) != _digest(arrays):
        raise CheckpointError(f"{path} is damaged: its arrays do not have the digest of its header")
    units = {path_: _put_arrays(state, arrays) for path_, state in document.pop("units").items()}
    parameters = {
        name.removeprefix("parameter:"): array
        for name, array in arrays.items()
        if name.startswith("parameter:")
    }
    return Checkpoint(units=units, parameters=parameters, **document)


def summary(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what ``veloflow inspect`` shows, as JSON values."""
    return {
        "workflow": checkpoint.workflow,
        "reason": checkpoint.reason,
        "options": checkpoint.options,
        "settings": checkpoint.settings,
        "seconds": checkpoint.seconds,
        "epochs": _epochs(checkpoint),
        "parameters": [
            {
                "name": name,
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "minimum": float(array.min()) if array.size else None,
                "mean": float(array.mean()) if array.size else None,
                "maximum": float(array.max()) if array.size else None,
            }
            for name, array in checkpoint.parameters.items()
            if "@" not in name
        ],
    }


def _epochs(checkpoint: Checkpoint) -> list[Any]:
    """Return the epochs' records, from whichever unit keeps them."""
    found = (state["epochs"] for state in checkpoint.units.values() if "epochs" in state)
    return list(next(found, []))
