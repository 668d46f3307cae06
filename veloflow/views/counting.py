"""A bar for long work that counts something: samples, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["counting", "telling"]


@contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how many are done of how many; show a bar on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = not quiet and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def telling() -> Iterator[Callable[[int, int, str], None]]:
    """Give a function that is told how far long work is and what it found last.

    A bar on a terminal, elsewhere a line each time; both on the standard error.
    """
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console.is_terminal
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, disable=not shown
    ) as bar:
        task = bar.add_task("starting", total=None)

        def tell(done: int, total: int, says: str) -> None:
            bar.update(task, completed=done, total=total, description=says)
            if not shown:
                console.print(f"{done}/{total} {says}", highlight=False, soft_wrap=True)

        yield tell
