"""Files of a run: checkpoints in folders and at URLs, journals, and who may write there."""

from __future__ import annotations

__all__: list[str] = []  # a name is imported from the module that has it: a slave loads few of them
