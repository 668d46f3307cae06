"""A worker's side of a key-value store: what a training loop written by hand calls."""

from __future__ import annotations

import platform
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import ClusterError, InputError
from veloflow.kvstore.serving import StoreServer
from veloflow.protocol.codec import decode_with, encode
from veloflow.protocol.kvstore.client import Client, State
from veloflow.protocol.kvstore.messages import (
    FromWorker,
    Leave,
    Pulse,
    Push,
    Start,
    Value,
    store_decoder,
)
from veloflow.runtime.keys import ClientKeys, check_address
from veloflow.runtime.transport.connections import ZmqConnection
from veloflow.runtime.transport.found_vector import FoundVector
from veloflow.runtime.transport.memory import MemoryConnection
from veloflow.runtime.transport.payloads import header_of, view
from veloflow.sharing.codecs import Range, parse_codec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.kvstore.updaters import Updater
    from veloflow.runtime.transport.connections import Connection

__all__ = ["KeyValueStore"]

#: commands that may be on their way; more wait until the store has taken some
_WINDOW = 64


class KeyValueStore:
    """Values by key that several processes share: ``init``, ``push``, ``pull`` (MXNet's words).

    ::

        store = veloflow.KeyValueStore("tcp://127.0.0.1:5600")  # veloflow store ADDRESS …
        store.init("w", weights)              # the first worker's counts
        for x, y in batches[store.rank :: store.workers]:
            store.pull("w", out=weights)
            store.push("w", gradient(weights, x, y))

    A push does not wait for anybody. A pull has all of this worker's own pushes of the key in it;
    in a "sync" store it so waits until the others have pushed as often, or are gone. Each push
    counts once, also when the connection breaks and it is sent again. Use it from one thread.

    Args:
        address: of ``veloflow store`` or a :class:`~veloflow.kvstore.StoreServer`; None for a
            store of this process alone, which is served by a thread.
        updater: only with a store of this process: see :meth:`set_updater`.
        codec: how pushes travel: "onebit", "float16", "topk:0.01" …; residuals are kept by key.
        key, master_key: this worker's secret key file and the store's public one, for addresses
            beyond this machine.
        name: for people.
        observe: only pull; no step waits for this worker.
        patience: scales every wait.

    Raises:
        InputError: the address is none, or needs keys.
        OptionError: there is no such codec or updater.
        ClusterError: the store does not answer, or takes this worker not in.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        updater: str | Updater | None = None,
        codec: str = "plain",
        key: str | Path | None = None,
        master_key: str | Path | None = None,
        name: str = "",
        observe: bool = False,
        patience: float = 1.0,
    ) -> None:
        self._codec = parse_codec(codec)
        self._own: StoreServer | None = None
        if address is None:
            place = f"memory://store-{secrets.token_hex(8)}"
            self._own = StoreServer(place, updater=updater or "assign", patience=patience).start()
            address = place
        elif updater is not None:
            raise InputError(_NOT_SENT)
        keys = _keys(key, master_key)
        check_address(address, has_keys=keys is not None)
        self._worker = secrets.token_hex(16)
        self._patience = patience
        self._decoder = store_decoder()
        self._pulled: dict[int, NDArray[Any]] = {}  # by question
        self._ways: dict[str, FoundVector] = {}
        self._arrays: dict[int, list[NDArray[Any]]] = {}  # of commands that are not taken
        self._connection = _connect(address, keys, b"K" + secrets.token_bytes(15), patience)
        self._address = address
        greeting = Client.greeting(
            self._worker, codec, name or platform.node(), observes=observe
        )  # fmt: skip
        self._machine = Client(greeting, patience)
        self._pulses = _Pulses(
            _connect(address, keys, b"B" + secrets.token_bytes(15), patience), self._worker
        )
        try:
            self._tell(self._machine.start(time.monotonic()))
            self._wait_for(lambda: self._machine.joined is not None)
        except BaseException:
            self.close()
            raise
        assert self._machine.joined is not None
        self._pulses.start(self._machine.joined.pulse_every)

    @property
    def rank(self) -> int:
        """This worker's place, from 0."""
        return self._machine.joined.rank if self._machine.joined else 0

    @property
    def workers(self) -> int:
        """How many workers the store was started for."""
        return self._machine.joined.workers if self._machine.joined else 1

    @property
    def mode(self) -> str:
        """The store's: sync or async."""
        return self._machine.joined.mode if self._machine.joined else ""

    def set_updater(self, updater: str | Updater) -> None:
        """Say how pushes change values: a solver's word, or a function (key, pushed, value).

        Only for a store of this process: elsewhere it is given where the store starts, for
        nothing that comes over the network is run there.

        Raises:
            InputError: the store is another process's.
        """
        if self._own is None:
            raise InputError(_NOT_SENT)
        self._own.set_updater(updater)

    def init(self, key: str, value: NDArray[Any]) -> None:
        """Give a key its first value; if another worker was first, its value stays.

        Args:
            key: any name.
            value: numbers of any shape.
        """
        array = _portable(key, value)
        self._command(Start, key, [array], (header_of("value", array),))

    def push(self, key: str, value: NDArray[Any]) -> None:
        """Send what is to be put into a key's value, a gradient; it is not waited for.

        Args:
            key: one that was started.
            value: of the key's shape and dtype; it may be changed after the call.
        """
        array = _portable(key, value)
        way = self._ways.get(key)
        if way is None:
            span = Range(key, 0, array.shape)
            way = self._ways[key] = FoundVector(array.size, array.dtype, self._codec, [span])
        headers, arrays = way.write(array.reshape(-1))
        self._command(Push, key, arrays, headers)

    def pull(self, key: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a key's value, in ``out`` if that is given.

        Raises:
            InputError: there is no such key, ``out`` has another shape or dtype, or an earlier
                command was wrong.
            ClusterError: the store is gone.
        """
        request, said = self._machine.ask(key, time.monotonic())
        self._tell(said)
        self._wait_for(lambda: request in self._machine.answers)
        self._raise_faults()
        answer = self._machine.answers.pop(request)
        if not isinstance(answer, Value):
            raise InputError(answer)
        value = self._pulled.pop(request)
        if out is None:
            return value.copy()
        if out.shape != value.shape or out.dtype != value.dtype:
            raise InputError(
                f"pull of {key!r}: out is {out.dtype} {out.shape}, and the value {value.dtype} "
                f"{value.shape}"
            )
        np.copyto(out, value)
        return out

    def flush(self) -> None:
        """Wait until the store has all that was pushed.

        Raises:
            InputError: a command was wrong.
            ClusterError: the store is gone.
        """
        self._wait_for(lambda: not self._machine.untaken)
        self._raise_faults()

    def close(self) -> None:
        """Leave: from now on nobody waits for this worker."""
        if self._machine.state is State.HERE:
            self._connection.send([encode(Leave(self._worker))])
        self._pulses.stop()
        self._connection.close()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> KeyValueStore:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None and self._machine.state is State.HERE:
            try:
                self.flush()
            finally:
                self.close()
        else:
            self.close()

    # -- talking ------------------------------------------------------------------------------

    def _command(
        self, kind: type[Start] | type[Push], key: str, arrays: list[NDArray[Any]], headers: Any
    ) -> None:
        self._raise_faults()
        self._wait_for(lambda: self._machine.untaken < _WINDOW)
        said = self._machine.command(kind, key, headers, time.monotonic())
        self._arrays[self._machine.number] = arrays
        self._tell(said)
        self._listen()

    def _tell(self, messages: list[FromWorker]) -> None:
        for message in messages:
            arrays: list[NDArray[Any]] = []
            if isinstance(message, Start | Push):
                arrays = self._arrays.get(message.number, [])
            try:
                self._connection.send([encode(message), *(one.data for one in arrays)])
            except ClusterError:
                raise ClusterError(
                    f"the store at {self._address} takes nothing from this worker: it is busy, "
                    "not there, or does not accept its keys"
                ) from None

    def _listen(self) -> None:
        """Handle all that has arrived."""
        while (frames := self._connection.receive()) is not None:
            message, arrays = decode_with(self._decoder, frames)
            self._tell(self._machine.hear(message, time.monotonic()))
            if isinstance(message, Value) and message.request in self._machine.answers:
                self._pulled[message.request] = view(message.frames[0], arrays[0])
        for number in [one for one in self._arrays if not self._machine.is_untaken(one)]:
            del self._arrays[number]

    def _wait_for(self, is_so: Any) -> None:
        self._listen()
        while not is_so():
            if self._machine.state is State.FAILED:
                raise ClusterError(f"{self._machine.failure} ({self._address})")
            deadline = self._machine.deadline
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                self._tell(self._machine.pass_time(now))
                continue
            self._connection.wait(0.25 if deadline is None else min(0.25, deadline - now))
            self._listen()

    def _raise_faults(self) -> None:
        if self._machine.faults:
            raise InputError(self._machine.faults.pop(0))


_NOT_SENT = (
    "an updater is not sent to a store of another process: give it where that starts, as in "
    "veloflow store ADDRESS --updater momentum:0.1"
)


class _Pulses:
    """Says that the worker lives, from a thread and over a connection of its own."""

    def __init__(self, connection: Connection, worker: str) -> None:
        self._connection = connection
        self._message = encode(Pulse(worker))
        self._is_over = threading.Event()
        self._every = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, every: float) -> None:
        """Begin, with so many seconds between two signs of life."""
        self._every = every
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(self._every):
            try:
                self._connection.send([self._message])
            except ClusterError:
                return  # the store takes nothing: who asks it something is told so
            while self._connection.receive() is not None:
                pass

    def stop(self) -> None:
        """End."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._connection.close()


def _keys(key: str | Path | None, master_key: str | Path | None) -> ClientKeys | None:
    if key is None and master_key is None:
        return None
    if key is None or master_key is None:
        raise InputError("a worker needs two keys: give both key and master_key")
    return ClientKeys.load(Path(key), Path(master_key))


def _connect(address: str, keys: ClientKeys | None, identity: bytes, patience: float) -> Connection:
    if address.startswith("memory://"):
        return MemoryConnection(address, identity)
    return ZmqConnection(address, identity, keys, patience=patience)


def _portable(key: str, value: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that can travel; it is kept until the store has it."""
    array = np.array(value, order="C")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(f"the value of {key!r} is of {array.dtype}; only numbers travel")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
