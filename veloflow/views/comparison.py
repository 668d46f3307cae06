"""Modes of sharing side by side: a table for the terminal, and a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.table import Table

from veloflow.views.chart import Curve, draw_chart
from veloflow.views.times import duration

__all__ = ["Compared", "comparison_chart", "comparison_table"]


class Compared(Protocol):
    """What is shown of one mode with one codec; ``veloflow.runtime.comparison.Row`` has it."""

    sharing: str
    codec: str
    topology: str
    seconds: float
    updates: float
    parameters: float
    less: float
    waiting: float
    staleness: float
    curve: list[tuple[float, float]]
    failure: str
    picked: str

    @property
    def error(self) -> float:
        """The mean error at the end."""

    @property
    def spread(self) -> float:
        """The standard deviation of the errors."""


def comparison_table(rows: Sequence[Compared]) -> Table:
    """Return a row for each mode and codec.

    ``up`` and ``down`` are the bytes of updates and of parameters over sockets (those of local
    slaves are in shared memory), ``less`` how many times fewer the codec has made of the updates.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("sharing", overflow="fold")  # where it is narrow the names give way
    table.add_column("codec", no_wrap=True)
    for name in ("error", "time", "up", "less", "down", "waiting", "stale"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        name = _name(row)
        if row.failure:
            table.add_row(name, row.codec, f"failed: {row.failure:.60}")
            continue
        error = f"{row.error:.2f}" + (f" ± {row.spread:.2f}" if row.spread else "")
        table.add_row(
            *(name, row.codec, error, duration(row.seconds), _size(row.updates)),
            *(f"{row.less:.1f}", _size(row.parameters), f"{100 * row.waiting:.0f} %"),
            f"{row.staleness:.1f}",
        )
    return table


def comparison_chart(rows: Sequence[Compared], path: Path, title: str) -> None:
    """Write the curves of the error by time, from the first epoch of training on.

    Raises:
        InputError: the file is neither .svg nor .png.
    """
    curves = [Curve(_label(row), row.curve[1:]) for row in rows if not row.failure]
    draw_chart(path, title, "seconds of training", "error", curves)


def _name(row: Compared) -> str:
    if row.picked:
        return f"{row.sharing}: {row.picked}"
    return row.sharing if row.topology == "star" else f"{row.sharing}, {row.topology}"


def _label(row: Compared) -> str:
    return _name(row) if row.picked else f"{_name(row)} {row.codec}".removesuffix(" plain")


def _size(count: float) -> str:
    """Return bytes for people."""
    if not count:
        return "-"
    power = min(4, int(math.log10(max(count, 1)) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
