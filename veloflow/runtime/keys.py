"""CURVE keys: who may talk to a master over the network, and how a slave knows its master.

A folder of keys holds ``master.key`` (public) and ``master.key_secret``, and in ``slaves/`` a pair
for each slave that may join. A slave's machine needs its own ``NAME.key_secret`` and the master's
``master.key``. The files are those of ``zmq.auth``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veloflow.errors import InputError, NotFoundError, StorageError

# zmq.auth brings asyncio along: it is imported where it is used, which a slave with an offer is not
if TYPE_CHECKING:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator

__all__ = ["ClientKeys", "ServerKeys", "add_slave", "check_address", "make_keys"]

_MASTER = "master"


def make_keys(folder: Path) -> Path:
    """Make the master's pair of keys; return the public file.

    Raises:
        InputError: there are keys already.
        StorageError: the folder cannot be written.
    """
    return _make(folder, _MASTER)


def add_slave(folder: Path, name: str) -> Path:
    """Make a pair of keys for a slave, which the master accepts; return the secret file.

    Raises:
        NotFoundError: the folder has no keys of a master.
        InputError: the name is taken, or cannot be a file's.
        StorageError: the folder cannot be written.
    """
    if not (folder / f"{_MASTER}.key_secret").is_file():
        raise NotFoundError(f"no master's keys in {folder}; make them: veloflow keys new {folder}")
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"{name!r} is no name for a slave's keys; use letters and digits")
    return _make(folder / "slaves", name).with_suffix(".key_secret")


def _make(folder: Path, name: str) -> Path:
    if (folder / f"{name}.key_secret").exists():
        raise InputError(f"{folder / name}.key_secret is there already; remove it to make another")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mask = os.umask(0o077)
        try:
            from zmq.auth import create_certificates

            public, _ = create_certificates(folder, name)
        finally:
            os.umask(mask)
    except OSError as error:
        raise StorageError(f"keys cannot be written to {folder}: {error.strerror}") from error
    return Path(public)


def _load(path: Path, *, secret: bool) -> tuple[bytes, bytes]:
    """Return the public and the secret key of a file, as Z85 text."""
    if not path.is_file():
        raise NotFoundError(f"no key file {path}; make keys with: veloflow keys new DIR")
    if secret and path.stat().st_mode & 0o077:
        raise InputError(f"{path} can be read by others; run: chmod 600 {path}")
    from zmq.auth import load_certificate

    try:
        public, private = load_certificate(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no key file: {error}") from None
    if secret and private is None:
        raise InputError(f"{path} holds no secret key; give the file that ends in .key_secret")
    return public, private or b""


@dataclass
class ServerKeys:
    """The master's keys, and the public ones of slaves that may come in.

    Attributes:
        public, secret: as Z85 text.
        accepted: public keys of slaves.
    """

    public: bytes
    secret: bytes
    accepted: set[bytes] = field(default_factory=set)

    @classmethod
    def load(cls, folder: Path) -> ServerKeys:
        """Read a folder of keys.

        Raises:
            NotFoundError: there is none.
            InputError: a file is damaged, or a secret one can be read by others.
        """
        public, secret = _load(folder / f"{_MASTER}.key_secret", secret=True)
        slaves = sorted((folder / "slaves").glob("*.key"))
        return cls(public, secret, {_load(path, secret=False)[0] for path in slaves})

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether this key, Z85 text, may come in; ZAP asks."""
        return key in self.accepted

    def start_authenticator(self, context: zmq.Context[Any]) -> ThreadAuthenticator:
        """Let only those in whose keys are accepted."""
        from zmq.auth.thread import ThreadAuthenticator

        guard = ThreadAuthenticator(context)
        guard.start()
        guard.configure_curve_callback("*", self)
        return guard


@dataclass
class ClientKeys:
    """A slave's keys and its master's public one, as Z85 text."""

    public: bytes
    secret: bytes
    server_public: bytes

    @classmethod
    def load(cls, own: Path, master: Path) -> ClientKeys:
        """Read a slave's secret file and its master's public one.

        Raises:
            NotFoundError: a file is not there.
            InputError: a file is damaged, or the secret one can be read by others.
        """
        public, secret = _load(own, secret=True)
        return cls(public, secret, _load(master, secret=False)[0])


def check_address(address: str, *, has_keys: bool) -> None:
    """Look whether this is an address, and whether it needs keys.

    Raises:
        InputError: it is none; or it can be reached from elsewhere and there are no keys.
    """
    kind, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if kind not in ("tcp", "ipc", "unix", "memory") or not rest or (kind == "tcp" and not host):
        raise InputError(
            f"{address!r} is no address of a master; give one such as tcp://127.0.0.1:5555"
        )
    is_own = kind != "tcp" or host in ("localhost", "::1") or host.startswith("127.")
    if not is_own and not has_keys:
        raise InputError(
            f"{address} can be reached from other machines and needs keys: "
            "make them with veloflow keys new DIR, then give --keys DIR"
        )
