"""What people look at: drawn graphs, the terminal, tables. Loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veloflow.views.graph import draw, svg_text, to_dot
    from veloflow.views.terminal import TerminalView

__all__ = ["TerminalView", "draw", "svg_text", "to_dot"]

_HOMES = {
    "TerminalView": "veloflow.views.terminal",
    "draw": "veloflow.views.graph",
    "svg_text": "veloflow.views.graph",
    "to_dot": "veloflow.views.graph",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'veloflow.views' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
