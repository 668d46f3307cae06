"""Slaves on machines that are reached by SSH: hosts are checked, and nothing is a shell's line."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import threading
from collections.abc import Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from veloflow.errors import EngineError, OptionError
from veloflow.runtime.launchers.base import Launcher, Reach, missing_extra, own_address
from veloflow.runtime.launchers.task import REFUSED, command

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from veloflow.runtime.offer import Offer

__all__ = ["SSHLauncher", "SSHOptions"]

#: seconds in which a host has to let us in
_LOGIN = 20.0
#: seconds between two starts on a host where a slave ended
_PAUSES = (0.5, 2.0, 10.0, 30.0)


class SSHOptions(msgspec.Struct, frozen=True):
    """Options of ``--on ssh``.

    Attributes:
        hosts: such as a,b:2 for one slave on a and two on b; user@host is a login of its own.
        user: the login on hosts that name none; by default as here.
        port: of the SSH servers.
        python: the interpreter there that has veloflow.
        known_hosts: the file of host keys; by default ~/.ssh/known_hosts. A host that is not in it
            is refused.
        identity: the file of the private key; by default what ssh-agent and ~/.ssh have.
    """

    hosts: tuple[str, ...] = ()
    user: str = ""
    port: int = 22
    python: str = "python3"
    known_hosts: str = ""
    identity: str = ""


class SSHLauncher(Launcher[SSHOptions]):
    """Starts ``veloflow slave`` on each host; the offer goes through the encrypted channel.

    When the connection breaks, the slave there reads the end of its input and leaves.
    """

    name: ClassVar[str] = "ssh"
    extra: ClassVar[str] = "ssh"
    Options: ClassVar[type[msgspec.Struct]] = SSHOptions

    def connect(self) -> None:
        """Read the list of hosts.

        Raises:
            EngineError: asyncssh is not installed.
            OptionError: there are no hosts.
        """
        try:
            import asyncssh
        except ImportError:
            raise missing_extra(self.name, self.extra) from None
        self._asyncssh: Any = asyncssh
        self._places = [place for text in self.options.hosts for place in _places_of(text)]
        if not self._places:
            raise OptionError("--on ssh needs hosts: --engine-option hosts=one,user@two:4")
        self._lines: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True)
        self._thread.start()
        self._slaves: list[_Place] = []
        self._leaving: list[_Place] = []

    def reach(self) -> Reach:
        """Return this machine's address as seen from the first host."""
        own = own_address(self._places[0].rpartition("@")[2])
        return Reach(own, own)

    def start(self, count: int, offer: Offer) -> None:
        """Start slaves in the first ``count`` places; in all for 0."""
        if max(count, self.most) > len(self._places):
            raise OptionError(
                f"--slaves {max(count, self.most)}: the hosts have {len(self._places)} places; "
                "give more, or several slaves to a host: hosts=one:2,two:4"
            )
        self._offer = offer
        self._submit(self._check(self._places[0])).result()
        self.resize(count or len(self._places))

    def resize(self, count: int) -> None:
        """Have slaves in the first ``count`` places; those in the last ones leave."""
        while len(self._slaves) > count:  # the end of its input tells a slave to leave
            self._leaving.append(self._slaves.pop())
            self._loop.call_soon_threadsafe(self._leaving[-1].leave.set)
        while len(self._slaves) < count:
            place, name = self._places[len(self._slaves)], f"ssh-{len(self._slaves) + 1}"
            self._slaves.append(one := _Place(place, name))
            one.kept = self._submit(self._keep(one))

    def _submit(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _login(self, place: str) -> Any:
        user, _, host = place.rpartition("@")
        options = self.options
        wishes: dict[str, Any] = {"port": options.port, "login_timeout": _LOGIN}
        if user or options.user:
            wishes["username"] = user or options.user
        if options.known_hosts:
            wishes["known_hosts"] = options.known_hosts
        if options.identity:
            wishes["client_keys"] = [options.identity]
        return self._asyncssh.connect(host, keepalive_interval=15, **wishes)

    async def _check(self, place: str) -> None:
        """Log in once, so that a wrong key or host is said before anything runs."""
        try:
            async with self._login(place):
                pass
        except (OSError, self._asyncssh.Error) as error:
            raise EngineError(f"--on ssh: {place}: {_reason(error)}") from None

    async def _keep(self, one: _Place) -> None:
        """Have a slave in a place, for as long as it is wanted there."""
        words = command("--offer", "-", "--name", one.name, python=self.options.python)
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                async with self._login(one.host) as connection:
                    # SSH knows lines only: each word is quoted, so none is more than a word
                    process = await connection.create_process(
                        shlex.join(words), encoding=None, stderr=self._asyncssh.STDOUT
                    )
                    process.stdin.write(self._offer.encode())
                    dismissal = asyncio.ensure_future(_end_input(one.leave, process.stdin))
                    try:
                        said = await process.stdout.read()
                        await process.wait_closed()
                    finally:
                        dismissal.cancel()
                    if process.exit_status == 0:
                        return
                    if not one.leave.is_set():
                        lines = said.decode(errors="replace").strip().splitlines()
                        self._lines.append(f"ssh: {one.host}: {lines[-1] if lines else 'it ended'}")
                        one.is_refused = process.exit_status == REFUSED
                        if one.is_refused:  # it would say the same again
                            return
            except (OSError, self._asyncssh.Error) as error:
                self._lines.append(f"ssh: {one.host}: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(one.leave.wait(), pause)
                return

    def tend(self) -> Iterable[str]:
        """Yield what hosts said."""
        while self._lines:
            line = self._lines.pop(0)
            yield line
            if self._slaves and all(one.is_refused for one in self._slaves):
                raise EngineError(f"--on {line}; no place has a slave that could start")

    def stop(self, grace: float) -> None:
        """Wait for the slaves to return; end the input of the others, which makes them leave."""
        places = [*self._slaves, *self._leaving]
        wait([one.kept for one in places if one.kept is not None], grace)
        for one in places:
            self._loop.call_soon_threadsafe(one.leave.set)
        wait([one.kept for one in places if one.kept is not None], grace)
        for one in places:
            if one.kept is not None:
                one.kept.cancel()  # closes its connection
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LOGIN)
        if not self._thread.is_alive():
            self._loop.close()


@dataclass(eq=False)
class _Place:
    """A slave's place: where, its name, what keeps it there, and when it is to leave."""

    host: str
    name: str
    kept: Future[None] | None = None
    is_refused: bool = False
    leave: asyncio.Event = field(default_factory=asyncio.Event)


async def _end_input(leave: asyncio.Event, pipe: Any) -> None:
    await leave.wait()
    pipe.write_eof()


def _reason(error: Exception) -> str:
    """Return what to tell of an error of the connection, with the cure where it is known."""
    if isinstance(error, ConnectionRefusedError):
        return "no SSH server listens there; say where it does: --engine-option port=22"
    return str(error) or type(error).__name__


def _places_of(text: str) -> list[str]:
    """Return host for each slave of ``host:count``."""
    host, colon, count = text.strip().rpartition(":")
    if not colon:
        return [text.strip()] if text.strip() else []
    if not count.isdecimal() or not host or host.startswith("-"):
        raise OptionError(f"--on ssh: {text!r} is no host; write host, or host:count")
    return [host] * int(count)
