"""When a piece is late; when a dead slave is started again."""

from __future__ import annotations

from veloflow.protocol.pace import Pace
from veloflow.protocol.respawn import Respawn


def test_without_experience_it_is_very_patient():
    assert Pace().limit((2, 10)) == 30.0
    assert Pace(0.1).limit((2, 10)) == 3.0


def test_a_piece_is_late_after_twice_the_usual_time():
    pace = Pace()
    for _ in range(8):
        pace.add((2, 10), 1.0)
    assert pace.limit((2, 10)) == 2.0
    assert pace.limit((1, 10)) == 30.0


def test_spread_makes_it_more_patient():
    pace = Pace()
    for seconds in (1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0):
        pace.add((2, 10), seconds)
    assert pace.limit((2, 10)) == 2.0 + 6 * 0.5


def test_tiny_pieces_are_not_late_by_less_than_a_moment():
    pace = Pace()
    pace.add((2, 1), 1e-4)
    assert pace.limit((2, 1)) == 1e-4 + 0.02


def test_one_outlier_changes_little_and_a_change_of_pace_is_learnt():
    pace = Pace()
    for _ in range(63):
        pace.add((2, 10), 1.0)
    pace.add((2, 10), 1000.0)
    assert pace.limit((2, 10)) == 2.0
    for _ in range(80):
        pace.add((2, 10), 3.0)
    assert pace.limit((2, 10)) == 6.0


def test_a_dead_slave_comes_back_later_each_time_and_then_not():
    respawn = Respawn(limit=4)
    assert [respawn.died(now) for now in (0.0, 1.0, 2.0)] == [0.0, 1.1, 2.5]
    assert respawn.died(3.0) is None
    assert respawn.died(100.0) == 100.0
