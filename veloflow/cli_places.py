"""Paths and URLs on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from veloflow.places import is_url, place_of

__all__ = ["PlaceType", "RunCommand"]


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


class RunCommand(click.Command):
    """A command whose ``--resume`` may be followed by the place to go on from.

    What follows is that place when it is a URL, or a checkpoint's folder or file that is there;
    otherwise it is the next argument. ``--resume=PLACE`` is always the place.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn ``--resume PLACE`` into the option that takes it."""
        changed: list[str] = []
        for number, word in enumerate(args):
            following = args[number + 1] if number + 1 < len(args) else ""
            if word == "--resume" and _is_checkpoint(following):
                word = "--resume-from"
            elif word.startswith("--resume="):
                word = "--resume-from=" + word.partition("=")[2]
            changed.append(word)
        return super().parse_args(ctx, changed)


def _is_checkpoint(word: str) -> bool:
    if is_url(word):
        return True
    path = Path(word).expanduser()
    return path.suffix == ".safetensors" or (path / "last.safetensors").is_file()
