"""Every codec in every mode, from a seed, with slaves that die, leave, join and compute twice.

The ledger, the clocks, the codecs, their residuals and who inherits them are the real ones; the
network is not there. Each piece counts once, nobody is further ahead than the bound, the run comes
to its end, and nothing that was found is lost but what is said to be: what is in the parameters and
in all residuals is what was computed.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from veloflow.protocol.clocks import Clocks
from veloflow.protocol.ledger import Ledger
from veloflow.protocol.messages import Piece
from veloflow.runtime.transport.found_vector import FoundVector
from veloflow.sharing.codecs import Range, parse_codec
from veloflow.sharing.policies import LocalPolicy, parse_sharing
from veloflow.sharing.residuals import Orphans

CODECS = ("plain", "float16", "bfloat16", "int8", "onebit", "topk:0.05", "factors", "zlib")
MODES = (
    *("sync:shards=3", "async", "async:damping=1", "ssp:0", "ssp:2", "groups:g=2,shards=2"),
    *("average:3", "average:every=3,parts=2", "elastic:0.9,2", "elastic:mode=sync,every=2"),
)
#: how many runs the stress environment makes of each codec in each mode
MANY = max(10, int(os.environ.get("VELOFLOW_SIMULATIONS", "2000")) // 200)
#: numbers of a vector, and what it consists of
SIZE, RANGES = 44, (Range("w", 0, (4, 10)), Range("b", 40, (4,)))
#: what rounding may be wrong by, of a sum of some ten vectors whose numbers are about 1
ROUNDING = {"float16": 0.05, "bfloat16": 0.5}


class World:
    """A master and slaves that share vectors, one thing after another, in an order of chance."""

    def __init__(self, seed, codec, mode, *, tasks=12):
        self.chance = random.Random(f"{seed} {codec} {mode}")
        self.policy = parse_sharing(mode)
        is_local = isinstance(self.policy, LocalPolicy)
        self.form = FoundVector(SIZE, np.float32, parse_codec(codec), RANGES, is_local=is_local)
        self.ledger = Ledger()
        self.clocks = Clocks(self.ledger, self.policy.bound)
        self.orphans = Orphans()
        self.slaves, self.names = {}, 0
        for _ in range(self.chance.randint(1, 5)):
            self.join()
        self.left = tasks
        self.number = 0
        self.under_way = []  # sets of pieces that count together
        self.counted = {}
        self.parameters = np.zeros(SIZE)
        self.found = np.zeros(SIZE)  # all that was computed, less what the late ones have sent
        self.lost = np.zeros(SIZE)
        self.losses = self.late = self.inherited = 0

    # -- the master ---------------------------------------------------------------------------

    def issue(self):
        """Put the next minibatch or round into the ledger, if it may be under way by now."""
        slaves = max(1, len(self.slaves))
        if isinstance(self.policy, LocalPolicy):
            size, most = (self.policy.replicas(slaves), 1) if self.policy.waits else (1, slaves)
        else:
            size, most = self.policy.cut or 1, self.policy.tasks(slaves, 2 * slaves)
        if not self.left or len(self.under_way) >= max(1, most):
            return
        self.left -= 1
        pieces = [Piece(self.number + one, 0, 2, self.number + one, 1) for one in range(size)]
        self.number += size
        self.ledger.add(pieces)
        self.under_way.append({one.number for one in pieces})

    def vector(self, number):
        """What is found in a piece (n,), whoever computes it."""
        return np.random.default_rng(number).normal(size=SIZE).astype(np.float32)

    def hear(self, name, lease, headers, arrays, vector):
        """Count an answer, or not."""
        verdict, _ = self.ledger.complete(lease.id, name)
        arrived = self.form.read(None, headers, [one.data for one in arrays])
        self.found += vector
        if verdict.name != "ACCEPTED":
            self.found -= arrived
            self.late += 1
            return
        number = lease.id.number
        self.counted[number] = self.counted.get(number, 0) + 1
        self.parameters += arrived
        for task in self.under_way:
            task.discard(number)
        self.under_way = [one for one in self.under_way if one]
        self.clocks.applied(number)
        self.ledger.forget(number)

    # -- slaves -------------------------------------------------------------------------------

    def join(self):
        self.names += 1
        self.slaves[f"s{self.names}"] = [self.form.renewed(), None]

    def grant(self, name, *, again):
        """Give an idle slave a piece, and with it what somebody has left out."""
        way, lease = self.slaves[name]
        if lease is not None or not (again or self.clocks.may_begin(name)):
            return
        if again:
            held = [one for one in self.ledger.open if one.leases and not one.is_done]
            held = [one for one in held if len(one.leases) < 2]
            if not held:
                return
            number = self.chance.choice(held).piece.number
            lease = self.ledger.lease_again(number, name)
        else:
            lease = self.ledger.lease(name)
        if lease is None:
            return
        self.clocks.granted(name, lease.id.number, again=again)
        self.slaves[name][1] = lease
        residual = self.orphans.take(name, len(self.slaves))
        if residual is not None:
            way.inherit(residual)
            self.inherited += 1

    def finish(self, name):
        way, lease = self.slaves[name]
        if lease is not None:
            self.slaves[name][1] = None
            vector = self.vector(lease.id.number)
            self.hear(name, lease, *way.write(vector), vector)

    def go(self, name, *, is_seen):
        """A slave is gone; its residual is seen by the master, or lost with it."""
        way, _ = self.slaves.pop(name)
        self.ledger.lose(name)
        self.orphans.gone(name)
        self.losses += 1
        if way.residual is not None and is_seen:
            self.orphans.add([way.residual.copy()])
        elif way.residual is not None:
            self.lost += way.residual

    def run(self):
        """Let things happen until all is done."""
        for _ in range(5000):
            if not self.left and not self.under_way:
                break
            self.issue()
            what = self.chance.random()
            names = list(self.slaves)
            if not names or what < 0.03:
                self.join()
            elif what < 0.06:
                self.go(self.chance.choice(names), is_seen=self.chance.random() < 0.5)
            elif what < 0.14:
                self.grant(self.chance.choice(names), again=True)
            elif what < 0.5:
                self.grant(self.chance.choice(names), again=False)
            else:
                self.finish(self.chance.choice(names))
            self.ledger.validate()
            self.clocks.validate()
        assert not self.left, "it is stuck"
        assert not self.under_way, "it is stuck"

    def check(self, codec):
        """See that each piece counts once, and that nothing is lost but what is known to be."""
        assert self.counted == dict.fromkeys(range(self.number), 1)
        residuals = [way.residual for way, _ in self.slaves.values() if way.residual is not None]
        there = self.parameters + self.lost + sum([*residuals, *self.orphans.all()], np.zeros(SIZE))
        limit = ROUNDING.get(codec, 1e-3) * max(1, self.number / 10)
        assert np.abs(there - self.found).max() < limit


def run_many(seeds, codec, mode):
    """Run a world for each seed; return how many losses, late answers and heirs there were."""
    happened = np.zeros(3, int)
    for seed in seeds:
        world = World(seed, codec, mode)
        try:
            world.run()
            world.check(codec)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {codec}, {mode}: {error}") from error
        happened += [world.losses, world.late, world.inherited]
    return happened


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost_or_doubled_with_any_codec(mode):
    happened = np.zeros(3, int)
    for codec in CODECS:
        happened += run_many(range(6), codec, mode)
    assert (happened > 5).all()  # the faults do strike


@pytest.mark.stress
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_lost_or_doubled_with_many_seeds(codec, mode):
    run_many(range(1000, 1000 + MANY), codec, mode)


def test_a_residual_that_is_dropped_is_noticed(monkeypatch):
    """The control: the sum is what finds it."""
    monkeypatch.setattr(Orphans, "add", lambda self, residuals: None)
    with pytest.raises(AssertionError, match="seed"):
        run_many(range(20), "onebit", "async")
