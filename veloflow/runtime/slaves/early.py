"""Gradients that travel in pieces: what leaves a slave early, and what has come to the master."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import WireError
from veloflow.protocol.codec import encode
from veloflow.protocol.messages import Part
from veloflow.runtime.transport.payloads import header_of, view
from veloflow.sharing.departures import LEAST, Departures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from veloflow.protocol.messages import FrameHeader, LeaseId
    from veloflow.runtime.slaves.job_form import Workers
    from veloflow.runtime.transport.connections import Frame
    from veloflow.sharing.departures import Span

__all__ = ["Arriving", "Early", "is_worth_it"]

#: the frame of a piece of a gradient, with the place of its first number
_PIECE = "gradients@"


def is_worth_it(worker: Workers) -> bool:
    """Whether gradients of a worker may leave in pieces: they travel as they are, and are large."""
    way = worker.vector
    is_large = way.size * way.dtype.itemsize > LEAST
    return way.is_shared and is_large and not os.environ.get("VELOFLOW_NO_OVERLAP")


class Early:
    """Sends ranges of a gradient as soon as they are complete, while others are computed.

    Args:
        worker: what computes.
        send: takes frames for the master; it returns before they are there.
    """

    def __init__(self, worker: Workers, send: Callable[[list[Frame]], object]) -> None:
        self._worker = worker
        self._send = send

    def work(self, lease: LeaseId, compute: Callable[[], Any]) -> Any:
        """Compute a job, and send meanwhile what is complete; return what was computed."""
        way = self._worker.vector
        departures = self._departures = Departures(way.size, LEAST // way.dtype.itemsize)

        def look(start: int, stop: int) -> None:
            span = departures.complete(start, stop)
            if span is not None:
                headers, arrays = self._pieces([span])
                self._send([encode(Part(lease, headers)), *(one.data for one in arrays)])

        with self._worker.watched(look):
            return compute()

    def rest(self) -> tuple[tuple[FrameHeader, ...], list[NDArray[Any]]]:
        """Return what did not leave early."""
        return self._pieces(self._departures.rest)

    def _pieces(self, spans: Sequence[Span]) -> tuple[tuple[FrameHeader, ...], list[NDArray[Any]]]:
        arrays = [self._worker.gradient(*span) for span in spans]
        headers = (
            header_of(f"{_PIECE}{start}", array)
            for (start, _), array in zip(spans, arrays, strict=True)
        )
        return tuple(headers), arrays


class Arriving:
    """Puts gradients together that come in pieces.

    Args:
        size, dtype: of a gradient.
    """

    def __init__(self, size: int, dtype: DTypeLike) -> None:
        self._size, self._dtype = size, np.dtype(dtype)
        self._here: dict[tuple[bytes, LeaseId], tuple[NDArray[Any], list[Span]]] = {}
        self._handed: dict[int, NDArray[Any]] = {}  # by the number of the piece of work
        self._free: list[NDArray[Any]] = []  # new memory costs more than the copy into it

    def hear(
        self,
        client: bytes,
        lease: LeaseId,
        headers: Sequence[FrameHeader],
        frames: Sequence[Frame],
    ) -> None:
        """Take in pieces of the gradient of a lease.

        Raises:
            WireError: they are no pieces of it, or were there before.
        """
        key = client, lease
        if key not in self._here:
            memory = self._free.pop() if self._free else np.empty(self._size, self._dtype)
            self._here[key] = memory, []
        vector, spans = self._here[key]
        for header, frame in zip(headers, frames, strict=True):
            place = header.name.removeprefix(_PIECE)
            if not (place.isascii() and place.isdecimal()) or len(place) > 15:
                raise WireError(f"a piece of a gradient with {header.name!r:.80}")
            values = view(header, frame)
            start, stop = int(place), int(place) + values.size
            is_new = not any(start < end and begin < stop for begin, end in spans)
            if values.dtype != self._dtype or stop > self._size or not is_new:
                raise WireError(f"numbers {start} to {stop} of a gradient, which have no place")
            np.copyto(vector[start:stop], values.reshape(-1))
            spans.append((start, stop))

    def whole(
        self,
        client: bytes,
        lease: LeaseId,
        headers: Sequence[FrameHeader],
        frames: Sequence[Frame],
    ) -> NDArray[Any] | None:
        """Return the gradient of an update that was sent in pieces; None if it was not.

        Raises:
            WireError: pieces are missing, or wrong.
        """
        own = [number for number, one in enumerate(headers) if one.name.startswith(_PIECE)]
        if not own and (client, lease) not in self._here:
            return None
        self.hear(client, lease, [headers[one] for one in own], [frames[one] for one in own])
        vector, spans = self._here[client, lease]
        if sum(stop - start for start, stop in spans) != self._size:
            raise WireError("a gradient of which pieces are missing")
        return vector

    def accept(self, client: bytes, lease: LeaseId) -> None:
        """Keep the gradient of an update that counts until it is released."""
        entry = self._here.pop((client, lease), None)
        if entry is not None:
            self._handed[lease.number] = entry[0]

    def release(self, number: int) -> None:
        """Use the memory of a gradient anew, which nobody reads any more."""
        vector = self._handed.pop(number, None)
        if vector is not None:
            self._free.append(vector)

    def drop(self, client: bytes, lease: LeaseId | None = None) -> None:
        """Forget what came for a lease, or for all leases of a client."""
        if not self._here:
            return
        for key in [one for one in self._here if one[0] == client and lease in (None, one[1])]:
            self._free.append(self._here.pop(key)[0])
