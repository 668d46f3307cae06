"""Unit times for the views: read from a result, turned into shares of the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from veloflow.errors import DataError, InputError, NotFoundError

__all__ = ["duration", "read_times", "shares", "times_of"]


def times_of(result: Mapping[str, object]) -> dict[str, float]:
    """Return seconds by unit path from the record of a run, as ``--result`` writes it.

    Raises:
        DataError: it has no such times.
    """
    seconds = result.get("unit_seconds")
    if not isinstance(seconds, Mapping):
        raise DataError("it has no times of units (no 'unit_seconds')")
    times: dict[str, float] = {}
    for path, spent in seconds.items():
        if isinstance(spent, bool) or not isinstance(spent, int | float) or not spent >= 0:
            raise DataError(f"the time of unit {path!r} is {spent!r}, not a number of seconds")
        times[str(path)] = float(spent)
    return times


def read_times(path: Path) -> dict[str, float]:
    """Return seconds by unit path from a result file.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is no result.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no result file {path}; make one with veloflow run … --result {path}"
        ) from error
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read the result file {path}: {error}") from error
    try:
        return times_of(record if isinstance(record, dict) else {})
    except InputError as error:
        raise DataError(f"{path} is no result of veloflow run --result: {error}") from error


def shares(times: Mapping[str, float]) -> dict[str, float]:
    """Return each unit's share of the whole time, in [0, 1].

    The time of a nested workflow is that of its units, so the whole counts these only.
    """
    around = {path.rpartition("/")[0] for path in times}
    total = sum(spent for path, spent in times.items() if path not in around)
    return {path: spent / total if total else 0.0 for path, spent in times.items()}


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it, with three digits: ``1.24 s``, ``90 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            number = seconds / size
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
