"""When a kept speed of a device is not believed any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from veloflow.devices.speeds import Speed, cost, merged, to_measure_again

NOW, HOUR, DAY = 1_800_000_000.0, 3600.0, 86400.0
QUICK = Speed(200e-6, 100.0, load=0.1, when=NOW - HOUR)
SLOW = replace(QUICK, small_step_seconds=400e-6)


@pytest.mark.parametrize(
    ("change", "load", "again"),
    [
        ({}, 0.1, False),
        ({}, 3.0, False),
        ({"load": 2.0}, 0.1, True),
        ({"load": 2.0}, 1.9, False),  # as busy as then: it would be no better
        ({"load": 0.4}, 0.0, False),  # that was not busy
        ({"when": NOW - 29 * DAY}, 0.1, False),
        ({"when": NOW - 31 * DAY}, 0.1, True),
        ({"when": NOW + HOUR}, 0.1, True),  # the clock was set back: nobody knows how old it is
        ({"problem": "failed", "when": NOW - HOUR}, 0.1, False),
        ({"problem": "failed", "when": NOW - 2 * DAY}, 0.1, True),
    ],
)
def test_a_figure_is_made_anew(change, load, again):
    speeds = {"numpy": SLOW, "opencl:0:0": replace(QUICK, **change)}
    found = to_measure_again(speeds, now=NOW, load=load)
    assert found == ({"opencl:0:0"} if again else set())


def test_two_close_ones_are_made_anew_once_a_day():
    close = replace(QUICK, small_step_seconds=210e-6)
    speeds = {"numpy": QUICK, "opencl:0:0": close, "abacus": SLOW}
    assert to_measure_again(speeds, now=NOW, load=0.1) == set()
    aged = {name: replace(speed, when=NOW - 2 * DAY) for name, speed in speeds.items()}
    assert to_measure_again(aged, now=NOW, load=0.1) == {"numpy", "opencl:0:0"}
    del aged["opencl:0:0"]
    assert to_measure_again(aged, now=NOW, load=0.1) == set(), "clear enough for a month"


def test_a_busy_machine_does_not_replace_the_figure_of_a_quiet_one():
    worse = Speed(900e-6, 30.0, load=4.0, when=NOW)
    kept = merged(QUICK, worse)
    assert cost(kept) == cost(QUICK)
    assert kept.when == NOW, "or it would be tried at every start"
    assert kept.load == QUICK.load
    assert merged(replace(QUICK, load=5.0), worse) == worse
    assert merged(replace(QUICK, when=NOW - 100 * DAY), worse) == worse
    assert merged(replace(QUICK, problem="failed"), worse) == worse


def test_a_device_without_a_figure_costs_more_than_any():
    assert cost(Speed(problem="failed")) > cost(SLOW)
