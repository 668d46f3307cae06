"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["DEBUG", "debug_option", "workflow_option"]

F = TypeVar("F", bound=Callable[..., Any])

#: where a context notes that tracebacks are wanted
DEBUG = "veloflow.debug"


def _remember_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[DEBUG] = True


def debug_option(command: F) -> F:
    """Give a command ``--debug``."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_remember_debug,
        help="Show the traceback of an error.",
    )(command)  # fmt: skip


def workflow_option(command: F) -> F:
    """Give a command ``--workflow``, for definitions that do not come along."""
    return click.option(
        "--workflow", "-w", metavar="WORKFLOW",
        help="The definition, by name or by its file, if it does not come along.",
    )(command)  # fmt: skip
