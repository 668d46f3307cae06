"""What jobs and their answers are: stretches, blocks of rounds, and looking into answers."""

from __future__ import annotations

__all__: list[str] = []  # a name is imported from the module that has it: a slave loads few of them
