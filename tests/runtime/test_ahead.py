"""Blocks of rounds on the master's side: what is issued, taken over, abandoned and left."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from veloflow.core import Batch, Unit, Workflow
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Mover, Parameters
from veloflow.runtime.farms.ahead import Ahead
from veloflow.runtime.farms.exchanged import Exchanged
from veloflow.runtime.jobs.peer_order import BROKEN
from veloflow.runtime.jobs.round_order import ORDER, SUM, named
from veloflow.runtime.master.crew import Done
from veloflow.sharing.topologies import parse_topology


class Source:
    """Issues minibatches of 4 samples: 2 for validation, then ``train`` for training."""

    max_minibatch_size = 4

    def __init__(self, train=9, validation=2):
        self.kinds = [1] * validation + [2] * train
        self.issued = 0
        self.is_free = True  # all that was issued is served

    def issue(self):
        self.is_free = False
        kind = self.kinds[self.issued]
        batch = Batch(kind, 0, 4 * self.issued, 4, 4, range(4))
        self.issued += 1
        return batch

    @property
    def has_more_of_kind(self):
        left = self.kinds[self.issued :]
        return bool(left) and (self.is_free or left[0] == self.kinds[self.issued - 1])


class Steady(Unit):
    """Adds its gradient to the parameters, and counts steps."""

    def __init__(self, workflow):
        super().__init__(workflow, name="gd")
        self.steps = 0

    def run(self):
        self.steps += 1

    is_steady = True

    def make_job(self, part):
        return {"first": part.first, "count": part.count}

    def make_update(self):
        return {"loss": 0.0}

    update = run

    def make_step(self):
        return {"steps": self.steps}

    def take_step(self, payload):
        self.steps = payload["steps"]

    def move_on(self, parameters):
        raise AssertionError("this is for slaves")


Mover.register(Steady)


class Counter:
    """Numbers pieces and versions, as a farm does."""

    version = 1
    number = 0
    touched = 0

    def take_number(self):
        self.number += 1
        return self.number - 1

    def publish(self):
        pass

    def touch(self):
        self.touched += 1


class Members:
    """A crew whose members have found what they should, or what a test says."""

    patience, room = 1.0, 1 << 30

    def __init__(self, names=("a", "b")):
        self.names = names
        self.ready = deque()
        self.orders, self.shown, self.published, self.withdrawn = [], [], [], []
        self.spoiled = {}  # by block: what is added to the sums that members say

    def team(self):
        return list(self.names)

    def show_state(self, state, steps, version):
        self.shown.append((state.tolist()[0], dict(steps), version))

    def publish(self, values, version):
        self.published.append((values.tolist()[0], version))

    def submit_block(self, orders, jobs):
        self.orders.append([order for _, order in orders])
        # the last member is the first to be ready, and blocks overlap
        for piece, order in reversed(orders):
            state = np.full(order.shape.state, float(order.block + 1))
            updates = {
                named(at, shard, "gd"): {"loss": 100.0 * order.block + 10 * at + shard}
                for at in range(len(order.shards))
                for shard in order.own(at)
            }
            updates["step/gd"] = {"steps": 50 + order.block}
            updates[ORDER] = {
                SUM: float(state.sum()) + self.spoiled.get((order.block, order.member), 0)
            }
            self.ready.append(
                Done(piece, updates, state if order.member == 0 else None, order.state)
            )

    def next(self):
        return self.ready.popleft()

    def withdraw(self, numbers):
        self.withdrawn.append(sorted(numbers))
        self.ready.clear()


@pytest.fixture
def make():
    def build(crew):
        workflow = Workflow(name="w")
        unit = Steady(workflow)
        parameters = Parameters(NumpyDevice())
        parameters.declare("w", (3,)).slot("velocity")
        parameters.allocate()
        farm = Counter()
        return Ahead(farm, crew, parameters, [unit], 2), farm, unit, parameters

    return build


def test_only_where_all_units_are_steady_and_one_moves():
    class Other(Unit):
        def run(self):
            """Do whatever it likes."""

    workflow = Workflow(name="w")
    plain = [workflow.start, workflow.end]
    assert not Ahead.suits(plain)
    steady = Steady(workflow)
    assert Ahead.suits([*plain, steady])
    assert not Ahead.suits([*plain, steady, Other(workflow)])


def test_the_last_minibatch_of_a_class_and_those_of_other_classes_are_left(make):
    crew = Members()
    ahead, _, _, _ = make(crew)
    source = Source(train=6)
    assert ahead.next_round(source) is None
    assert [one.kind for one in ahead.left] == [1]
    ahead.left.clear()
    source.is_free = True
    assert ahead.next_round(source) is None  # the last of the validation class
    ahead.left.clear()
    source.is_free = True
    found = []
    while (one := ahead.next_round(source)) is not None:
        assert one.batch.kind == 2
        found.append(one.batch.position)
    assert found == [8, 12, 16, 20, 24]
    assert [one.position for one in ahead.left] == [28]
    assert ahead.is_whole


def test_rounds_have_what_was_found_by_shard_and_the_state_is_taken_over(make):
    crew = Members()
    ahead, farm, unit, parameters = make(crew)
    source = Source(validation=0)
    first = ahead.next_round(source)
    assert [one["gd"]["loss"] for one in first.updates] == [0.0, 1.0]
    assert not ahead.is_whole
    assert parameters.values.read()[0] == 1.0  # after the block
    assert parameters["w"].slots["velocity"].read()[0] == 1.0
    assert unit.steps == 50
    assert crew.published == [(1.0, 2)]
    assert crew.shown == [(0.0, {"gd": {"steps": 0}}, 1), (1.0, {"gd": {"steps": 50}}, 2)]
    second = ahead.next_round(source)
    assert [one["gd"]["loss"] for one in second.updates] == [10.0, 11.0]
    # two blocks are with the slaves while these rounds are handed out
    assert [[one.state for one in orders] for orders in crew.orders] == [[1, 1], [2, 2], [3, 3]]
    assert [one.member for one in crew.orders[0]] == [0, 1]
    assert crew.orders[0][1].logs == ("a", "b")
    assert farm.version == 2
    assert ahead.blocks == 1


def test_more_members_than_shards_are_not_asked(make):
    crew = Members(("a", "b", "c"))
    ahead, _, _, _ = make(crew)
    ahead.next_round(Source(validation=0))
    assert [len(orders) for orders in crew.orders] == [2, 2, 2]
    assert crew.orders[0][0].logs == ("a", "b", "c")


@pytest.mark.parametrize("wrong", [{(1, 1): 1e-9}, {(1, 0): float("nan"), (1, 1): float("nan")}])
def test_a_block_whose_copies_differ_is_computed_one_by_one(make, wrong):
    """Nothing of it has been taken over, nor of the one after it."""
    crew = Members()
    crew.spoiled = wrong
    ahead, farm, unit, parameters = make(crew)
    source = Source(validation=0, train=80)
    served = []
    while (one := ahead.next_round(source)) is not None:
        served.append(one.batch.position)
    assert served == [0, 4]
    assert crew.withdrawn == [[2, 3, 4, 5]]
    left = [one.position for one in ahead.left]
    assert left == list(range(8, 4 * source.issued, 4))
    assert parameters.values.read()[0] == 1.0
    assert unit.steps == 50
    assert farm.touched == 1
    assert farm.version == 2 + 2  # slaves may have states of the versions between
    assert (ahead.blocks, ahead.abandoned) == (1, 1)
    ahead.left.clear()
    crew.spoiled = {}
    assert ahead.next_round(source).batch.position == 4 * len(served) + 4 * len(left)
    # the chain begins anew, with a state that was shown
    assert [version for _, _, version in crew.shown] == [1, 2, 4, 5]
    assert crew.orders[3][0].state == 4


def test_without_a_team_everything_is_computed_one_by_one(make):
    ahead, _, _, _ = make(Members(()))
    source = Source()
    assert ahead.next_round(source) is None
    assert source.issued == 0
    assert not ahead.left


# -- groups that exchange gradients ----------------------------------------------------------------


class Group:
    """A crew of a group whose blocks are broken as a test says."""

    patience, topology = 1.0, parse_topology("ring")

    def __init__(self, broken=(), spoiled=(), teams=None):
        self.broken, self.spoiled = set(broken), set(spoiled)
        self.teams = deque(teams or [])
        self.ready, self.orders, self.withdrawn, self.versions = deque(), [], [], []

    def team(self):
        return self.teams.popleft() if self.teams else ["s1", "s2"]

    def show_state(self, state, steps, version):
        self.versions.append(version)

    def publish(self, values, version):
        pass

    def submit_group(self, parts):
        number = parts[0][1].number
        self.orders.append([order for _, order, _ in parts])
        if number in self.broken:
            self.ready.append(Done(parts[0][0], {BROKEN: {}}, None, 0))
            return
        for piece, order, _ in parts:
            state = np.full(256, 1.0)
            updates = {
                named(at, shard, "gd"): {"loss": float(shard)}
                for at in range(len(order.shards))
                for shard in order.own(at)
            }
            updates["step/gd"] = {"steps": 7}
            wrong = float(order.member) if number in self.spoiled else 0.0
            updates[ORDER] = {SUM: 256.0 + wrong}
            self.ready.append(Done(piece, updates, state, order.state))

    def next(self):
        return self.ready.popleft()

    def withdraw(self, numbers):
        self.withdrawn.append(sorted(numbers))
        self.ready.clear()


def begin(crew):
    workflow = Workflow(name="w")
    unit = Steady(workflow)
    parameters = Parameters(NumpyDevice())
    parameters.declare("w", (3,)).slot("velocity")
    parameters.allocate()
    return Exchanged(Counter(), crew, parameters, [unit], 2)


def served(ahead, source, count):
    """Serve so many minibatches as a farm does; return them, and which were computed alone."""
    order, alone = [], []
    for _ in range(count):
        found = ahead.next_round(source)
        if found is None:
            batch = ahead.left.popleft() if ahead.left else source.issue()
            alone.append(batch.position)
        else:
            batch = found.batch
        order.append(batch.position)
    return order, alone


@pytest.mark.parametrize("broken", [(), (0,), (1,), (0, 1, 2), (1, 2)])
def test_a_broken_block_comes_again_before_what_was_issued_after_it(broken):
    crew = Group(broken)
    ahead = begin(crew)
    order, alone = served(ahead, Source(train=9, validation=0), 9)
    assert order == [4 * one for one in range(9)]
    assert alone == [32]  # the last of a class, always
    assert ahead.broken == len(broken) == len(crew.withdrawn)
    states = [orders[0].state for orders in crew.orders]
    assert states == sorted(set(states))  # none begins with a state that a broken one may have left
    assert len({orders[0].number for orders in crew.orders}) == len(crew.orders)


def test_without_a_group_minibatches_are_computed_one_by_one_in_order():
    crew = Group((0,), teams=[["s1", "s2"], [], []])
    ahead = begin(crew)
    order, alone = served(ahead, Source(train=9, validation=0), 9)
    assert order == [4 * one for one in range(9)]
    assert alone[0] == 0


def test_members_with_different_states_are_found_out_one_by_one():
    crew = Group(spoiled=(1,))
    ahead = begin(crew)
    order, alone = served(ahead, Source(train=9, validation=0), 9)
    assert order == [4 * one for one in range(9)]
    assert ahead.abandoned == 1
    assert len(alone) > 1
