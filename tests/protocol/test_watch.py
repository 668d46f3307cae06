"""When a slave is looked at, and what is found. It beats every half second, patience is 2."""

from __future__ import annotations

import pytest

from tests.protocol.test_master import hello
from veloflow.protocol.messages import LeaseId
from veloflow.protocol.pace import Pace
from veloflow.protocol.slaves import Crowd, Slave
from veloflow.protocol.watch import Finding, Watch


class Stage:
    """A watch over slaves that say what they are told to."""

    def __init__(self, seconds=1.0):
        self.crowd, self.pace = Crowd(), Pace(2.0)
        self.watch = Watch(self.crowd, self.pace, 0.5, 2.0)
        self.pace.add((0, 10), seconds)

    def joins(self, name, now=0.0):
        slave = Slave(name, name.encode(), hello(name), False, 1, now, now)
        self.crowd.add(slave)
        self.watch.heard(slave, now)
        return slave

    def hears(self, slave, now):
        slave.heard = now
        self.watch.heard(slave, now)

    def found(self, now):
        return [(slave.id, finding) for slave, finding in self.watch.pass_time(now)]

    def found_while_it_beats(self, slave, now):
        """Return what is found in a look at a slave that has beaten a moment before."""
        slave.heard = now - 0.5
        self.watch.gave_back(slave, now - 0.5)
        return self.found(now)


def test_nobody_is_looked_at_where_nobody_is():
    stage = Stage()
    assert stage.watch.deadline is None
    assert stage.found(1.0) == []


def test_a_slave_is_silent_after_six_beats_and_gone_after_forty_more():
    stage = Stage()
    slave = stage.joins("a", 10.0)
    assert stage.watch.deadline == 13.0
    assert stage.found(12.5) == []
    assert stage.found(13.0) == [("a", Finding.SILENT)]
    slave.move("silent")
    slave.suspected = 14.0  # a little later than it was found
    assert stage.watch.deadline == 33.0
    assert stage.found(33.0) == []
    assert stage.watch.deadline == 34.0
    assert stage.found(34.0) == [("a", Finding.GONE)]
    assert stage.watch.deadline is None


def test_who_was_heard_later_is_looked_at_later_and_the_others_in_time():
    stage = Stage()
    first, _ = stage.joins("a"), stage.joins("b")
    stage.hears(first, 1.0)
    assert stage.found(3.0) == [("b", Finding.SILENT)]
    assert stage.watch.deadline == 4.0
    assert stage.found(4.0) == [("a", Finding.SILENT)]


def test_a_slave_that_was_heard_by_another_way_is_looked_at_again():
    stage = Stage()
    slave = stage.joins("a")
    slave.heard = 2.0
    assert stage.found(3.0) == []
    assert stage.watch.deadline == 5.0
    stage.watch.validate()


def test_who_has_gone_is_not_looked_at():
    stage = Stage()
    stage.joins("a").move("bye")
    assert stage.found(3.0) == []
    assert stage.watch.deadline is None


def test_silence_counts_anew_when_the_master_was_away():
    stage = Stage()
    slave = stage.joins("a")
    stage.watch.was_away(2.5)
    assert stage.found(3.0) == []
    assert stage.watch.deadline == 5.5
    assert stage.found(5.5) == [("a", Finding.SILENT)]
    slave.move("silent")
    slave.suspected = 5.5
    stage.watch.was_away(25.0)
    assert stage.found(25.5) == []
    assert stage.watch.deadline == 28.0
    assert stage.found(28.0) == [("a", Finding.GONE)]


def test_a_slave_that_gave_a_job_back_is_looked_at_soon():
    stage = Stage()
    slave = stage.joins("a")
    slave.move("gives back")
    stage.watch.gave_back(slave, 1.0)
    assert stage.found(1.0) == []
    assert stage.watch.deadline == 1.5
    assert stage.found(1.5) == [("a", Finding.STILL_HERE)]
    assert stage.watch.deadline == 3.0


def test_a_slave_is_stuck_after_two_minutes_or_twenty_times_what_is_late():
    for seconds, limit in ((1.0, 120.0), (5.0, 400.0)):
        stage = Stage(seconds)
        slave = stage.joins("a")
        slave.owed = {LeaseId(0, 0): (0, 10), LeaseId(1, 0): (0, 20)}
        assert stage.found_while_it_beats(slave, limit - 1) == []
        assert stage.watch.deadline == limit + 1.5, "it is looked at on"
        assert stage.found_while_it_beats(slave, limit) == [("a", Finding.STUCK)]


@pytest.mark.parametrize("what", ["started", "progressed"])
def test_time_counts_from_when_its_work_began_or_advanced(what):
    stage = Stage()
    slave = stage.joins("a")
    slave.owed = {LeaseId(0, 0): (0, 10)}
    setattr(slave, what, 100.0)
    assert stage.found_while_it_beats(slave, 219.0) == []
    assert stage.found_while_it_beats(slave, 220.0) == [("a", Finding.STUCK)]


def test_nobody_is_stuck_while_the_master_was_away_or_without_work():
    stage = Stage()
    slave = stage.joins("a")
    assert stage.found_while_it_beats(slave, 1000.0) == []
    slave.owed = {LeaseId(0, 0): (0, 10)}
    stage.watch.was_away(1000.0)  # until 1003
    assert stage.found_while_it_beats(slave, 1122.0) == []
    assert stage.found_while_it_beats(slave, 1123.0) == [("a", Finding.STUCK)]


def test_a_slave_that_nobody_watches_is_seen():
    stage = Stage()
    slave = stage.joins("a")
    stage.watch.validate()
    slave.look_at = 2.5
    with pytest.raises(AssertionError, match="nobody watches"):
        stage.watch.validate()
