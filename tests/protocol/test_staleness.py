"""How stale an update of ssp can be: measured in simulations, beside what the docs promise."""

from __future__ import annotations

import pytest

from veloflow.protocol.faults import FaultPlan
from veloflow.testing import Simulation, parse_sharing


class Measured(Simulation):
    """A simulation that counts the steps between reading the parameters and applying an update."""

    def __init__(self, seed, plan, bound, slaves=3):
        self.version = 0  # of the parameters: how many updates were applied
        self.worst = 0
        self._read = {}  # client and lease -> the version that it was computed with
        self._version_of = {}  # number of a piece -> the same of the answer that counted
        super().__init__(
            seed,
            plan=FaultPlan.parse(plan),
            slaves=slaves,
            samples=600,
            audit=0.0,
            works=False,
            policy=parse_sharing(f"ssp:{bound}"),
        )

    def _act(self, node, actions):
        begin = node.slave.begin

        def reads():
            job = begin()
            if job is not None:
                self._read[node.client, job.lease] = self.version
            return job

        node.slave.begin = reads
        try:
            super()._act(node, actions)
        finally:
            node.slave.begin = begin

    def _apply(self, action):
        read = self._read[action.client, action.update.lease]
        self._version_of[action.piece.number] = read
        super()._apply(action)

    def _see(self, number):
        self.worst = max(self.worst, self.version - self._version_of[number])
        self.version += 1
        super()._see(number)

    @property
    def names(self):
        """How many slaves there ever were."""
        return len(self._master.crowd.by_id)


@pytest.mark.parametrize("bound", [0, 1, 3])
@pytest.mark.parametrize(
    "plan",
    ["slow=0.3,late=0.05,spoil=0.02", "hang=0.02", "kill=0.03,slow=0.3", "hang=0.02,join=0.02"],
)
def test_no_update_is_staler_than_all_clocks_that_can_be_under_way(plan, bound):
    for seed in range(12):
        measured = Measured(seed, plan, bound)
        measured.run()
        assert 0 < measured.worst <= measured.names * (2 * bound + 1) - 1, seed


def test_while_a_slave_is_slow_others_do_its_later_pieces_as_well():
    """So one's own clocks count in full: 3 slaves and a bound of 1 give 8 steps, not 7."""
    measured = Measured(19, "slow=0.3,late=0.05,spoil=0.02", 1)
    measured.run()
    assert measured.names == 3
    assert measured.worst == 3 * (2 * 1 + 1) - 1
