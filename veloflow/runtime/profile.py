"""``--profile``: a record of what ran when, as a trace that Perfetto and chrome://tracing open.

The file is in the Trace Event Format (JSON): a row for each process and thread with units, the
operations that they launch and the waits inside them; a row for the kernels of an OpenCL device, by
the device's own clock; and a counter of the bytes that operations read and write.

Slaves on this machine keep their own record, which the master takes into its file at the end; times
are those of one clock (CLOCK_MONOTONIC), so their rows fit together.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from veloflow.devices.tracing import traced
from veloflow.runtime.storage.files import check_writable, write_atomically

if TYPE_CHECKING:
    from types import TracebackType

    from veloflow.core import Unit
    from veloflow.devices import Device
    from veloflow.runtime.session import Session

__all__ = ["VARIABLE", "Profile", "profile_of_slave"]

#: tells a local slave in which folder its record is wanted
VARIABLE = "VELOFLOW_PROFILE"
#: entries that are kept at most: about 100 MB of memory, and a file that viewers still open
LIMIT = 500_000

_KERNELS = 0  # the thread number of a device's row


class Profile:
    """Records units, operations, kernels and waits. A context manager that writes the file.

    Args:
        path: the file; with a name that ends in ``.gz`` it is compressed.
        process: what to call this process.
        limit: how many entries to keep; those after it are counted and dropped.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, process: str, *, limit: int = LIMIT) -> None:
        check_writable(path)
        self.path = path
        self.process = process
        self.dropped = 0
        self.operation_name = ""
        self._limit = limit
        self._read = self._written = 0
        #: category, name, begin and end in ns, thread, more
        self._entries: list[tuple[str, str, int, int, int, dict[str, Any] | None]] = []
        self._parts: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._entries:  # what could not even start leaves no file
                self.write()
        finally:
            if self._parts is not None:
                shutil.rmtree(self._parts, ignore_errors=True)

    # -- recording ----------------------------------------------------------------------------

    def observed(self, device: Device) -> Device:
        """Return a device in front of this one that tells what it does; close it at the end."""
        return traced(device, self)

    def watch(self, session: Session) -> None:
        """Record the units of a session; call it before the session runs."""
        session.workflow.tracer = self._traced

    def slaves(self) -> tuple[tuple[str, str], ...]:
        """Return what the environment of local slaves must hold so that they record too."""
        if self._parts is None:
            self._parts = Path(tempfile.mkdtemp(prefix="veloflow-profile-"))
        return ((VARIABLE, str(self._parts)),)

    def _traced(self, unit: Unit, run: Callable[[], None]) -> Callable[[], None]:
        clock, thread = time.perf_counter_ns, threading.get_ident
        path, category = unit.path, f"unit,{unit.group}"

        def recorded() -> None:
            began = clock()
            try:
                run()
            finally:
                ended = clock()
                self._keep(category, path, began, ended, thread())
                if self._read or self._written:
                    moved = {"read": self._read, "written": self._written}
                    self._keep("bytes", "bytes", ended, ended, 0, moved)

        return recorded

    def operation(self, name: str, began: int, ended: int, read: int, written: int) -> None:
        """Take the launch of an operation."""
        self._read += read
        self._written += written
        moved = {"bytes_read": read, "bytes_written": written}
        self._keep("operation", name, began, ended, threading.get_ident(), moved)

    def kernel(self, name: str, operation: str, began: int, ended: int) -> None:
        """Take a kernel's time on the device."""
        self._keep("kernel", name, began, ended, _KERNELS, {"operation": operation})

    def wait(self, began: int, ended: int) -> None:
        """Take a time in which the host waited for the device."""
        self._keep("wait", "wait for the device", began, ended, threading.get_ident())

    def _keep(
        self,
        category: str,
        name: str,
        began: int,
        ended: int,
        thread: int,
        more: dict[str, Any] | None = None,
    ) -> None:
        if len(self._entries) < self._limit:
            self._entries.append((category, name, began, ended, thread, more))
        else:
            self.dropped += 1

    # -- writing ------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the file, with what slaves have recorded.

        Raises:
            StorageError: it cannot be written.
        """
        events = [*self._events(), *self._events_of_slaves()]
        first = min((one["ts"] for one in events if "ts" in one), default=0.0)
        if not os.environ.get(VARIABLE):  # a slave's record keeps the clock that all share
            for one in events:
                if "ts" in one:
                    one["ts"] = round(one["ts"] - first, 3)
        if self.path.suffix == ".gz":
            write_atomically(self.path, [gzip.compress(b"".join(_document(events, self.dropped)))])
        else:
            write_atomically(self.path, _document(events, self.dropped))

    def _events(self) -> Iterator[dict[str, Any]]:
        process = os.getpid()
        yield _named("process_name", process, 0, self.process)
        threads = {_KERNELS: 0}
        for category, name, began, ended, ident, more in self._entries:
            thread = threads.setdefault(ident, len(threads))
            event: dict[str, Any] = {
                "ph": "X", "cat": category, "name": name, "pid": process, "tid": thread,
                "ts": began / 1e3, "dur": (ended - began) / 1e3,
            }  # fmt: skip
            if category == "bytes":
                event["ph"] = "C"
                del event["dur"], event["cat"]
            if more is not None:
                event["args"] = more
            yield event
        for thread in threads.values():
            label = f"host {thread}: units, operations, waits" if thread else "device: kernels"
            yield _named("thread_name", process, thread, label)

    def _events_of_slaves(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._parts.glob("*.json")) if self._parts is not None else ():
            document = msgspec.json.decode(path.read_bytes())
            self.dropped += document["otherData"]["dropped"]
            yield from document["traceEvents"]


def profile_of_slave(path: Path | None, name: str) -> Profile | None:
    """Return the record that a slave is to keep: in the file, or where its master wants it."""
    folder = os.environ.get(VARIABLE)
    if path is None and folder:
        path = Path(folder) / f"{name or 'slave'}-{os.getpid()}.json"
    return None if path is None else Profile(path, f"slave {name}".strip())


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _document(events: list[dict[str, Any]], dropped: int) -> Iterator[bytes]:
    head = {"displayTimeUnit": "ns", "otherData": {"dropped": dropped}}
    yield msgspec.json.encode(head)[:-1] + b',"traceEvents":[\n'
    for place, event in enumerate(events):
        yield (b",\n" if place else b"") + msgspec.json.encode(event)
    yield b"\n]}\n"
