"""Tables of devices, units, checkpoints and findings, and the reading of unit times."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from veloflow.errors import DataError, NotFoundError

__all__ = [
    "checkpoint_tables",
    "devices_table",
    "findings_table",
    "print_json",
    "read_times",
    "units_table",
]


def read_times(path: Path) -> dict[str, float]:
    """Return seconds by unit from a result file.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is no result.
    """
    if not path.is_file():
        raise NotFoundError(f"no result file {path}; make one with veloflow run … --result {path}")
    try:
        seconds = json.loads(path.read_text())["unit_seconds"]
        return {str(unit): float(spent) for unit, spent in seconds.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no result of veloflow run --result: {error!r}") from error


def print_json(value: object) -> None:
    """Print dataclasses and plain values as JSON."""
    click.echo(json.dumps(value, default=_plain, indent=2))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def units_table(units: Sequence[Mapping[str, Any]]) -> Table:
    """Return what ``--dry-run`` shows: each unit with shapes, parameters and memory."""
    table = Table(title="checked, and not run", show_footer=True)
    table.add_column("unit", footer="all")
    table.add_column("class")
    table.add_column("output")
    total = sum(unit["parameters"] for unit in units)
    table.add_column("parameters", justify="right", footer=f"{total:,}")
    memory = sum(unit["bytes"] for unit in units)
    table.add_column("memory", justify="right", footer=_size(memory))
    for unit in units:
        shape = " x ".join(str(size) for size in unit["output"] or ())
        count = f"{unit['parameters']:,}" if unit["parameters"] else ""
        size = _size(unit["bytes"]) if unit["bytes"] else ""
        table.add_row(unit["unit"], unit["class"], shape, count, size)
    return table


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def devices_table(reports: Iterable[Any]) -> Table:
    """Return the devices with the results of their self-tests and measurements."""
    table = Table(title="devices")
    for name in ("name", "hardware", "driver", "memory", "units", "self-test", "GEMM", "notes"):
        table.add_column(name)
    for report in reports:
        info = report.info
        table.add_row(
            info.name,
            info.hardware,
            info.driver,
            _size(info.memory),
            str(info.compute_units),
            "; ".join(report.problems) or "passed",
            "" if report.gemm_gflops is None else f"{report.gemm_gflops:.0f} GFLOP/s",
            "; ".join(info.notes),
        )
    return table


def checkpoint_tables(path: Path, found: Mapping[str, Any]) -> list[Table]:
    """Return what is in a checkpoint: the run, and its parameters."""
    run = Table(title=str(path), show_header=False)
    run.add_row("workflow", found["workflow"])
    run.add_row("written", found["reason"])
    for name, value in {**found["settings"], **found["options"]}.items():
        run.add_row(name, str(value))
    run.add_row("seconds", f"{found['seconds']:.2f}")
    if found["epochs"]:
        run.add_row("last epoch", json.dumps(found["epochs"][-1]))
    parameters = Table(title="parameters")
    for name in ("name", "shape", "dtype", "minimum", "mean", "maximum"):
        parameters.add_column(name)
    for one in found["parameters"]:
        numbers = [
            "" if one[name] is None else f"{one[name]:.4g}"
            for name in ("minimum", "mean", "maximum")
        ]
        shape = " x ".join(str(size) for size in one["shape"])
        parameters.add_row(one["name"], shape, one["dtype"], *numbers)
    return [run, parameters]


def findings_table(findings: Iterable[Any]) -> Table:
    """Return the doctor's findings."""
    table = Table(title="veloflow doctor")
    for name in ("what", "status", "found", "cure"):
        table.add_column(name)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in findings:
        status = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(finding.name, status, finding.value, finding.cure)
    return table
