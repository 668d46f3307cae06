"""``veloflow slave``: how a process joins a master and becomes its slave."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from veloflow.devices.selection import choose_device, open_device
from veloflow.errors import ClusterError, DataError, InputError
from veloflow.protocol.codec import decode_from_master, encode
from veloflow.protocol.messages import (
    PROTOCOL,
    Ask,
    Hello,
    Plan,
    Refusal,
)
from veloflow.protocol.slave import Slave
from veloflow.runtime.keys import ClientKeys, check_address
from veloflow.runtime.offer import Offer
from veloflow.runtime.plan import session_of, workers_of
from veloflow.runtime.profile import Profile, profile_of_slave
from veloflow.runtime.slaves.computing import CAPACITY, Computing
from veloflow.runtime.slaves.mischief import Mischief
from veloflow.runtime.slaves.reachability import KeyRefusedError, check_way
from veloflow.runtime.slaves.shell import GLANCE, Shell
from veloflow.runtime.transport.connections import ZmqConnection
from veloflow.runtime.transport.memory import MemoryConnection
from veloflow.runtime.transport.unix import UnixConnection

if TYPE_CHECKING:
    from veloflow.devices import Device
    from veloflow.runtime.session import Session
    from veloflow.runtime.transport.connections import Connection

__all__ = ["join", "join_offer", "run_slave"]


def run_slave(
    address: str,
    device: Device,
    *,
    name: str = "",
    patience: float = 1.0,
    keys: ClientKeys | None = None,
    accept_definition: bool = False,
    profile: Profile | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Join the master at ``address`` and compute until the run is over.

    Args:
        address: such as ``tcp://127.0.0.1:5555``.
        device: what to compute on.
        name: for people.
        patience: scales every wait.
        keys: for CURVE.
        accept_definition: run the definition file that the master sends; it must have keys.
        profile: records the units.
        say: takes a line for the user.

    Raises:
        ClusterError: the master refuses this slave, or is not heard of.
        InputError: the address is none; or this machine has not what is run.
    """
    # a local slave is known by a secret name that its master gave it
    identity = bytes.fromhex(os.environ.pop("VELOFLOW_IDENTITY", ""))
    if not identity:
        identity = b"R" + secrets.token_bytes(15)
        # as local slaves, whose master says it: other numbers of threads may give other bits
        threadpool_limits(1, "blas")
    connect = partial(_connect, address, keys, patience)
    with contextlib.closing(connect(identity)) as connection:
        ask = partial(_ask, connection, patience, say, partial(_fault, address, keys))
        plan = ask()
        session, checksum = session_of(plan, device, accepts_source=accept_definition)
        if profile is not None:
            profile.watch(session)
        with session, contextlib.ExitStack() as stack:
            _set_up(session)
            workers = workers_of(session, plan.options, stack)
            mischief = Mischief.from_environment(name)
            computing = Computing(workers, plan, session.parameters.dtype, mischief, address)
            try:
                hello = Hello(
                    protocol=PROTOCOL,
                    checksum=checksum,
                    name=name or platform.node(),
                    device=device.name,
                    hardware=f"{platform.machine()}{device.fingerprint}",
                    host=platform.node(),
                    pid=os.getpid(),
                    memory=computing.memory.name,
                    capacity=CAPACITY,
                    moves=bool(computing.memory.name) and computing.worker.replica is not None,
                    peer=computing.peer,
                )
                beats = connect(b"B" + secrets.token_bytes(15))
                shell = Shell(Slave(hello, patience=patience), connection, beats, ask, say)
                shell.run(computing)
            finally:
                computing.close()


def _set_up(session: Session) -> None:
    """Set a slave's session up.

    Raises:
        DataError: the data is not here; the message tells of the option for that.
    """
    try:
        session.set_up()
    except DataError as error:
        raise DataError(
            f"{platform.node()}: {error}; or let the master send slaves their samples: run it with "
            "--data-from master"
        ) from error


def _connect(address: str, keys: ClientKeys | None, patience: float, identity: bytes) -> Connection:
    if address.startswith("unix://"):
        return UnixConnection(address, identity, patience=patience)
    if address.startswith("memory://"):
        return MemoryConnection(address, identity)
    return ZmqConnection(address, identity, keys, patience=patience)


def _fault(address: str, keys: ClientKeys | None) -> str:
    """Return why a master may not answer, as far as one can see from here; "" if nothing is wrong.

    Raises:
        KeyRefusedError: to wait is of no use.
    """
    if not address.startswith("tcp://"):
        return ""
    try:
        check_way(address, keys, say=lambda text: None)
    except KeyRefusedError:
        raise
    except ClusterError as error:
        return f": {error}"
    return ""


def _ask(
    connection: Connection,
    patience: float,
    say: Callable[[str], None],
    fault: Callable[[], str],
) -> Plan:
    """Ask the master what is run, again and again until it answers."""
    wait, until = 0.5 * patience, time.monotonic() + 600 * patience
    while time.monotonic() < until:
        connection.send([encode(Ask(PROTOCOL))])
        give_up = time.monotonic() + wait
        while (left := give_up - time.monotonic()) > 0:
            connection.wait(min(left, GLANCE))
            while (frames := connection.receive()) is not None:
                message, _ = decode_from_master(frames)
                if isinstance(message, Plan):
                    return message
                if isinstance(message, Refusal):
                    raise ClusterError(f"the master refuses this slave: {message.reason}")
        say(f"no answer from the master yet{fault()}")
        wait = min(2 * wait, 10 * patience)
    raise ClusterError(f"no answer from the master for {600 * patience:.0f} s")


def join_offer(
    source: Path, *, name: str = "", say: Callable[[str], None] = lambda text: None
) -> None:
    """Join the master of an offer: a file, or ``-`` for a pipe that whoever started us holds.

    When the pipe ends, whoever held it is gone: the slave hands its work back and leaves.

    Raises:
        InputError: it is no offer, or one of another version.
    """
    if str(source) == "-":
        offer = Offer.from_pipe(sys.stdin.fileno())
        leave = partial(_leave_at_the_end_of, sys.stdin.fileno())
        threading.Thread(target=leave, daemon=True).start()
    else:
        offer = Offer.load(source)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != offer.python:
        say(f"this slave has Python {here} and the master {offer.python}: bits may differ")
        name = (
            f"{name or platform.node()} (Python {here}, not {offer.python})"  # the master tells it
        )
    with contextlib.closing(_open(offer.device, say)) as place:
        run_slave(
            offer.address,
            place,
            name=name,
            patience=offer.patience,
            keys=offer.keys,
            accept_definition=offer.accepts_definition,
            say=say,
        )


def _leave_at_the_end_of(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _open(device: str, say: Callable[[str], None]) -> Device:
    place, why = choose_device() if device == "auto" else (open_device(device), "")
    if why:
        say(why)
    return place


def join(
    address: str,
    device: str,
    *,
    name: str = "",
    patience: float = 1.0,
    key: Path | None = None,
    master_key: Path | None = None,
    accept_definition: bool = False,
    profile: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Open a device by name and join the master at ``address``; see :func:`run_slave`."""
    keys = _keys(key, master_key)
    check_address(address, has_keys=keys is not None)
    if accept_definition and keys is None:
        raise InputError(
            "--accept-definition runs code of the master, which must prove who it is: give --key "
            "and --master-key"
        )
    place = _open(device, say)
    record = profile_of_slave(profile, name)
    with contextlib.ExitStack() as stack:
        if record is not None:
            stack.enter_context(record)
        stack.enter_context(contextlib.closing(place))
        if record is not None:
            place = stack.enter_context(contextlib.closing(record.observed(place)))
        run_slave(
            address,
            place,
            name=name,
            patience=patience,
            keys=keys,
            accept_definition=accept_definition,
            profile=record,
            say=say,
        )


def _keys(key: Path | None, master_key: Path | None) -> ClientKeys | None:
    if key is None and master_key is None:
        return None
    if key is None or master_key is None:
        raise InputError("a slave needs two keys: give both --key and --master-key")
    return ClientKeys.load(key, master_key)
