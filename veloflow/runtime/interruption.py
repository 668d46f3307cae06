"""Ctrl-C, SIGTERM and the clock, turned into wishes that the run meets at its next boundary."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ["Interruption"]


class Interruption:
    """Listens to signals and a timer while a run goes on. A context manager.

    The first Ctrl-C or SIGTERM asks the run to stop where it can be resumed; the second stops it
    at once with KeyboardInterrupt. Outside the main thread signals are left alone.

    Args:
        wish: called with "interrupted" or "interval".
        every: seconds between "interval" wishes; None for none.
    """

    def __init__(self, wish: Callable[[str], None], every: float | None) -> None:
        self._wish = wish
        self._every = every
        self._done = threading.Event()
        self._timer: threading.Thread | None = None
        self._handlers: dict[int, signal._HANDLER] = {}
        self.is_stopping = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)
        if self._every is not None:
            self._timer = threading.Thread(target=self._tick, name="checkpoint timer", daemon=True)
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._timer is not None:
            self._timer.join()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_stopping:
            raise KeyboardInterrupt
        self.is_stopping = True
        self._wish("interrupted")

    def _tick(self) -> None:
        while not self._done.wait(self._every):
            self._wish("interval")
