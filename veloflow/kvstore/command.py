"""``veloflow store``: a key-value store as a process of its own, until it is interrupted."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import save_file

from veloflow.kvstore.serving import StoreServer
from veloflow.runtime.keys import ServerKeys
from veloflow.runtime.storage.files import check_writable

__all__ = ["serve"]


def serve(
    address: str,
    keys: Path | None,
    save: Path | None,
    *,
    once: bool,
    say: Callable[[str], None],
    workers: int,
    mode: str,
    updater: str,
    mean: bool,
    patience: float,
) -> None:
    """Hold a store until it is interrupted or told to end; see :class:`StoreServer`.

    Args:
        address: where workers find it.
        keys: a folder of keys, for addresses that other machines can reach.
        save: where to write the values at the end, as safetensors.
        once: end when all workers have come and gone.
        say: takes a line for people.
        workers, mode, updater, mean, patience: the store's own.
    """
    if save is not None:
        check_writable(save)
    server = StoreServer(
        address,
        workers=workers,
        mode=mode,
        updater=updater,
        mean=mean,
        patience=patience,
        keys=None if keys is None else ServerKeys.load(keys),
        say=say,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: server.stop())
    with contextlib.closing(server):
        say(f"the store is at {server.address}, for {workers} workers, {mode}")
        server.serve(until_over=once)
        if save is not None:
            save_file(dict(server.values), save)
        counts = server.counts()
        say(
            f"{counts['applied']} pushes applied, {counts['repeated']} repeated and passed over, "
            f"{counts['lost']} workers lost; {counts['bytes_received']} bytes came, "
            f"{counts['bytes_sent']} went"
        )
