"""The tools that ship for tests: clock, plans of faults, the command."""

from __future__ import annotations

import pytest

from veloflow.errors import OptionError
from veloflow.protocol.ledger import Ledger
from veloflow.testing import FaultPlan, Simulation, VirtualClock, main


def test_the_clock_moves_from_event_to_event():
    clock, seen = VirtualClock(), []
    clock.at(2.0, lambda: seen.append(("b", clock.now)))
    clock.at(1.0, lambda: clock.after(0.5, lambda: seen.append(("a", clock.now))))
    clock.at(2.0, lambda: seen.append(("c", clock.now)))
    while clock.step():
        pass
    assert seen == [("a", 1.5), ("b", 2.0), ("c", 2.0)]


def test_what_is_planned_for_the_past_happens_now():
    clock = VirtualClock()
    clock.at(5.0, lambda: clock.at(1.0, lambda: None))
    clock.step()
    clock.step()
    assert clock.now == 5.0


def test_a_plan_is_read():
    assert FaultPlan.parse("kill=0.05,hang=1") == FaultPlan(kill=0.05, hang=1.0)
    assert FaultPlan.parse("") == FaultPlan()


@pytest.mark.parametrize(
    ("text", "word"), [("kil=1", "kill"), ("kill=2", "probability"), ("kill=x", "probability")]
)
def test_a_bad_plan_is_named(text, word):
    with pytest.raises(OptionError, match=word):
        FaultPlan.parse(text)


def test_a_broken_machine_is_found_and_the_seed_is_named(monkeypatch):
    """A ledger that forgets to void the other leases applies pieces twice."""
    whole = Ledger.take_back

    def careless(self, id_):
        back = whole(self, id_)
        if back and id_.number in self and id_.number % 5 == 0:
            self._waiting.clear()
        return back

    monkeypatch.setattr(Ledger, "take_back", careless)
    plan = FaultPlan(kill=0.2)
    with pytest.raises(AssertionError, match=r"seed \d+: "):
        _run_all(Simulation(seed, plan=plan, slaves=2) for seed in range(50))


def _run_all(simulations):
    for one in simulations:
        one.run()


def test_the_command_counts(capsys):
    assert main(["--seeds", "3", "--plan", "kill=0.1"]) == 0
    assert "3 seeds, 0 failed" in capsys.readouterr().out
