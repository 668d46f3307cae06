"""The master computes itself while it has no slaves, if it is told so."""

from __future__ import annotations

from tests.protocol.test_master import Stage, hello, pieces
from veloflow.protocol.events import STAND_IN, Grant, Heard, Lost, StandDown, StandIn, Tick
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import Bye
from veloflow.testing import FaultPlan, Simulation


def working_stage():
    stage = Stage()
    stage.master = Master(MasterSettings("run", "same", works=True))
    return stage


def sorts(actions):
    return [type(one) for one in actions]


def test_it_stands_in_when_no_slave_has_come_for_two_seconds():
    stage = working_stage()
    assert StandIn not in sorts(stage(pieces(2), at=1.0))
    assert stage.master.deadline == 3.0
    assert StandIn not in sorts(stage(Tick(), at=2.9))
    assert StandIn in sorts(stage(Tick(), at=3.0))
    assert Grant in sorts(stage(Heard(STAND_IN, hello("master", capacity=1))))
    assert StandIn not in sorts(stage(Tick(), at=4.0))


def test_it_stands_down_when_a_slave_comes_and_its_work_goes_there():
    stage = working_stage()
    stage(pieces(1), at=1.0)
    stage(Tick(), at=3.0)
    stage(Heard(STAND_IN, hello("master", capacity=1)))
    assert StandDown in sorts(stage(Heard(b"a", hello())))
    (grant,) = [one for one in stage(Heard(STAND_IN, Bye(""))) if isinstance(one, Grant)]
    assert grant.client == b"a"


def test_it_stands_in_again_when_the_slave_is_lost():
    stage = working_stage()
    stage(Heard(b"a", hello()), at=0.5)
    stage(pieces(1), at=1.0)
    stage(Lost(b"a", "killed"), at=2.0)
    assert StandIn in sorts(stage(Tick(), at=4.0))


def test_untold_it_waits():
    stage = Stage()
    stage(pieces(1), at=1.0)
    assert stage.master.deadline is None
    assert StandIn not in sorts(stage(Tick(), at=100.0))


def test_a_run_without_any_slave_ends():
    outcome = Simulation(1, plan=FaultPlan(), slaves=0, works=True, audit=1.0).run()
    assert set(outcome.applied.values()) == {"s1"}


def test_a_run_with_slaves_that_come_and_go_ends():
    stood_in = 0
    for seed in range(100):
        plan = FaultPlan(kill=0.3, leave=0.1, restart=0.02)
        stood_in += Simulation(seed, plan=plan, slaves=1, works=True).run().events["stood in"]
    assert stood_in > 20
