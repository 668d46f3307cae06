"""Connections and memory between master and slaves: what travels, and by what way."""

from __future__ import annotations

__all__: list[str] = []  # a name is imported from the module that has it: a slave loads few of them
