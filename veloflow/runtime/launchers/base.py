"""What every launcher does: start slaves through an engine, watch, resize, stop.

The engine starts and restarts slave *processes*; jobs and parameters never go through it. Whether
a slave is alive is never asked of the engine: the protocol's own heartbeats know it sooner.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from veloflow.errors import EngineError, OptionError, nearest

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = [
    "Launcher",
    "Reach",
    "convert_engine_options",
    "last_line",
    "look_whether_open",
    "missing_extra",
    "own_address",
]

#: seconds in which an engine's port has to be open
_CONNECT = 5.0

O = TypeVar("O", bound=msgspec.Struct)  # noqa: E741 - the options of an engine


@dataclass(frozen=True)
class Reach:
    """Where the master has to be so that slaves of an engine can reach it.

    Attributes:
        bind: the host that the master listens on.
        advertise: the host that slaves connect to.
    """

    bind: str = "127.0.0.1"
    advertise: str = "127.0.0.1"


class Launcher(ABC, Generic[O]):
    """Starts slaves through an engine. An outline: one small file for each engine.

    Its methods are called from one thread that is not the master's, so they may wait for the
    engine. A launcher is made before the master listens, opened by :meth:`start`, and stopped once.

    Args:
        options: the engine's own, as :attr:`Options` has them.
        handle: a connection of the caller's to the engine, such as a Dask client; or None.
    """

    #: how users call it
    name: ClassVar[str]
    #: what is installed with ``pip install 'veloflow[EXTRA]'``; "" for none
    extra: ClassVar[str] = ""
    #: the type of its options
    Options: ClassVar[type[msgspec.Struct]]
    #: whether :meth:`resize` works while slaves run
    is_elastic: ClassVar[bool] = True

    def __init__(self, options: O, handle: object | None = None) -> None:
        self.options = options
        self.handle = handle
        #: how many slaves will be asked for at the most; set before :meth:`connect`
        self.most = 0

    def connect(self) -> None:
        """Reach the engine, or start one; called before everything else.

        Raises:
            EngineError: there is no such engine, or it does not answer.
        """

    def reach(self) -> Reach:
        """Return where the engine's slaves reach the master; by default on this machine only."""
        return Reach()

    @property
    def is_there(self) -> bool:
        """Whether the engine runs already, and starts and stops slaves within a second.

        Then slaves are started before the master knows that it can run, which is told before
        :meth:`connect`; by default not.
        """
        return False

    @abstractmethod
    def start(self, count: int, offer: Offer) -> None:
        """Ask the engine for so many slaves; 0 for as many as it has places for.

        Raises:
            EngineError: the engine refuses.
        """

    def tend(self) -> Iterable[str]:
        """Look after the slaves five times a second: what the engine lost is asked for again.

        Yields lines for the user.
        """
        return ()

    def resize(self, count: int) -> None:
        """Have so many slaves from now on; those that are too many are told to leave.

        Raises:
            EngineError: this engine cannot, or refuses.
        """
        raise EngineError(f"{self.name} cannot change the number of slaves while a run goes on")

    @abstractmethod
    def stop(self, grace: float) -> None:
        """Take all slaves back. They were told to leave, and have ``grace`` seconds to do so."""

    def describe(self, count: int) -> str:
        """Return what the engine would be told, for ``--dry-run``; called instead of connecting.

        Raises:
            OptionError: an option is missing.
        """
        return f"{self.name}: {count or 'as many slaves as fit'}, {self.options}"


def convert_engine_options(
    kind: type[msgspec.Struct], name: str, given: Mapping[str, Any]
) -> msgspec.Struct:
    """Return an engine's options of ``given`` texts or values.

    Raises:
        OptionError: there is no such option, or its value does not fit.
    """
    known = kind.__struct_fields__
    for option in given:
        if option not in known:
            raise OptionError(
                f"--on {name} has no option {option!r}{nearest(option, known)}; "
                f"there are: {', '.join(known) or 'none'}"
            )
    split = {
        option: value.split(",") if isinstance(value, str) and _is_list(kind, option) else value
        for option, value in given.items()
    }
    try:
        return msgspec.convert(split, kind, strict=False)
    except msgspec.ValidationError as error:
        raise OptionError(f"--on {name}: {error}") from None


def _is_list(kind: type[msgspec.Struct], option: str) -> bool:
    return str(kind.__annotations__[option]).startswith("tuple")


def missing_extra(name: str, extra: str) -> EngineError:
    """Return the error that a package is missing, with its cure."""
    return EngineError(f"--on {name} needs a package: pip install 'veloflow[{extra}]'")


def last_line(text: str) -> str:
    """Return the last line with anything in it: where commands say at length what is wrong."""
    lines = [one.strip() for one in text.splitlines() if one.strip()]
    return lines[-1] if lines else ""


def look_whether_open(name: str, addresses: str, cure: str) -> None:
    """See that something listens at one of ``HOST:PORT,…``, for engines that try it for minutes.

    Raises:
        EngineError: nothing does.
    """
    why = ""
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal()):
            raise OptionError(f"--on {name}: {address!r} is no address; write HOST:PORT")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
            return
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
    raise EngineError(f"--on {name}: nothing answers at {addresses}: {why}; {cure}")


def own_address(towards: str = "") -> str:
    """Return this machine's address as seen from ``towards``, a host; nothing is sent.

    Raises:
        EngineError: there is no way to that host.
    """
    if towards in ("", "localhost", "::1") or towards.startswith("127."):
        return "127.0.0.1"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((towards, 9))  # of a datagram socket: it only chooses the route
            return str(probe.getsockname()[0])
    except OSError as error:
        raise EngineError(
            f"this machine finds no way to {towards}: {error.strerror}; say how slaves reach it: "
            "--advertise HOST"
        ) from None
