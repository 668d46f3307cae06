"""The process that holds a key-value store: the shell around the pure store."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import InputError, OptionError, WireError
from veloflow.kvstore.updaters import KeyUpdate, Updater, parse_updater
from veloflow.protocol.codec import decode_with, encode
from veloflow.protocol.kvstore.messages import (
    Denied,
    FromWorker,
    Join,
    Push,
    Start,
    Value,
    worker_decoder,
)
from veloflow.protocol.kvstore.server import (
    Action,
    Apply,
    Create,
    Keep,
    PushId,
    Say,
    Send,
    Show,
    Store,
)
from veloflow.runtime.keys import check_address
from veloflow.runtime.transport.connections import ZmqListener
from veloflow.runtime.transport.found_vector import FoundVector
from veloflow.runtime.transport.memory import MemoryListener
from veloflow.runtime.transport.payloads import header_of, view
from veloflow.sharing.codecs import Range, parse_codec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.runtime.keys import ServerKeys
    from veloflow.runtime.transport.connections import Frame, Listener

__all__ = ["StoreServer"]

#: the longest that a server looks at nothing but its socket, in seconds
_GLANCE = 0.25
MODES = ("sync", "async")


class StoreServer:
    """A store that workers reach at an address.

    Args:
        address: ``tcp://HOST:PORT`` (port 0 finds a free one), or ``memory://NAME`` for threads of
            this process.
        workers: how many push to a step ("sync").
        mode: "sync": a step is what all workers have pushed, added in the order of their ranks;
            "async": each push is a step.
        updater: ``assign`` (what was pushed is the value), ``add``, a solver's word such as
            ``momentum:0.1,moment=0.9``; or a function of this process that takes the key, what
            was pushed and the value, which it changes in place. No worker can send one.
        mean: a step is the mean of its pushes and not their sum.
        patience: scales every wait.
        keys: for addresses that other machines can reach.
        say: takes a line for people.

    Raises:
        InputError: the address cannot be bound, or needs keys.
        OptionError: there is no such mode or updater.
    """

    def __init__(
        self,
        address: str,
        *,
        workers: int = 1,
        mode: str = "sync",
        updater: str | Updater = "assign",
        mean: bool = False,
        patience: float = 1.0,
        keys: ServerKeys | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if mode not in MODES:
            raise OptionError(f"mode is {mode!r}; give sync or async")
        if workers < 1:
            raise OptionError(f"workers is {workers}; give 1 or more")
        self._make: Callable[[str, NDArray[Any]], KeyUpdate]
        self.set_updater(updater)
        check_address(address, has_keys=keys is not None)
        self._machine = Store(secrets.token_hex(8), workers, mode, patience)
        self._mean = mean
        self._say = say
        self._decoder = worker_decoder()
        self._values: dict[str, NDArray[Any]] = {}
        self._updates: dict[str, KeyUpdate] = {}
        self._codecs: dict[str, str] = {}  # by worker
        self._ways: dict[tuple[str, str], FoundVector] = {}  # by worker and key
        self._kept: dict[PushId, NDArray[Any]] = {}
        self._heard: NDArray[Any] | None = None  # the array of the present message
        self._is_stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.received = self.sent = 0  #: bytes of arrays
        self._listener: Listener = (
            MemoryListener(address)
            if address.startswith("memory://")
            else ZmqListener([address], keys)
        )
        self.address = self._listener.addresses[0]

    def set_updater(self, updater: str | Updater) -> None:
        """Use this updater for keys that are started from now on.

        Raises:
            OptionError: there is no such updater.
        """
        if isinstance(updater, str):
            self._make = parse_updater(updater)
            return
        change = updater

        def make(key: str, value: NDArray[Any]) -> KeyUpdate:
            return lambda pushed: change(key, pushed, value)

        self._make = make

    @property
    def values(self) -> Mapping[str, NDArray[Any]]:
        """The values as they are; look at them when the server does not serve."""
        return self._values

    @property
    def is_over(self) -> bool:
        """Whether all workers have come and gone."""
        return self._machine.is_over

    def counts(self) -> dict[str, int]:
        """Return what has happened so far."""
        machine = self._machine
        return {
            "applied": machine.applied,
            "repeated": machine.repeated,
            "lost": machine.lost,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
        }

    # -- serving ------------------------------------------------------------------------------

    def serve(self, *, until_over: bool = False) -> None:
        """Answer workers until :meth:`stop` is called.

        Args:
            until_over: end as well when all workers have come and gone.
        """
        while not self._is_stopped.is_set() and not (until_over and self.is_over):
            self._step()

    def start(self) -> StoreServer:
        """Serve in a thread of this process, until :meth:`close`."""
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End :meth:`serve`; may be called from a signal handler or another thread."""
        self._is_stopped.set()

    def close(self) -> None:
        """Stop, and let go of the address."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._listener.close()

    def _step(self) -> None:
        message = self._listener.receive()
        if message is not None:
            self._hear(*message)
            return
        now = time.monotonic()
        deadline = self._machine.deadline
        wait = _GLANCE if deadline is None else min(_GLANCE, max(0.0, deadline - now))
        self._listener.wait(wait)
        was_away = time.monotonic() - now > wait + 1.0  # stopped by Ctrl-Z, with its machine
        if not was_away and not self._has_message():
            self._perform(self._machine.pass_time(time.monotonic()))

    def _has_message(self) -> bool:
        """Whether something has arrived: nobody is silent whose words wait to be heard."""
        message = self._listener.receive()
        if message is None:
            return False
        self._hear(*message)
        return True

    def _hear(self, client: bytes, frames: Sequence[Frame]) -> None:
        try:
            message, arrays = decode_with(self._decoder, frames)
        except WireError as error:
            self._say(f"something that is no message has come: {error}")
            return
        if isinstance(message, Join):
            try:
                parse_codec(message.codec)
            except InputError as error:
                self._listener.send(client, [encode(Denied(str(error)))])
                return
            self._codecs[message.worker] = message.codec
        fault = self._look_into(message, arrays)
        self._perform(self._machine.handle(client, message, time.monotonic(), fault))
        self._heard = None

    def _look_into(self, message: FromWorker, frames: Sequence[Frame]) -> str:
        """Read the array of a command; return what is wrong with it, if anything."""
        self._heard = None
        if not isinstance(message, Start | Push):
            return ""
        self.received += sum(memoryview(one).nbytes for one in frames)
        try:
            if isinstance(message, Start):
                self._heard = _only(message, frames)
                if message.key not in self._values:  # the updater may not like it
                    self._make(message.key, self._heard.copy())
            elif message.key in self._values:
                self._heard = self._read(message, frames)
        except (WireError, InputError) as error:
            return f"{type(message).__name__.lower()} of {message.key!r}: {error}"
        return ""

    def _read(self, push: Push, frames: Sequence[Frame]) -> NDArray[Any]:
        """Return what was pushed, in the key's shape and dtype.

        Raises:
            WireError: it is something else, or not finite.
        """
        value = self._values[push.key]
        way = self._ways.get((push.worker, push.key))
        if way is None:
            codec = parse_codec(self._codecs.get(push.worker, "plain"))
            way = FoundVector(value.size, value.dtype, codec, [Range(push.key, 0, value.shape)])
            self._ways[push.worker, push.key] = way
        found = way.read(None, push.frames, frames)
        if found is None or found.dtype != value.dtype or found.size != value.size:
            said = "nothing" if found is None else f"{found.size} numbers of {found.dtype}"
            raise WireError(f"{said} for a key of {value.shape} {value.dtype}")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise WireError("it has NaN or infinity")
        return found.reshape(value.shape)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._listener.send(action.client, [encode(action.message)])
            elif isinstance(action, Show):
                self._show(action)
            elif isinstance(action, Keep):
                assert self._heard is not None
                self._kept[action.push] = self._heard
            elif isinstance(action, Create):
                assert self._heard is not None
                self._values[action.key] = self._heard.copy()
                self._updates[action.key] = self._make(action.key, self._values[action.key])
            elif isinstance(action, Apply):
                self._apply(action)
            else:
                assert isinstance(action, Say)
                self._say(action.text)

    def _show(self, show: Show) -> None:
        value = self._values[show.key].copy()  # the transport reads it when it likes
        self.sent += value.nbytes
        answer = Value(show.request, show.key, show.version, (header_of("value", value),))
        self._listener.send(show.client, [encode(answer), value.data])

    def _apply(self, apply: Apply) -> None:
        first, *more = (self._kept.pop(one) for one in apply.pushes)
        total = first if not more else first + more[0]
        for one in more[1:]:
            np.add(total, one, out=total)
        if self._mean and more:
            total = (total / len(apply.pushes)).astype(total.dtype)
        self._updates[apply.key](total)


def _only(message: Start, frames: Sequence[Frame]) -> NDArray[Any]:
    if len(frames) != 1:
        raise WireError(f"{len(frames)} arrays; there is one to a key")
    return view(message.frames[0], frames[0])
