"""When a piece is late; when a dead slave is started again."""

from __future__ import annotations

from statistics import median

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


def test_the_limit_is_measured_anew_eight_times_and_then_every_sixteenth():
    pace, seen = Pace(0.5), []
    for n in range(1, 200):
        before = pace.limit((0, 1)) if seen else None
        seen.append(float(n * n))
        pace.add((0, 1), seen[-1])
        if n <= 8 or n % 16 == 1:
            middle = median(seen[-64:])
            spread = median(abs(one - middle) for one in seen[-64:])
            assert pace.limit((0, 1)) == 0.5 * (middle + max(6 * spread, middle))
            assert pace.limit((0, 1)) != before
        else:
            assert pace.limit((0, 1)) == before


def test_a_slave_is_started_again_ever_later_and_at_last_not_at_all():
    respawn = Respawn(limit=8, patience=2.0)
    assert [respawn.died(10.0) for _ in range(8)] == [
        10.0,
        10.2,
        11.0,
        14.0,
        20.0,
        20.0,
        20.0,
        None,
    ]


def test_deaths_are_forgotten_after_a_minute():
    respawn = Respawn(patience=2.0)
    assert [respawn.died(float(n)) for n in range(3)] == [0.0, 1.2, 3.0]
    assert respawn.died(120.0) == 121.0
    assert respawn.died(120.5) is None
