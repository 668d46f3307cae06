"""The shells: running workflows, finding definitions, checkpoints, files, signals, clocks.

The names below are loaded when first used: what starts a slave in an engine's worker imports a
launcher from here, and need not wait for all that a run takes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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

_HOMES = {
    "Definition": "definition",
    "Result": "result",
    "Session": "session",
    "find_definition": "definition",
    "known_definitions": "definition",
    "load": "api",
    "run": "api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'veloflow.runtime' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
