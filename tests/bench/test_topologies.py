"""Bytes and virtual time of a step by each topology: real packets on simulated wires.

Each machine has one wire out and one in, which carry one thing at a time; a message takes its bytes
by the bandwidth on both, and a latency between. Nothing is computed: all gradients are there at 0.
"""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from veloflow.sharing.topologies import Group, RangeServer, parse_topology, shards_of
from veloflow.sharing.topologies.base import chunks_of

pytestmark = pytest.mark.bench

LATENCY = 1e-4
#: what a solver with momentum keeps, and how many minibatches a block has
STATE, BLOCK = 2, 16
WORDS = ("star", "servers:2", "servers:4", "ring", "tree")


class Wires:
    """Machines and what is on its way between them."""

    def __init__(self, machines, bandwidth):
        self.bandwidth = bandwidth
        self.out, self.into = [0.0] * machines, [0.0] * machines
        self.went, self.came = [0] * machines, [0] * machines
        self.queue, self.ticket, self.now = [], 0, 0.0

    def send(self, source, to, nbytes, what):
        took = nbytes / self.bandwidth
        sent = max(self.now, self.out[source]) + took
        self.out[source] = sent
        self.went[source] += nbytes
        self.came[to] += nbytes
        self.ticket += 1
        heapq.heappush(self.queue, (sent + LATENCY, self.ticket, to, took, what))

    def arrivals(self):
        """Yield what has arrived, in order of time; a wire in takes one thing after another."""
        while self.queue:
            when, _, to, took, what = heapq.heappop(self.queue)
            if self.into[to] > when - took:  # it is busy: what comes now is whole later
                when = self.into[to] + took
            self.into[to] = when
            self.now = when
            yield to, what


def star(members, shards, size, bandwidth):
    """Return the wires, the master being the last, and when all have the parameters."""
    wires, master = Wires(members + 1, bandwidth), members
    for one in range(members):
        for _ in shards_of(one, members, shards):
            for first, stop in chunks_of(0, size):
                wires.send(one, master, 4 * (stop - first), "gradient")
    missing = shards * len(chunks_of(0, size))
    for _, what in wires.arrivals():
        missing -= what == "gradient"
        if not missing and what == "gradient":
            for one in range(members):
                for first, stop in chunks_of(0, size):
                    wires.send(master, one, 4 * (stop - first), "parameters")
    return wires, wires.now


def exchanged(word, members, shards, size, bandwidth):
    """The same for a topology of nodes."""
    topology = parse_topology(word)
    group = Group(members, topology.servers, size)
    nodes = [topology.node(one, group, np.float32) for one in range(members)]
    places = [*nodes, *(RangeServer(members + one, group) for one in range(topology.servers))]
    wires = Wires(len(places), bandwidth)
    gradient = np.ones(size, np.float32)

    def carry(packets):
        for packet in packets:
            wires.send(packet.source, packet.to, packet.values.nbytes, packet)

    for place, node in enumerate(nodes):
        carry(node.begin(shards, dict.fromkeys(shards_of(place, members, shards), gradient)))
    for to, packet in wires.arrivals():
        carry(places[to].hear(packet))
    assert all(node.total[0] == shards for node in nodes)
    return wires, wires.now


@pytest.mark.parametrize("size", [79_616, 1_000_000])
def test_bytes_and_time_of_a_step(size):
    print(f"\n{size:,} float32 ({4 * size / 1e6:.2f} MB), a shard a slave, latency {LATENCY} s")
    print("| slaves | topology | master | server | slave in | out | 1 Gbit/s | 10 Gbit/s |")
    for members in (2, 4, 8):
        for word in WORDS:
            topology = parse_topology(word)
            run = star if topology.is_star else lambda *args, word=word: exchanged(word, *args)
            shards = members
            times, wires = [], None
            for bandwidth in (1.25e8, 1.25e9):
                wires, seconds = run(members, shards, size, bandwidth)
                times.append(seconds)
                cost = topology.cost(
                    members, 4 * size, shards=shards, state=STATE, block=BLOCK
                )  # fmt: skip
                estimate = cost.seconds(bandwidth, LATENCY)
                assert 0.5 < estimate / seconds < 2.0, (word, members, estimate, seconds)
            master = (
                wires.went[members] + wires.came[members]
                if topology.is_star
                else STATE * 4 * size // BLOCK
            )
            servers = [
                wires.went[one] + wires.came[one]
                for one in range(members, members + topology.servers)
            ]
            row = [master, max(servers, default=0), max(wires.came[:members]),
                   max(wires.went[:members])]  # fmt: skip
            cells = [f"{one / 1e6:.2f}" for one in row] + [f"{1e3 * one:.2f} ms" for one in times]
            print(f"| {members} | {word} | {' | '.join(cells)} |")
