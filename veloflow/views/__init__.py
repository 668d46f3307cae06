"""What people look at: drawn graphs, the terminal, tables."""

from veloflow.views.graph import draw, svg_text, to_dot
from veloflow.views.terminal import TerminalView

__all__ = ["TerminalView", "draw", "svg_text", "to_dot"]
