"""Paths and URLs on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from veloflow.places import is_url, place_of

__all__ = ["PlaceType"]


class PlaceType(click.Path):
    """A path, as ``click.Path`` takes it, or the URL of something.

    Args:
        **rules: of ``click.Path``, which hold for paths.
    """

    def __init__(self, **rules: Any) -> None:
        super().__init__(path_type=Path, **rules)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or what stands for the URL."""
        if is_url(value):
            found = place_of(value)
            value = str(found) if isinstance(found, Path) else found
        return value if not isinstance(value, str) else super().convert(value, param, ctx)
