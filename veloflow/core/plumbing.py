"""Units that only steer control: where a workflow starts, ends and loops."""

from __future__ import annotations

from typing import ClassVar, final

from veloflow.core.unit import Unit

__all__ = ["EndPoint", "Repeater", "StartPoint"]


class _Plumbing(Unit):
    """A unit without work of its own."""

    group: ClassVar[str] = "plumbing"

    def run(self) -> None:
        """Do nothing: the signal is all."""

    @property
    def is_steady(self) -> bool:
        """Yes: it does nothing."""
        return True


@final
class StartPoint(_Plumbing):
    """Where control enters a workflow; every workflow has one, as ``wf.start``."""


@final
class EndPoint(_Plumbing):
    """Where control leaves a workflow; every workflow has one, as ``wf.end``."""


@final
class Repeater(_Plumbing):
    """Closes a loop: runs on any incoming signal, the first one and those that come back."""

    ignores_gate = True
    is_boundary = True
