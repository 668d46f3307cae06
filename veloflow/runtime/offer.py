"""An offer: all that a slave needs to join a run, in one secret document.

Whoever has it may join the run, so it is never on a command line: it goes through a pipe, a file
that only its owner can read, or the secret mechanism of the engine that starts the slave.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import msgspec

import veloflow
from veloflow.errors import InputError, NotFoundError, StorageError
from veloflow.runtime.keys import ClientKeys

__all__ = ["Offer"]

#: an offer is a few hundred bytes; nothing longer is read
_LONGEST = 1 << 16


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a slave needs to join a run.

    Attributes:
        address: of the master, as the slave reaches it.
        server_public, public, secret: the master's key and the pair for slaves of this run, as
            Z85 text.
        version: of veloflow on the master.
        python: of the master, such as "3.11": other versions are told, not refused.
        device: what to compute on, as ``--device`` has it.
        patience: scales every wait.
        accepts_definition: run the definition file that the master sends.
    """

    address: str
    server_public: str
    public: str
    secret: str
    version: str = veloflow.__version__
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    device: str = "auto"
    patience: float = 1.0
    accepts_definition: bool = True

    def __repr__(self) -> str:
        return f"Offer({self.address!r}, secret hidden)"

    @property
    def keys(self) -> ClientKeys:
        """The keys for CURVE."""
        return ClientKeys(self.public.encode(), self.secret.encode(), self.server_public.encode())

    def encode(self) -> bytes:
        """Return the document, one line of JSON."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, text: bytes, where: str) -> Offer:
        """Read the document; ``where`` names it in errors.

        Raises:
            InputError: it is none, or is of another version of veloflow.
        """
        try:
            offer = msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise InputError(f"{where} is no offer of a master: {error}") from None
        if offer.version != veloflow.__version__:
            raise InputError(
                f"{platform.node()} has veloflow {veloflow.__version__}, and the master has "
                f"{offer.version}; install the same version on both: "
                f"pip install veloflow=={offer.version}"
            )
        return offer

    @classmethod
    def load(cls, path: Path) -> Offer:
        """Read an offer from a file that only its owner can read.

        Raises:
            NotFoundError: there is no such file.
            InputError: others can read it too, or it is no offer.
        """
        try:
            mode, text = path.stat().st_mode, path.read_bytes()[:_LONGEST]
        except OSError as error:
            raise NotFoundError(f"no offer in {path}: {error.strerror}") from None
        if mode & 0o007:
            raise InputError(f"{path} can be read by others; run: chmod 600 {path}")
        return cls.decode(text, str(path))

    @classmethod
    def from_pipe(cls, descriptor: int) -> Offer:
        """Read an offer from a pipe, up to the end of its first line.

        Raises:
            InputError: the pipe ends before, or it is no offer.
        """
        text = b""
        while not text.endswith(b"\n") and len(text) < _LONGEST:
            more = os.read(descriptor, 1)  # byte by byte: what follows is the watcher's
            if not more:
                break
            text += more
        return cls.decode(text, "standard input")

    def save(self, path: Path) -> Path:
        """Write the document so that nobody else can read it; return the path.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.encode())
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error
        return path
