"""``veloflow slave --check``: the steps of the way to a master in turn, and which one fails.

The steps: the name, the route and the port, what answers there, the keys, and the master's word.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any

import zmq

from veloflow.errors import ClusterError, InputError
from veloflow.protocol.codec import decode_from_master, encode
from veloflow.protocol.messages import PROTOCOL, Ask, Plan, Refusal
from veloflow.runtime.keys import ClientKeys, check_address
from veloflow.runtime.offer import Offer

if TYPE_CHECKING:
    from veloflow.runtime.transport.connections import Frame

__all__ = ["KeyRefusedError", "check", "check_way"]

#: seconds that each step may take
_ANSWER = 5.0
#: the greeting of ZMTP 3 (https://rfc.zeromq.org/spec/37/): signature, version, mechanism …
_GREETING, _MECHANISM = 64, slice(12, 32)
_DONT_WAIT, _DONT_WAIT_SOCKET = int(zmq.NOBLOCK), socket.MSG_DONTWAIT


class KeyRefusedError(ClusterError):
    """The master will not take these keys, however long one waits."""


def check(
    address: str | None,
    offer: Path | None = None,
    key: Path | None = None,
    master_key: Path | None = None,
    *,
    say: Callable[[str], None],
) -> None:
    """Try the way to the master at ``address``, or to that of an ``offer``.

    Args:
        address, key, master_key: as for :func:`~veloflow.runtime.slaves.slave.join`.
        offer: a file with all of these.
        say: takes a line for each step that works.

    Raises:
        ClusterError: a step fails; the message says which, and what to do.
        InputError: the address or a key is none.
    """
    keys: ClientKeys | None = None
    if offer is not None:
        document = Offer.load(offer)
        address, keys = document.address, document.keys
    elif key is not None and master_key is not None:
        keys = ClientKeys.load(key, master_key)
    assert address is not None
    check_way(address, keys, say=say)


def check_way(address: str, keys: ClientKeys | None, *, say: Callable[[str], None]) -> None:
    """Try the way to the master at ``address`` with these keys.

    Raises:
        KeyRefusedError: the master does not accept the keys, or the lack of some.
        ClusterError: another step fails.
        InputError: the address is none.
    """
    check_address(address, has_keys=keys is not None)
    if not address.startswith("tcp://"):
        raise InputError(f"{address}: only tcp:// addresses have a way that can be checked")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{address}: {port!r} is no port; give one from 1 to 65535")
    numbers = _resolve(host.strip("[]"), int(port))
    say(f"name: {host} is {', '.join(numbers)}")
    mechanism = _greet(host.strip("[]"), int(port))
    say(f"port: {port} is open")
    say(f"answer: ZeroMQ, security {mechanism}")
    if mechanism == "CURVE" and keys is None:
        raise KeyRefusedError(
            f"keys: the master at {address} wants keys: give --key and --master-key"
        )
    if mechanism != "CURVE" and keys is not None:
        raise KeyRefusedError(
            f"keys: the master at {address} has none; start it with --keys DIR, or leave ours out"
        )
    _ask(address, keys, say)


def _resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ClusterError(
            f"name: nobody knows {host!r}: {error.strerror}; correct the name, or let the master "
            "give an address that this machine can reach: --advertise HOST"
        ) from None
    return sorted({str(address[0]) for *_, address in found})


def _greet(host: str, port: int) -> str:
    """Connect and read the first bytes; return the security mechanism of a ZeroMQ socket."""
    try:
        with socket.create_connection((host, port), timeout=_ANSWER) as connection:
            # our signature and version 3.1; to name a mechanism that it has not would end the talk
            connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01")
            answer = _read(connection, _GREETING)
    except TimeoutError:
        raise ClusterError(
            f"route: {host}:{port} does not answer for {_ANSWER:g} s: a firewall or a network "
            "address translation swallows what is sent; open the port, or give --listen a fixed one"
        ) from None
    except ConnectionRefusedError:
        raise ClusterError(
            f"port: {host} is there, but nothing listens on {port}: is the master running, and is "
            "this the port that it printed?"
        ) from None
    except ConnectionResetError:
        answer = b""
    except OSError as error:
        raise ClusterError(f"route: there is no way to {host}: {error.strerror or error}") from None
    if len(answer) < _GREETING or answer[:1] != b"\xff" or answer[9:10] != b"\x7f":
        raise ClusterError(
            f"answer: what listens on {host}:{port} does not speak ZeroMQ: it is not a master"
        )
    return answer[_MECHANISM].rstrip(b"\0").decode("ascii", errors="replace")


def _read(connection: socket.socket, length: int) -> bytes:
    """Return what comes within the time, up to ``length`` bytes.

    Raises:
        TimeoutError: it takes too long.
    """
    poller = poll()
    poller.register(connection, POLLIN)
    answer, until = b"", time.monotonic() + _ANSWER
    while len(answer) < length:
        if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        more = connection.recv(length - len(answer), _DONT_WAIT_SOCKET)
        if not more:
            break
        answer += more
    return answer


def _ask(address: str, keys: ClientKeys | None, say: Callable[[str], None]) -> None:
    """Shake hands, ask what is run, and hear the answer."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.set(zmq.ROUTING_ID, b"C" + secrets.token_bytes(15))
        client.set(zmq.LINGER, 0)
        if keys is not None:
            client.set(zmq.CURVE_SECRETKEY, keys.secret)
            client.set(zmq.CURVE_PUBLICKEY, keys.public)
            client.set(zmq.CURVE_SERVERKEY, keys.server_public)
        monitor = client.get_monitor_socket()
        client.connect(address)
        try:
            _shake(monitor, address)
            say("keys: accepted" if keys is not None else "keys: none wanted")
            client.send(encode(Ask(PROTOCOL)))
            if not client.poll(round(_ANSWER * 1000)):
                raise ClusterError(
                    f"master: it does not answer for {_ANSWER:g} s; it may be starting: try again"
                )
            frames: list[Frame] = list(client.recv_multipart(_DONT_WAIT))
            message, _ = decode_from_master(frames)
            if isinstance(message, Refusal):
                raise ClusterError(f"master: it refuses this machine: {message.reason}")
            if isinstance(message, Plan):
                say(f"master: runs {message.workflow}; a slave can join")
        finally:
            client.disable_monitor()
            monitor.close()


def _shake(monitor: zmq.Socket[Any], address: str) -> None:
    """Wait for the end of the handshake."""
    from zmq.utils.monitor import recv_monitor_message  # brings asyncio along

    until = time.monotonic() + _ANSWER
    while (left := until - time.monotonic()) > 0:
        if not monitor.poll(round(left * 1000)):
            break
        event: Any = recv_monitor_message(monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return
        if event in (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
            raise KeyRefusedError(
                f"keys: the master at {address} does not accept them: make a pair with "
                "veloflow keys add, and take its master.key along"
            )
    # so does a master whose own key is another than we know it by
    raise ClusterError(
        f"keys: the master at {address} says nothing for {_ANSWER:g} s; it is stopped, or its key "
        "is not the master.key that was given here"
    )
