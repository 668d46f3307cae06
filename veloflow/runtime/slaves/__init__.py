"""A slave: how a process becomes one, what it computes, and how it shows that it lives."""

from __future__ import annotations

__all__: list[str] = []  # a name is imported from the module that has it: a slave loads few of them
