"""The pure store and workers: seeded simulations of a network that loses, doubles and reorders."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict

import pytest

from veloflow.protocol.kvstore.client import Client, State
from veloflow.protocol.kvstore.messages import Fault, Leave, Pulse, Push, Start, Value
from veloflow.protocol.kvstore.server import Apply, Create, Keep, Send, Show, Store

KEYS = ("a", "b")


class Worker:
    """A training loop: start, then so many times pull and push of each key."""

    def __init__(self, world, name, steps):
        self.world, self.name, self.steps = world, name, steps
        self.machine = Client(Client.greeting(name, "plain", name, observes=False))
        self.script = [("start", key) for key in KEYS]
        self.script += [
            (what, key) for _ in range(steps) for key in KEYS for what in ("pull", "push")
        ]
        self.script += [("pull", key) for key in KEYS]
        self.question = None
        self.pushed = Counter()
        self.is_alive, self.is_done = True, False

    def tell(self, messages):
        for message in messages:
            self.world.carry("store", (self.name, message))

    def go_on(self, now):
        """Do what the script says until it has to wait."""
        while self.is_alive and not self.is_done and self.machine.state is State.HERE:
            if self.question is not None:
                answer = self.machine.answers.pop(self.question, None)
                if answer is None:
                    return
                assert isinstance(answer, Value), answer
                self.world.saw(self, answer)
                self.question = None
            if not self.script:
                if self.machine.untaken:
                    return
                self.is_done = True
                self.world.carry("store", (self.name, Leave(self.name)))
                return
            what, key = self.script.pop(0)
            if what == "pull":
                self.question, said = self.machine.ask(key, now)
            else:
                said = self.machine.command(Push if what == "push" else Start, key, (), now)
                self.pushed[key] += what == "push"
            self.tell(said)


class World:
    """Workers, a store, and what is on its way between them, in virtual time."""

    def __init__(self, seed, *, workers=3, steps=6, mode="sync", faults=True):
        self.random = random.Random(seed)
        self.faults = faults
        self.store = Store("here", workers, mode)
        self.now, self.ticket = 0.0, 0
        self.events = []
        self.workers = {f"w{one}": Worker(self, f"w{one}", steps) for one in range(workers)}
        self.applied = defaultdict(list)  # key -> the pushes in its value, by step
        self.kept = set()
        self.started = Counter()
        self.at(0.5, "pulse")
        for one in self.workers.values():
            self.at(self.random.uniform(0, 2), "start", one)

    def at(self, when, what, *details: object):
        self.ticket += 1
        heapq.heappush(self.events, (when, self.ticket, what, details))

    def carry(self, to, message):
        """Let a message arrive: once, twice or never, sooner or later."""
        copies = 1
        if self.faults:
            copies = self.random.choices((0, 1, 2), (0.1, 0.8, 0.1))[0]
        for _ in range(copies):
            late = self.random.choice((0.01, 0.01, 0.01, 0.5, 3.0)) if self.faults else 0.01
            self.at(self.now + self.random.uniform(0, late), "arrive", to, message)

    def perform(self, actions):
        for action in actions:
            if isinstance(action, Send):
                assert not isinstance(action.message, Fault), action.message
                self.carry(action.client.decode(), action.message)
            elif isinstance(action, Show):
                value = Value(action.request, action.key, action.version, ())
                self.carry(action.client.decode(), value)
            elif isinstance(action, Keep):
                assert action.push not in self.kept, "a push is kept twice"
                self.kept.add(action.push)
            elif isinstance(action, Create):
                self.started[action.key] += 1
            elif isinstance(action, Apply):
                for push in action.pushes:
                    self.kept.remove(push)  # it is there, and applied once
                self.applied[action.key].append(action.pushes)

    def saw(self, worker, value):
        """Check that a worker's own pushes are in what it pulled."""
        own = sum(
            one[0] == worker.name
            for step in self.applied[value.key][: value.version]
            for one in step
        )
        assert own >= worker.pushed[value.key], "a pull came before its worker's pushes"

    def run(self, until=2000.0):
        while self.events and self.now < until and not self.is_over:
            self.now, _, what, details = heapq.heappop(self.events)
            getattr(self, f"do_{what}")(*details)
            self.store.validate()
            for one in self.workers.values():
                one.go_on(self.now)

    @property
    def is_over(self):
        return all(one.is_done or not one.is_alive for one in self.workers.values())

    def do_start(self, worker):
        worker.tell(worker.machine.start(self.now))

    def do_kill(self, worker):
        worker.is_alive = False

    def do_pulse(self):
        for one in self.workers.values():
            if one.is_alive and not one.is_done:
                self.carry("store", (one.name, Pulse(one.name)))
                one.tell(one.machine.pass_time(self.now))
        self.perform(self.store.pass_time(self.now))
        self.at(self.now + 0.5, "pulse")

    def do_arrive(self, to, message):
        if to == "store":
            name, said = message
            self.perform(self.store.handle(name.encode(), said, self.now))
        elif self.workers[to].is_alive:
            worker = self.workers[to]
            worker.tell(worker.machine.hear(message, self.now))

    def check(self):
        """Look whether each push of those who lived is applied once, and no push twice."""
        for key in KEYS:
            assert self.started[key] == 1
            flat = [one for step in self.applied[key] for one in step]
            assert len(set(flat)) == len(flat), "a push is applied twice"
            count = Counter(name for name, _ in flat)
            for one in self.workers.values():
                if one.is_alive:
                    assert count[one.name] == one.pushed[key] == one.steps
                else:
                    assert count[one.name] <= one.pushed[key]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_each_push_counts_once_whatever_the_network_does(mode):
    for seed in range(120):
        world = World(seed, mode=mode)
        victims = world.random.sample(sorted(world.workers), world.random.randint(0, 2))
        for one in victims:
            world.at(world.random.uniform(0, 40), "kill", world.workers[one])
        if "w0" in victims and not world.workers["w0"].script:
            continue
        world.run()
        if not world.store.has_begun:  # one was killed before it came: the others wait for another
            assert any(not one.is_alive for one in world.workers.values()), f"seed {seed}"
            continue
        assert world.is_over, f"seed {seed}: stuck at {world.now}"
        world.check()


def test_steps_of_a_quiet_network_are_whole_and_in_the_order_of_ranks():
    world = World(1, faults=False)
    world.run()
    ranks = {one.id: one.rank for one in world.store._workers.values()}
    for key in KEYS:
        assert len(world.applied[key]) == 6
        for step in world.applied[key]:
            assert [ranks[name] for name, _ in step] == [0, 1, 2]


def test_a_worker_that_comes_back_is_not_counted_twice():
    store = Store("here", 1)
    greeting = Client.greeting("w", "plain", "w", observes=False)
    store.handle(b"1", greeting, 0.0)
    store.handle(b"1", Start("w", 1, "a", ()), 0.0)
    push = Push("w", 2, "a", ())
    assert any(isinstance(one, Apply) for one in store.handle(b"1", push, 0.0))
    assert store.pass_time(100.0)  # silent for long
    assert store.here == 0
    assert not any(isinstance(one, Apply) for one in store.handle(b"2", push, 101.0))
    assert store.here == 1
    assert store.repeated == 1


def test_who_observes_is_not_waited_for_and_may_not_push():
    store = Store("here", 1)
    store.handle(b"1", Client.greeting("w", "plain", "w", observes=False), 0.0)
    store.handle(b"2", Client.greeting("o", "plain", "o", observes=True), 0.0)
    store.handle(b"1", Start("w", 1, "a", ()), 0.0)
    assert any(isinstance(one, Apply) for one in store.handle(b"1", Push("w", 2, "a", ()), 0.0))
    actions = store.handle(b"2", Push("o", 1, "a", ()), 0.0)
    assert any(isinstance(one, Send) and isinstance(one.message, Fault) for one in actions)


def test_a_worker_gives_up_on_a_store_that_is_silent():
    client = Client(Client.greeting("w", "plain", "w", observes=False))
    client.start(0.0)
    now = 0.0
    while client.state is not State.FAILED:
        assert client.deadline is not None
        now = client.deadline
        client.pass_time(now)
        assert now < 100
    assert "no word from the store for 60 s" in client.failure
