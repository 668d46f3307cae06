"""veloflow: iterative work as a graph of units, on OpenCL or NumPy, alone or farmed out.

The names below are loaded when first used, so that ``import veloflow`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from veloflow.late import late_names

if TYPE_CHECKING:
    from veloflow.core import Bool, Input, Repeater, Unit, Workflow
    from veloflow.errors import VeloflowError
    from veloflow.kvstore import KeyValueStore
    from veloflow.runtime import Result, load, run

__all__ = [
    "Bool",
    "Input",
    "KeyValueStore",
    "Repeater",
    "Result",
    "Unit",
    "VeloflowError",
    "Workflow",
    "__version__",
    "load",
    "run",
]

__version__ = "0.1.0"

_load = late_names(
    __name__,
    {
        "Bool": "veloflow.core",
        "Input": "veloflow.core",
        "KeyValueStore": "veloflow.kvstore",
        "Repeater": "veloflow.core",
        "Result": "veloflow.runtime",
        "Unit": "veloflow.core",
        "VeloflowError": "veloflow.errors",
        "Workflow": "veloflow.core",
        "load": "veloflow.runtime",
        "run": "veloflow.runtime",
    },
)


def __getattr__(name: str) -> object:
    value = _load(name)
    if name in ("Workflow", "load", "run"):
        importlib.import_module("veloflow.views.notebook").install()
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
