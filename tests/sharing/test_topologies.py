"""Topologies: bits of a sum in order, whatever is lost, late, doubled or out of order."""

from __future__ import annotations

import heapq
import random

import numpy as np
import pytest

from veloflow.errors import OptionError
from veloflow.sharing.topologies import (
    Attempts,
    Group,
    RangeServer,
    Verdict,
    known_topologies,
    parse_topology,
    shards_of,
    topology_text,
)
from veloflow.sharing.topologies import base as base_of_topologies

WORDS = ("servers:1", "servers:3", "ring", "tree")


def gradients(seed, rounds, shards, size):
    """Return the gradients of all shards: (rounds, shards, size) float32, of mixed magnitudes."""
    numbers = np.random.default_rng(seed)
    scale = 10.0 ** numbers.integers(-4, 4, (rounds, shards, size))
    return (numbers.normal(size=scale.shape) * scale).astype(np.float32)


def moved(state, total):
    """Return the state after a step."""
    return (state * np.float32(0.9) + total).astype(np.float32)


def by_master(found):
    """Return the state after all rounds, as a master makes it: shards added in order."""
    state = np.zeros(found.shape[-1], np.float32)
    for shards in found:
        total = shards[0].copy()
        for one in shards[1:]:
            total = total + one
        state = moved(state, total)
    return state


def deliver(nodes, servers, packets, mixer):
    """Carry packets in any order until there are none left."""
    queue = list(packets)
    while queue:
        packet = queue.pop(mixer.randrange(len(queue)))
        places = [*nodes, *servers]
        queue += places[packet.to].hear(packet)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("members", [1, 2, 3, 5, 8])
def test_the_total_has_the_bits_of_a_sum_in_order(word, members, monkeypatch):
    monkeypatch.setattr(base_of_topologies, "CHUNK", 10)
    topology = parse_topology(word)
    for shards in (members, members + 3, 8, 1):
        found = gradients(shards, 3, shards, 47)
        group = Group(members, topology.servers, 47)
        nodes = [topology.node(one, group, np.float32) for one in range(members)]
        servers = [RangeServer(members + one, group) for one in range(topology.servers)]
        mixer = random.Random(shards)
        for at in range(3):
            packets = []
            for place, node in enumerate(nodes):
                own = {one: found[at, one] for one in shards_of(place, members, shards)}
                packets += node.begin(shards, own)
            deliver(nodes, servers, packets, mixer)
            for node in nodes:
                assert node.total.tobytes() == by_master(found[at : at + 1]).tobytes()


def test_a_classical_ring_would_have_other_bits():
    """The control: sums that begin at another shard differ, so the order is not a detail."""
    found = gradients(0, 1, 4, 1000)[0]
    turned = ((found[1] + found[2]) + found[3]) + found[0]
    in_order = ((found[0] + found[1]) + found[2]) + found[3]
    in_pairs = (found[0] + found[1]) + (found[2] + found[3])
    assert (turned != in_order).mean() > 0.05
    assert (in_pairs != in_order).mean() > 0.05


class Slave:
    """A slave in a simulation: one attempt at a time, which it gives up if nothing comes."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.is_alive, self.is_hung = True, False
        self.attempt, self.backlog = -1, []

    def begin(self, number, place, group, names, state, first, count):
        self.attempt, self.place, self.group, self.names = number, place, group, names
        self.state, self.first, self.left = state.copy(), first, count
        self.node = self.world.topology.node(place, group, np.float32)
        self.silent_since = self.world.now
        self.compute()

    def compute(self):
        """Compute one's shards of the next round, which takes a while."""
        number = self.attempt
        self.world.after(self.world.random.uniform(0.5, 1.5), lambda: self.computed(number))

    def computed(self, number):
        if not self.is_here or number != self.attempt:
            return
        at = self.node.round + 1
        shards = self.world.found.shape[1]
        own = {
            one: self.world.found[self.first + at, one]
            for one in shards_of(self.place, self.group.members, shards)
        }
        self.world.send(self, self.node.begin(shards, own))
        self.look()

    @property
    def is_here(self):
        return self.is_alive and not self.is_hung

    def hear(self, number, packet):
        if number == self.attempt and self.is_here:
            self.silent_since = self.world.now
            before = self.node.round
            self.world.send(self, self.node.hear(packet))
            if self.node.round == before and self.node.round >= 0:
                self.look()

    def look(self):
        """Go on to the next round when the total is here."""
        if self.left and self.node.total is not None and self.node.round == self.done_rounds:
            self.state = moved(self.state, self.node.total)
            self.left -= 1
            if self.left:
                self.compute()
            else:
                total = float(np.add.reduce(self.state, dtype=np.float64))
                self.world.answer(self, self.attempt, self.place, total, self.state.copy())

    @property
    def done_rounds(self):
        return self.world.block - self.left if self.world.block >= self.left else 0

    def watch(self):
        """Give up on an attempt in which nothing has come for long."""
        is_waiting = self.is_here and self.attempt >= 0 and self.left
        if is_waiting and self.world.now - self.silent_since > 15:
            number, self.attempt = self.attempt, -1
            self.world.after(0.1, lambda: self.world.broken(number))


class World:
    """A master, slaves, servers and a network in virtual time, all with faults."""

    def __init__(self, seed, word, *, slaves=4, shards=5, rounds=12, block=3, size=23):
        self.random = random.Random(seed)
        self.topology = parse_topology(word)
        self.found = gradients(seed, rounds, shards, size)
        self.now, self.ticket, self.events = 0.0, 0, []
        self.attempts = Attempts()
        self.block, self.committed = block, 0
        self.state = np.zeros(size, np.float32)
        self.slaves = [Slave(self, f"s{one}") for one in range(slaves)]
        self.servers = [0] * self.topology.servers  # how often each was started
        self.machines = {}
        self.is_over = False

    def after(self, seconds, what):
        self.ticket += 1
        heapq.heappush(self.events, (self.now + seconds, self.ticket, what))

    def send(self, sender, packets):
        """Carry packets: some are lost, some come twice, all at their own pace."""
        number = sender.attempt
        for packet in packets:
            self.carry(number, sender.names, packet)

    def carry(self, number, names, packet):
        copies = self.random.choices((0, 1, 2), (0.002, 0.948, 0.05))[0]
        for _ in range(copies):
            delay = self.random.choice((0.1, 0.1, 1.0))
            self.after(
                self.random.uniform(0, delay), lambda: self.arrive(number, names, packet)
            )  # fmt: skip

    def arrive(self, number, names, packet):
        if packet.to < len(names):
            slave = next((one for one in self.slaves if one.name == names[packet.to]), None)
            if slave is not None:
                slave.hear(number, packet)
            return
        at = packet.to - len(names)
        life = self.servers[at]
        key = number, at
        if key not in self.machines:
            if number != self.attempts.number:
                return  # a server started anew knows nothing of it; sooner or later it is old
            group = Group(len(names), len(self.servers), self.state.size)
            self.machines[key] = life, RangeServer(packet.to, group)
        born, machine = self.machines[key]
        if born == life:  # what a killed one knew is gone
            for one in machine.hear(packet):
                self.carry(number, names, one)

    # -- the master -----------------------------------------------------------------------------

    def launch(self):
        team = [one for one in self.slaves if one.is_alive and one.attempt < 0 and not one.is_hung]
        if not team:
            self.after(1.0, self.launch)
            return
        team = team[: self.found.shape[1]]
        number = self.attempts.launch(len(team))
        group = Group(len(team), len(self.servers), self.state.size)
        names = [one.name for one in team]
        count = min(self.block, len(self.found) - self.committed)
        self.block_now = count
        self.after(60.0, lambda: self.broken(number))  # a part that is late, as the ledger sees it
        for place, one in enumerate(team):
            one.begin(number, place, group, names, self.state, self.committed, count)

    def answer(self, slave, number, place, total, state):
        def arrive():
            if place == 0:
                self.offered = number, state
            verdict = self.attempts.answered(number, place, total)
            if verdict is Verdict.DONE:
                assert self.offered[0] == number
                self.state = self.offered[1]
                self.committed += self.block_now
                self.free(number)
                if self.committed == len(self.found):
                    self.is_over = True
                else:
                    self.launch()
            else:
                assert verdict is not Verdict.SPOILED, "members have different states"

        self.after(self.random.uniform(0, 0.5), arrive)

    def free(self, number):
        for one in self.slaves:
            if one.attempt == number and not one.is_hung:
                one.attempt = -1

    def broken(self, number):
        if self.attempts.lost(number) is Verdict.BROKEN:
            self.free(number)
            self.after(0.1, self.launch)

    # -- faults ---------------------------------------------------------------------------------

    def kill(self, slave):
        slave.is_alive = False
        number = slave.attempt
        if number >= 0:
            self.after(0.05, lambda: self.broken(number))

    def hang(self, slave):
        slave.is_hung = True
        self.after(30.0, lambda: self.wake(slave))

    def wake(self, slave):
        slave.is_hung, slave.attempt = False, -1

    def kill_server(self, at):
        self.servers[at] += 1
        number = self.attempts.number
        self.after(0.05, lambda: self.broken(number))

    def join(self):
        self.slaves.append(Slave(self, f"j{len(self.slaves)}"))

    def run(self):
        for _ in range(self.random.randint(0, 5)):
            what = self.random.choice(("kill", "hang", "join", "server"))
            when = self.random.uniform(0, 40)
            if what == "join":
                self.after(when, self.join)
            elif what == "server" and self.servers:
                at = self.random.randrange(len(self.servers))
                self.after(when, lambda at=at: self.kill_server(at))
            elif what in ("kill", "hang"):
                victim = self.random.choice(self.slaves[1:])  # one is left
                self.after(when, lambda what=what, victim=victim: getattr(self, what)(victim))
        self.launch()
        watch = 1.0
        while not self.is_over and self.now < 3000:
            if self.events and self.events[0][0] < watch:
                self.now, _, what = heapq.heappop(self.events)
                what()
            else:
                self.now, watch = watch, watch + 1.0
                for one in self.slaves:
                    one.watch()


@pytest.mark.parametrize("word", WORDS)
def test_each_step_counts_once_and_in_order_whatever_dies(word):
    broken = 0
    for seed in range(100):
        world = World(seed, word)
        world.run()
        assert world.is_over, f"seed {seed} is stuck at {world.now}"
        assert world.state.tobytes() == by_master(world.found).tobytes(), f"seed {seed}"
        broken += world.attempts.broken
    assert broken > 50  # the faults do strike


@pytest.mark.stress
@pytest.mark.parametrize("word", WORDS)
def test_thousands_of_runs_with_faults(word):
    for seed in range(1000, 4000):
        world = World(seed, word, slaves=seed % 5 + 2, shards=seed % 7 + 2)
        world.run()
        assert world.is_over, f"seed {seed} is stuck at {world.now}"
        assert world.state.tobytes() == by_master(world.found).tobytes(), f"seed {seed}"


def test_words_are_read_and_written():
    for word in ("star", "servers:k=3", "ring", "tree"):
        assert topology_text(parse_topology(word)) == word
    assert set(known_topologies()) == {"star", "servers", "ring", "tree"}
    with pytest.raises(OptionError, match=r"no topology 'rign' \(did you mean 'ring'"):
        parse_topology("rign")
    with pytest.raises(OptionError, match="give a number from 1 to 64"):
        parse_topology("servers:0")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("members", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shards", [4, 8])
def test_the_cost_is_what_travels(word, members, shards):
    topology, size = parse_topology(word), 600
    members = min(members, shards)
    group = Group(members, topology.servers, size)
    nodes = [topology.node(one, group, np.float32) for one in range(members)]
    servers = [RangeServer(members + one, group) for one in range(topology.servers)]
    found = gradients(1, 1, shards, size)[0]
    queue = []
    for place, node in enumerate(nodes):
        queue += node.begin(shards, {s: found[s] for s in shards_of(place, members, shards)})
    came, went = [0] * 99, [0] * 99
    while queue:
        packet = queue.pop(0)
        went[packet.source] += packet.values.nbytes
        came[packet.to] += packet.values.nbytes
        queue += [*nodes, *servers][packet.to].hear(packet)
    cost = topology.cost(members, size * 4, shards=shards)
    assert cost.slave_in == max(came[:members])
    assert cost.slave_out == max(went[:members])
    assert cost.server_in == max(came[members:])
    assert cost.server_out == max(went[members:])
