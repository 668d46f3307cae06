"""A run in the terminal: a live bar, a line for each epoch, and a summary at the end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from veloflow.core import EpochDone, Message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from veloflow.runtime.result import Result
    from veloflow.runtime.session import Session

__all__ = ["TerminalView"]


class TerminalView:
    """Shows a run. A context manager; :meth:`watch` is given to ``veloflow.run``.

    On a terminal a bar shows how far the epoch is; elsewhere there are plain lines only.

    Args:
        as_json: one JSON object a line instead.
        quiet: show nothing.
        console: where to write.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, console: Console | None = None
    ) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, session: Session) -> None:
        """Subscribe to the events of a session that is about to run."""
        session.events.subscribe(EpochDone, self._on_epoch)
        session.events.subscribe(Message, lambda event: self._say("message", text=event.text))
        self._say(
            "start",
            workflow=session.definition.name,
            device=session.device.name,
            seed=session.settings.seed,
        )
        if self._console.is_terminal and not self._as_json and not self._quiet:
            self._bar = _SessionBar(session, self._console)
            self._bar.start()

    def finish(self, result: Result) -> None:
        """Show the summary of a result."""
        if self._bar is not None:
            self._bar.stop()
        if self._as_json:
            self._say("result", **result.as_json())
        elif not self._quiet:
            self._console.print(summary_table(result))

    def _on_epoch(self, event: EpochDone) -> None:
        self._say("epoch", record=dict(event.record), improved=event.improved)

    def _say(self, event: str, **values: Any) -> None:
        if self._quiet:
            return
        if self._as_json:
            self._console.print(
                json.dumps({"event": event, **values}, default=str), markup=False, soft_wrap=True
            )
        elif event == "epoch":
            text = epoch_line(values["record"], improved=values["improved"])
            self._console.print(f"{text}  {time.perf_counter() - self._started:7.2f} s")
        elif event == "start":
            self._console.print(
                f"{values['workflow']} on {values['device']}, seed {values['seed']}"
            )
        else:
            self._console.print(values["text"], markup=False)


class _SessionBar(Progress):
    """The bar of an epoch: asks the units how far they are, ten times a second."""

    def __init__(self, session: Session, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            console=console,
            transient=True,
        )
        self._units = list(session.workflow)
        self._shown = self.add_task("starting", total=1)

    def get_renderables(self) -> Any:
        """Bring the bar up to date before each drawing."""
        for unit in getattr(self, "_units", ()):
            found = unit.progress()
            if found is not None and found.total:
                self.update(
                    self._shown,
                    description=found.text,
                    completed=found.done,
                    total=found.total,
                )
                break
        return super().get_renderables()


def epoch_line(record: Mapping[str, Any], *, improved: bool) -> str:
    """Return an epoch's record as a line."""
    parts = [f"epoch {record['epoch']:4d}"]
    for name in ("train", "validation", "test"):
        entry = record.get(name)
        if entry is None:
            continue
        text = f"{name} loss {entry['loss']:.4f}"
        if "error_percent" in entry:
            text = f"{name} {entry['error_percent']:6.2f} % loss {entry['loss']:.4f}"
        parts.append(text)
    return "  ".join(parts) + ("  *" if improved else "   ")


def summary_table(result: Result) -> Table:
    """Return what a run came to, and its five slowest units."""
    table = Table(title=f"{result.workflow} on {result.device}", show_header=False)
    for name, value in result.best.items():
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        table.add_row(f"best {name.replace('_', ' ')}", text)
    table.add_row("seconds", f"{result.seconds:.3f}")
    total = sum(result.unit_seconds.values()) or 1.0
    slowest = sorted(result.unit_seconds.items(), key=lambda item: -item[1])[:5]
    for path, seconds in slowest:
        table.add_row(f"unit {path}", f"{seconds:.3f} s  {100 * seconds / total:4.1f} %")
    table.add_row("parameters sha256", result.parameters_sha256[:16])
    return table
