"""A run in the terminal: a live bar, a line for each epoch, a summary; or JSON, a line an event."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from veloflow.core import (
    EpochDone,
    Events,
    Message,
    Progress,
    Settings,
    SharingStatus,
    Workflow,
)
from veloflow.views.report import summary_tables
from veloflow.views.sharing import sharing_words
from veloflow.views.times import duration

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ProgressBars", "TerminalView", "Watched", "epoch_line"]

_CLASSES = ("train", "validation", "test")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Recorded(Protocol):
    def as_json(self) -> Mapping[str, Any]: ...


class Watched(Protocol):
    """What a view must know of a run; ``veloflow.runtime.Session`` has it."""

    @property
    def workflow(self) -> Workflow:
        """The workflow that runs."""

    @property
    def events(self) -> Events:
        """Where its units publish."""

    @property
    def definition(self) -> _Named:
        """Its definition."""

    @property
    def device(self) -> _Named:
        """Where it runs."""

    @property
    def settings(self) -> Settings:
        """Seed and the like."""


class TerminalView:
    """Shows a run. A context manager, which leaves the terminal as it was whatever happens::

        with TerminalView() as view:
            view.finish(veloflow.run("digits_mlp", watch=view.watch))

    On a terminal a bar shows how far the epoch is; elsewhere there are plain lines only.

    Args:
        as_json: print a JSON object a line for each event instead: ``{"event": "start" | "message"
            | "epoch" | "sharing" | "result" | "failed", …}``. What is not finite is null.
        quiet: show nothing.
        console: where to write.
        clock: returns seconds.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._console = console or Console(highlight=False)
        self._clock = clock
        self._started = clock()
        self._bars: ProgressBars | None = None
        self._sharing: SharingStatus | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_bars()
        if error is not None and self._as_json and not self._quiet:
            self._say_json("failed", error=type(error).__name__, text=str(error))

    # -- what a run calls ---------------------------------------------------------------------

    def watch(self, session: Watched) -> None:
        """Follow a run that is about to start."""
        session.events.subscribe(EpochDone, self._on_epoch)
        session.events.subscribe(Message, self._on_message)
        session.events.subscribe(SharingStatus, self._on_sharing)
        self._started = self._clock()
        if self._quiet:
            return
        name, device = session.definition.name, session.device.name
        seed = session.settings.seed
        if self._as_json:
            self._say_json("start", workflow=name, device=device, seed=seed)
            return
        self._say(Text.assemble((name, "bold"), f" on {device}, seed {seed}"))
        if self._console.is_terminal:
            self._bars = ProgressBars(session.workflow, self._console, self._clock)
            self._bars.start()

    def finish(self, result: _Recorded) -> None:
        """Show what a run came to."""
        self._stop_bars()
        if self._quiet:
            return
        record = result.as_json()
        if self._as_json:
            self._say_json("result", **record)
        else:
            self._console.print(Group(*summary_tables(record)))

    # -- events -------------------------------------------------------------------------------

    def _on_epoch(self, event: EpochDone) -> None:
        seconds = self._clock() - self._started
        if self._quiet:
            return
        if self._as_json:
            record = dict(event.record)
            self._say_json("epoch", record=record, improved=event.improved, seconds=seconds)
            if self._sharing is not None:
                self._say_json("sharing", **self._sharing.values)
        else:
            self._say(epoch_line(event.record, improved=event.improved, seconds=seconds))

    def _on_sharing(self, event: SharingStatus) -> None:
        self._sharing = event
        if self._bars is not None:
            self._bars.sharing = sharing_words(event.values)

    def _on_message(self, event: Message) -> None:
        if self._quiet:
            return
        if self._as_json:
            self._say_json("message", text=event.text)
        else:
            self._say(Text(event.text, "dim"))

    def _say(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def _say_json(self, event: str, **values: object) -> None:
        line = json.dumps(_finite({"event": event, **values}), default=str, allow_nan=False)
        self._console.out(line, highlight=False)

    def _stop_bars(self) -> None:
        if self._bars is not None:
            bars, self._bars = self._bars, None
            bars.stop()


class ProgressBars:
    """A bar for each unit that tells its progress, drawn ten times a second by rich's thread.

    A unit whose ``progress()`` fails is not asked again, and the failure is shown.

    Args:
        workflow: whose units are asked.
        console: a terminal.
        clock: returns seconds.
    """

    def __init__(
        self, workflow: Workflow, console: Console, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._workflow = workflow
        self._clock = clock
        self._started = clock()
        self._failed: dict[str, str] = {}
        self.sharing = ""  #: a line on the sharing of parameters
        self._spinner = Spinner("dots", "preparing")
        self._live = Live(
            console=console, refresh_per_second=10, transient=True, get_renderable=self._draw
        )

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def stop(self) -> None:
        """Take the bars off the terminal."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        found = [one for one in self._ask() if one.total > 0]
        failures = [
            Text(f"the progress of unit {path!r} cannot be shown: {why}", "yellow")
            for path, why in self._failed.items()
        ]
        shared = [Text(self.sharing, "dim")] if self.sharing else []
        if not found:
            return Group(*failures, self._spinner, *shared)
        rows = Table.grid(padding=(0, 2))
        seconds = f"{self._clock() - self._started:.0f} s"
        for one in found:
            bar = ProgressBar(one.total, min(one.done, one.total), width=32)
            rows.add_row(one.text, bar, f"{one.done:,}/{one.total:,}", seconds)
            seconds = ""
        return Group(*failures, rows, *shared)

    def _ask(self) -> list[Progress]:
        found = []
        for unit in tuple(self._workflow.all_units()):
            if unit.path in self._failed:
                continue
            try:
                progress = unit.progress()
            except Exception as error:  # this thread only shows; the run itself goes on
                self._failed[unit.path] = f"{type(error).__name__}: {error}"
            else:
                found += [progress] if progress is not None else []
        return found


#: of a class in an epoch's record; what else there is are metrics
_USUAL_ENTRIES = frozenset({"samples", "n_errors", "error_percent", "loss", "loss_max", "loss_min"})


def epoch_line(record: Mapping[str, Any], *, improved: bool, seconds: float) -> Text:
    """Return an epoch's record as a line: error and loss of each class, seconds so far, if best."""
    line = Text(f"epoch {record['epoch']:4d}")
    deciding = next((name for name in ("validation", "train", "test") if name in record), "")
    for name in _CLASSES:
        entry = record.get(name)
        if entry is None:
            continue
        style = "bold green" if improved and name == deciding else ""
        line.append(f"  {name} ", "dim")
        if "error_percent" in entry:
            line.append(f"{entry['error_percent']:6.2f} %", style)
            line.append(" loss ", "dim").append(f"{entry['loss']:<6.4g}")
        else:
            line.append("loss ", "dim").append(f"{entry['loss']:<10.6g}", style)
        for metric in [one for one in entry if one not in _USUAL_ENTRIES]:
            line.append(f" {metric} ", "dim").append(f"{entry[metric]:<6.4g}")
    line.append(f"  {duration(seconds):>7}")
    return line.append("  best", "green") if improved else line


def _finite(value: object) -> object:
    """Return JSON values with null where a number is not finite: JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
