"""What people look at: drawn graphs, the terminal, tables. Loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.late import late_names

if TYPE_CHECKING:
    from veloflow.views.graph import draw, svg_text, to_dot
    from veloflow.views.terminal import TerminalView

__all__ = ["TerminalView", "draw", "svg_text", "to_dot"]

__getattr__ = late_names(
    __name__,
    {
        "TerminalView": "veloflow.views.terminal",
        "draw": "veloflow.views.graph",
        "svg_text": "veloflow.views.graph",
        "to_dot": "veloflow.views.graph",
    },
)
