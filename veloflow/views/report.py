"""Tables for the terminal: results, devices, units, checkpoints, findings of the doctor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich import box
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from veloflow.views.sharing import sharing_rows
from veloflow.views.times import duration, read_times, shares, times_of

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "checkpoint_tables",
    "devices_table",
    "findings_table",
    "json_text",
    "read_times",
    "summary_tables",
    "times_of",
    "units_table",
]

SLOWEST = 5
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class _DeviceInfo(Protocol):
    """The part of ``veloflow.devices.DeviceInfo`` that is shown."""

    @property
    def name(self) -> str: ...
    @property
    def hardware(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def memory(self) -> int: ...
    @property
    def compute_units(self) -> int: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def methods(self) -> Sequence[str]: ...


class _DeviceReport(Protocol):
    """The part of ``veloflow.devices.selection.DeviceReport`` that is shown."""

    @property
    def info(self) -> _DeviceInfo: ...
    @property
    def problems(self) -> Sequence[str]: ...
    @property
    def gemm_gflops(self) -> float | None: ...
    @property
    def small_step_seconds(self) -> float | None: ...


class _Finding(Protocol):
    """The part of ``veloflow.runtime.doctor.Finding`` that is shown."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def cure(self) -> str: ...


def _table(*columns: str, title: str = "", numbers: Iterable[str] = ()) -> Table:
    """Return an empty table in the manner of all of them."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_header=bool(columns),
        show_edge=False,
        pad_edge=False,
        title=Text(title, "bold") if title else None,
        title_justify="left",
        header_style="dim",
    )
    for name in columns:
        is_number = name in numbers
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    return table


def json_text(value: object) -> str:
    """Return dataclasses and plain values as JSON."""
    return json.dumps(value, default=_plain, indent=2)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


# -- a run ----------------------------------------------------------------------------------------


def summary_tables(record: Mapping[str, Any]) -> list[RenderableType]:
    """Return what a run came to: the best epoch, the time, the checksum, the slowest units.

    Args:
        record: the run's result, as ``--result`` writes it.
    """
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    best = _best(record["best"])
    if best:
        facts.add_row("best", best)
    facts.add_row("time", f"{duration(record['seconds'])}, start-up not counted")
    for name, text in sharing_rows(record):
        facts.add_row(name, Text(text))
    facts.add_row("sha256", f"{record['parameters_sha256'][:12]}… of the parameters")
    return ["", facts, *([_slowest(record)] if record["unit_seconds"] else [])]


def _best(best: Mapping[str, Any]) -> Text:
    """Return the best epoch in words; numbers are named ``CLASS_error_percent``, ``CLASS_loss``."""
    parts = []
    for name, value in best.items():
        if name == "epoch":
            continue
        words = name.removesuffix("_percent").replace("_", " ")
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{words} {value:.2f} %" if name.endswith("_percent") else f"{words} {text}")
    text = f"epoch {best['epoch']}" if "epoch" in best else ""
    return Text(f"{text}: {', '.join(parts)}" if parts else text, "bold green")


def _slowest(record: Mapping[str, Any]) -> Table:
    times = times_of(record)
    parts = shares(times)
    around = {path.rpartition("/")[0] for path in times}
    leaves = [path for path in times if path not in around]
    leaves.sort(key=lambda path: -times[path])
    table = _table("slowest units", "time", "share", "", numbers=("time", "share"))
    for path in leaves[:SLOWEST]:
        bar = ProgressBar(1.0, parts[path], width=20, complete_style="yellow")
        table.add_row(Text(path), duration(times[path]), f"{100 * parts[path]:.1f} %", bar)
    return table


def units_table(units: Sequence[Mapping[str, Any]]) -> Table:
    """Return what ``--dry-run`` shows: each unit with shapes, parameters and memory."""
    table = _table(
        *("unit", "class", "output", "parameters", "memory"),
        title="checked, and not run",
        numbers=("parameters", "memory"),
    )
    for unit in units:
        shape = " × ".join(str(size) for size in unit["output"] or ())
        count = f"{unit['parameters']:,}" if unit["parameters"] else ""
        size = _size(unit["bytes"]) if unit["bytes"] else ""
        table.add_row(Text(unit["unit"]), unit["class"], shape, count, size)
    total = f"{sum(unit['parameters'] for unit in units):,}"
    table.add_section()
    table.add_row("all", "", "", total, _size(sum(unit["bytes"] for unit in units)), style="bold")
    return table


def memory_table(arrays: Sequence[Mapping[str, Any]], used: Mapping[str, int]) -> Table:
    """Return what ``--dry-run`` shows of memory: each array, and which ones share a piece of it."""
    table = _table("unit", "array", "shape", "bytes", "shares", title="memory", numbers=("bytes",))
    last = None
    for one in arrays:
        shape = " × ".join(str(size) for size in one["shape"]) + f" {one['dtype']}"
        shares = "" if one["shares"] is None else f"piece {one['shares']}, until {one['until']}"
        name = "" if one["unit"] == last else one["unit"]
        table.add_row(Text(name), Text(one["array"]), shape, _size(one["bytes"]), Text(shares))
        last = one["unit"]
    table.add_section()
    saved = f"sharing saves {_size(used['saved_by_sharing'])}" if used["saved_by_sharing"] else ""
    table.add_row("arrays", "", "", _size(used["arrays"]), saved)
    table.add_row("parameters", "", "with gradients, velocities …", _size(used["parameters"]), "")
    peak = _size(used["arrays"] + used["parameters"])
    table.add_row("peak", "", "without the data set", peak, "", style="bold")
    return table


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


# -- a machine ------------------------------------------------------------------------------------


def devices_table(reports: Iterable[_DeviceReport]) -> Table:
    """Return the devices with the results of their self-tests and measurements."""
    columns = ("device", "hardware and driver", "cores", "memory", "self-test", "speed")
    table = _table(*columns, numbers=("cores", "memory", "speed"))
    for report in reports:
        info = report.info
        place = Text(info.hardware).append(f"\n{info.driver}", "dim")
        test = Text("failed" if report.problems else "passed", _STYLES[_status(report)])
        for method in info.methods:
            place.append(f"\n{method}", "dim")
        for note in (*report.problems, *info.notes):
            place.append(f"\n{note}", "yellow")
        table.add_row(
            Text(info.name, "bold"),
            place,
            str(info.compute_units or ""),
            _size(info.memory) if info.memory else "",
            test,
            _speed(report),
        )
    table.caption = Text(
        "speed: the product of two 512 × 512 matrices; a step of training 784-100-10, minibatch 100"
    )
    table.caption_justify = "left"
    return table


def _status(report: _DeviceReport) -> str:
    return "fail" if report.problems else "ok"


def _speed(report: _DeviceReport) -> str:
    product, step = report.gemm_gflops, report.small_step_seconds
    lines = [] if product is None else [f"{product:.0f} GFLOP/s"]
    lines += [] if step is None else [duration(step)]
    return "\n".join(lines)


def findings_table(findings: Iterable[_Finding]) -> Table:
    """Return the doctor's findings, each with its cure if it needs one."""
    table = _table("", "what", "found", "cure")
    for finding in findings:
        status = Text(finding.status, _STYLES.get(finding.status, ""))
        table.add_row(status, Text(finding.name, "bold"), Text(finding.value), Text(finding.cure))
    return table


# -- a checkpoint ---------------------------------------------------------------------------------


def checkpoint_tables(path: object, found: Mapping[str, Any]) -> list[RenderableType]:
    """Return what is in a checkpoint: the run, its last epoch, and its parameters.

    Args:
        path: the file.
        found: what ``veloflow.runtime.storage.checkpoint.summary`` says of it.
    """
    run = Table.grid(padding=(0, 2))
    run.add_column(style="dim")
    run.add_column(overflow="fold")
    run.add_row("checkpoint", Text(str(path), "bold"))
    run.add_row("workflow", Text(found["workflow"]))
    run.add_row("written", Text(found["reason"]))
    for name, value in {**found["settings"], **found["options"]}.items():
        run.add_row(Text(name), Text(str(value)))
    run.add_row("time", duration(found["seconds"]))
    if found["epochs"]:
        run.add_row("last epoch", _last_epoch(found["epochs"][-1]))
    numbers = ("minimum", "mean", "maximum")
    parameters = _table("parameter", "shape", "dtype", *numbers, numbers=("shape", *numbers))
    for one in found["parameters"]:
        shape = " × ".join(str(size) for size in one["shape"])
        values = ("" if one[name] is None else f"{one[name]:.4g}" for name in numbers)
        parameters.add_row(Text(one["name"]), shape, one["dtype"], *values)
    return [run, "", parameters]


def _last_epoch(record: Mapping[str, Any]) -> Text:
    parts = [f"{record['epoch']}"]
    for name in ("train", "validation", "test"):
        entry = record.get(name)
        if entry is not None:
            error = f"{entry['error_percent']:.2f} %, " if "error_percent" in entry else ""
            parts.append(f"{name} {error}loss {entry['loss']:.4g}")
    return Text("; ".join(parts))
