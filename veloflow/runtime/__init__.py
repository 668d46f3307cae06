"""The shells: running workflows, finding definitions, checkpoints, files, signals, clocks.

The names below are loaded when first used: what starts a slave in an engine's worker imports a
launcher from here, and need not wait for all that a run takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.late import late_names

if TYPE_CHECKING:
    from veloflow.runtime.api import load, run
    from veloflow.runtime.definition import Definition, find_definition, known_definitions
    from veloflow.runtime.result import Result
    from veloflow.runtime.session import Session

__all__ = [
    "Definition",
    "Result",
    "Session",
    "find_definition",
    "known_definitions",
    "load",
    "run",
]

__getattr__ = late_names(
    __name__,
    {
        "Definition": "veloflow.runtime.definition",
        "Result": "veloflow.runtime.result",
        "Session": "veloflow.runtime.session",
        "find_definition": "veloflow.runtime.definition",
        "known_definitions": "veloflow.runtime.definition",
        "load": "veloflow.runtime.api",
        "run": "veloflow.runtime.api",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
