"""A run on an engine: a launcher in a thread of its own, from the first slave to the last."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from veloflow.errors import EngineError, OptionError, VeloflowError
from veloflow.protocol.elasticity import Bounds
from veloflow.runtime.definition import is_known
from veloflow.runtime.keys import ClientKeys, ServerKeys, check_address
from veloflow.runtime.launchers.base import Launcher
from veloflow.runtime.launchers.registry import launcher_of_handle, open_launcher
from veloflow.runtime.offer import Offer
from veloflow.runtime.transport.connections import ZmqListener

if TYPE_CHECKING:
    import msgspec

__all__ = ["Engine", "describe", "started_early"]

#: how often a launcher looks after its slaves, in seconds
_EVERY = 0.2
#: seconds that slaves have to return after the master's last word
_GRACE = 3.0


class Engine:
    """Slaves that an engine starts for a run.

    It is connected when it is made, so that what is wrong is said before anything runs, and it
    listens from then on: slaves that come before the master is ready wait for its answer.

    Args:
        on: the name of an engine, the caller's own connection to one, or a launcher.
        options: the engine's.
        bounds: how many slaves; 0 for as many as the engine has places for.
        listen: the address to listen on, when the user gives one.
        advertise: the host by which slaves reach the master, when the user gives one.

    Raises:
        NotFoundError, OptionError: there is no such engine or option.
        EngineError: the engine is not installed, or does not answer.
        InputError: the address is none, or cannot be listened on.
    """

    def __init__(
        self,
        on: object,
        options: Mapping[str, Any],
        *,
        bounds: Bounds,
        listen: str = "",
        advertise: str = "",
    ) -> None:
        if listen:
            check_address(listen, has_keys=True)
        self._launcher = _launcher_of(on, options)
        self.name = self._launcher.name
        if bounds.is_elastic and not self._launcher.is_elastic:
            raise OptionError(
                f"--on {self.name} cannot change the number of slaves while a run goes on: "
                f"give one number, such as --slaves {bounds.most}"
            )
        self._launcher.most = bounds.most
        self._wanted = self._count = bounds.least
        if listen and not listen.startswith("tcp://"):
            raise OptionError(f"--on {self.name} needs a tcp:// address, not --listen {listen}")
        self._launcher.connect()
        try:
            reach = self._launcher.reach()
            self._advertise = advertise or reach.advertise
            host = "0.0.0.0" if advertise else reach.bind
            #: of the master, made for this run, which accept the slaves of this run
            self.server_keys, self._slave_keys = keys_for_a_run()
            #: where slaves come in; whoever is the master then closes it as well
            self.listener = ZmqListener((listen or f"tcp://{host}:0",), self.server_keys)
        except BaseException:
            self._launcher.stop(0.0)
            raise
        self._thread: threading.Thread | None = None
        self._fault: VeloflowError | None = None
        self._over = threading.Event()
        self._is_stopped = False
        self._say: Callable[[str], None] | None = None
        self._unsaid: list[str] = []
        self._saying = threading.Lock()

    def offer(self, address: str, *, device: str, patience: float) -> Offer:
        """Return what slaves are told; ``address`` is what the master listens on."""
        port = address.rpartition(":")[2]
        host = f"[{self._advertise}]" if ":" in self._advertise else self._advertise
        keys = self._slave_keys
        return Offer(
            address=f"tcp://{host}:{port}",
            server_public=keys.server_public.decode(),
            public=keys.public.decode(),
            secret=keys.secret.decode(),
            device=device,
            patience=patience,
        )

    def start(self, *, device: str, patience: float) -> None:
        """Have slaves started, and looked after until :meth:`close`; does not wait for them.

        It does nothing if they were started before.

        Args:
            device, patience: of the slaves; see :class:`~veloflow.runtime.offer.Offer`.
        """
        if self._thread is not None:
            return
        offer = self.offer(self.listener.addresses[0], device=device, patience=patience)

        def tend() -> None:
            try:
                self._launcher.start(self._count, offer)
                while not self._over.wait(_EVERY):
                    if self._wanted != self._count:
                        self._count = self._wanted
                        self._launcher.resize(self._count)
                    for line in self._launcher.tend():
                        self._tell(line)
            except VeloflowError as error:
                self._fault = error
            except Exception as error:  # an engine's errors are its own
                self._fault = EngineError(f"--on {self.name}: {type(error).__name__}: {error}")
                self._fault.__cause__ = error

        self._thread = threading.Thread(target=tend, name=f"engine-{self.name}", daemon=True)
        self._thread.start()

    def say_to(self, say: Callable[[str], None]) -> None:
        """Give lines for the user to ``say``, from another thread; first those that waited."""
        with self._saying:
            self._say = say
            for line in self._unsaid:
                say(line)
            self._unsaid.clear()

    def _tell(self, line: str) -> None:
        with self._saying:
            if self._say is None:
                self._unsaid.append(line)
            else:
                self._say(line)

    def scale(self, count: int) -> None:
        """Have so many slaves from now on; the launcher's thread sees to it."""
        self._wanted = count

    def check(self) -> None:
        """Raise what went wrong with the engine; slaves that it has started may still work.

        Raises:
            VeloflowError: the engine refused, or failed.
        """
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Take all slaves back; call it when the master has said its last word."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        failed = sys.exc_info()[0] is not None
        try:
            self._launcher.stop(_grace(failed=failed, has_master=self._say is not None))
        finally:
            self.listener.close()


def _grace(*, failed: bool, has_master: bool) -> float:
    """Return the seconds that slaves have to leave; none have been told to where no master was."""
    if not has_master:
        return 0.0
    return 1.0 if failed else _GRACE


@contextmanager
def started_early(
    workflow: str,
    on: str,
    options: Mapping[str, Any],
    *,
    slaves: str,
    listen: Sequence[str],
    advertise: str,
    device: str,
    patience: float,
) -> Iterator[Engine | str]:
    """Give an engine that starts slaves while the master still loads what it needs itself.

    That is worth it, and done, where the engine runs already. Otherwise its name is given back, as
    where something is wrong that can be seen at once: it is told by whoever looks at all options.
    When this ends, the slaves are gone.

    Args:
        workflow, on, slaves, listen, advertise, device, patience: see :func:`veloflow.run`.
        options: the engine's.

    Raises:
        NotFoundError, OptionError, EngineError, InputError: see :class:`Engine`.
    """
    launcher = open_launcher(on, options) if len(listen) <= 1 and is_known(workflow) else None
    if launcher is None or not launcher.is_there:
        yield on
        return
    bounds, address = Bounds.parse(slaves), listen[0] if listen else ""
    made = Engine(launcher, {}, bounds=bounds, listen=address, advertise=advertise)
    with closing(made) as engine:
        engine.start(device=device, patience=patience)
        yield engine


def _launcher_of(on: object, options: Mapping[str, Any]) -> Launcher[msgspec.Struct]:
    if isinstance(on, Launcher):
        return on
    if isinstance(on, str):
        return open_launcher(on, options)
    return open_launcher(launcher_of_handle(on), options, on)


def describe(on: str, options: Mapping[str, Any], *, slaves: int | str) -> str:
    """Return what an engine would be told, without any secret, and without asking it anything.

    Raises:
        NotFoundError, OptionError: there is no such engine or option.
    """
    launcher = open_launcher(on, options)
    return launcher.describe(Bounds.parse(slaves).least)


def keys_for_a_run() -> tuple[ServerKeys, ClientKeys]:
    """Return new keys of a master, and of the slaves that it accepts."""
    import zmq

    server_public, server_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    server = ServerKeys(server_public, server_secret, {public})
    return server, ClientKeys(public, secret, server_public)
