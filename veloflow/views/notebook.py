"""Workflows that draw themselves in a notebook."""

from __future__ import annotations

from veloflow.core import Workflow

__all__ = ["install"]


def install() -> None:
    """Let notebooks show a workflow as its drawing; costs nothing until one is shown."""
    Workflow._drawer = _draw


def _draw(workflow: Workflow) -> str:
    from veloflow.views.graph import svg_text

    return svg_text(workflow)
