"""The master of slaves: the shell around the pure master, and what it keeps of each slave."""

from __future__ import annotations

__all__: list[str] = []  # a name is imported from the module that has it: a slave loads few of them
