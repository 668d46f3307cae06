"""The shells: running workflows, finding definitions, checkpoints, files, signals, clocks."""

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
