"""The signs of life of a slave, from a thread of its own, so that work does not hide life."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

from veloflow.errors import ClusterError, WireError
from veloflow.protocol.codec import decode_from_master, encode
from veloflow.protocol.messages import Beat, FromMaster, FromSlave, Introduce

if TYPE_CHECKING:
    from veloflow.protocol.slave import Slave
    from veloflow.runtime.slaves.job_form import Workers
    from veloflow.runtime.transport.connections import Connection

__all__ = ["Heart"]


class Heart:
    """Beats from a thread and over a connection of its own, so that work does not hide life."""

    def __init__(self, machine: Slave, connection: Connection) -> None:
        self.worker: Workers | None = None
        self.heard: queue.SimpleQueue[FromMaster] = queue.SimpleQueue()
        self._machine = machine
        self._connection = connection
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def start(self) -> None:
        """Begin to beat when the slave is taken in."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopping.set()
        self._thread.join()

    def _beat(self) -> None:
        every = 0.05
        while not self._stopping.wait(every):
            if not self._machine.id:
                continue
            every = self._machine.beat_every
            progress = 0 if self.worker is None else self.worker.steps
            beat: FromSlave = Beat(self._machine.id, progress, run=self._machine.run)
            with contextlib.suppress(ClusterError):  # the computing thread will find out too
                self._connection.send([encode(beat)])
                self._listen()
        self._connection.close()

    def _listen(self) -> None:
        while (frames := self._connection.receive()) is not None:
            with contextlib.suppress(WireError):
                message, _ = decode_from_master(frames)
                if isinstance(message, Beat | Introduce):
                    self.heard.put(message)
