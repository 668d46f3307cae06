"""Plans of faults: read, written, and when they strike."""

from __future__ import annotations

import pytest

from veloflow.errors import OptionError
from veloflow.protocol.faults import Appointment, FaultPlan

PLAN = FaultPlan(
    kill=0.05, hang=1.0, appointments=(Appointment("fail", "slave2", 5), Appointment("lie", "b", 1))
)


def test_a_plan_is_read_and_written():
    assert FaultPlan.parse("fail=slave2@job5,kill=0.05,lie=b@job1,hang=1,late=0") == PLAN
    assert str(PLAN) == "kill=0.05,hang=1.0,fail=slave2@job5,lie=b@job1"
    assert FaultPlan.parse(str(PLAN)) == PLAN
    assert str(FaultPlan()) == ""


@pytest.mark.parametrize("text", ["kill=0.1=2", "kill=-0.1", "kill=a@job0", "kill=@job1", "kill"])
def test_what_is_no_plan_is_told_in_full(text):
    value = text.partition("=")[2]
    with pytest.raises(OptionError) as caught:
        FaultPlan.parse(text)
    assert str(caught.value) == (
        "fault 'kill' wants a probability from 0 to 1, or slave2@job5 for the fifth "
        f"job of slave2, not {value!r}"
    )


def test_an_unknown_fault_is_told_with_those_that_there_are():
    with pytest.raises(OptionError, match=r"no fault 'kil'.*; there are: kill, hang, slow, leave,"):
        FaultPlan.parse("kil=1")


def test_an_appointment_strikes_once_and_nobody_else():
    never = lambda: 1.0  # noqa: E731
    plan = FaultPlan.parse("fail=slave2@job5")
    struck = [
        (fault, slave, job)
        for fault in ("fail", "kill")
        for slave in ("slave1", "slave2")
        for job in range(1, 10)
        if plan.strikes(fault, slave, job, never)
    ]
    assert struck == [("fail", "slave2", 5)]


def test_chance_strikes_below_the_probability():
    plan = FaultPlan(kill=0.5)
    assert plan.strikes("kill", "a", 1, lambda: 0.49)
    assert not plan.strikes("kill", "a", 1, lambda: 0.5)
    assert not FaultPlan().strikes("kill", "a", 1, lambda: 0.0)
