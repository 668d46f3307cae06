"""A server process of ``--topology servers:k``: adds up ranges of gradients, and keeps nothing.

Started by the master as ``python -m veloflow.runtime.slaves.range_server``, it finds what it needs
in its environment, tells its address in a file of the run's private folder, and ends with its
master.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veloflow.errors import ClusterError
from veloflow.protocol.codec import DTYPES
from veloflow.protocol.peers import Enroll
from veloflow.runtime.transport.peers import Peers, fits
from veloflow.sharing.topologies import Group, Packet, RangeServer

__all__ = ["TOLD", "main"]

#: the names of what the master tells in the environment
TOLD = "VELOFLOW_RANGE_SERVER"
_GLANCE = 1.0


@dataclass
class _Attempt:
    """What is under way."""

    enrolled: Enroll
    group: Group
    machine: RangeServer


def main() -> None:
    """Serve until the process is ended: by the master, or when the master is gone."""
    file, host, token, public, secret = os.environ.pop(TOLD).split("\n")
    master = os.getppid()
    peers = Peers(host, token, (public, secret) if public else None)
    path = Path(file)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(peers.address)
    fresh.rename(path)
    server = _Server(peers)
    while os.getppid() == master:
        server.step()
    peers.close()


class _Server:
    """Hears slaves, and tells them totals."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._now: _Attempt | None = None

    def step(self) -> None:
        """Handle what has arrived; wait for it for a while."""
        for one in self._peers.heard(_GLANCE):
            if isinstance(one, Enroll):
                self._enroll(one)
            else:
                self._take(*one)

    def _enroll(self, enroll: Enroll) -> None:
        latest = -1 if self._now is None else self._now.enrolled.number
        if enroll.number <= latest or enroll.dtype not in DTYPES or not enroll.members:
            return
        group = Group(len(enroll.members), enroll.servers, enroll.size)
        self._now = _Attempt(enroll, group, RangeServer(enroll.place, group))
        self._peers.keep(enroll.members)

    def _take(self, number: int, packet: Packet) -> None:
        now = self._now
        if now is None or number != now.enrolled.number or packet.to != now.enrolled.place:
            return
        dtype = np.dtype(now.enrolled.dtype)
        if not fits(packet, now.group.size, dtype, packet.shards):
            return
        out = now.machine.hear(packet)
        try:
            self._peers.carry(number, out, now.enrolled.members)
        except ClusterError as error:  # the slaves will give the attempt up
            print(f"veloflow: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
