"""Kernels and waits watched for an observer: OpenCL's own times of each kernel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from veloflow.devices.opencl.platforms import cl

if TYPE_CHECKING:
    from veloflow.devices.tracing import Observer

__all__ = ["KernelWatch"]

#: events that are kept before their times are asked for, which takes some microseconds each
_KEPT = 8192
#: tries to find how far the driver's clock is ahead of ours; the quickest counts
_TRIES = 9


class KernelWatch:
    """Keeps the events of launches on a queue that has profiling on, and tells their times."""

    def __init__(self, queue: Any, observer: Observer) -> None:
        self._queue, self._observer = queue, observer
        self._events: list[tuple[str, str, Any]] = []
        self._names: dict[Any, str] = {}
        self._ahead = min(self._compare_clocks() for _ in range(_TRIES))[1]

    def _compare_clocks(self) -> tuple[int, int]:
        """Return how long the comparison took, and the driver's clock minus ours, in ns."""
        began = time.perf_counter_ns()
        event = cl.enqueue_marker(self._queue)
        ended = time.perf_counter_ns()
        event.wait()
        return ended - began, event.profile.queued - (began + ended) // 2

    def enqueue(self, queue: Any, kernel: Any, size: Any, local: Any) -> Any:
        """Enqueue a kernel; keep its event and return it."""
        event = cl.enqueue_nd_range_kernel(queue, kernel, size, local)
        name = self._names.get(kernel)
        if name is None:
            name = self._names[kernel] = kernel.function_name
        self._events.append((name, self._observer.operation_name, event))
        return event

    def finish(self) -> None:
        """Wait for all launches, and tell of the wait."""
        began = time.perf_counter_ns()
        self._queue.finish()
        self._observer.wait(began, time.perf_counter_ns())
        if len(self._events) >= _KEPT:
            self.tell()

    def tell(self) -> None:
        """Tell the times of the kernels so far, which are done."""
        events, self._events = self._events, []
        for name, operation, event in events:
            times = event.profile
            began, ended = times.start - self._ahead, times.end - self._ahead
            self._observer.kernel(name, operation, began, ended)
