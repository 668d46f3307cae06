"""Farms: how minibatches become pieces, and results become updates, in each mode of sharing."""

from __future__ import annotations

__all__: list[str] = []  # a name is imported from the module that has it: a slave loads few of them
