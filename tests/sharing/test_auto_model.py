"""What a run finds out about itself, and what the model makes of it: no network, no clock."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from veloflow.sharing import parse_sharing
from veloflow.sharing.auto_guard import Guard
from veloflow.sharing.auto_measure import Gauge, Measured
from veloflow.sharing.auto_model import choose, predict

#: four slaves, a perceptron of 784-100-10, a network of 1 Gbit/s
SLOW_WIRE = Measured(1e-5, (1.0,) * 4, 5e-4, 1.25e8, 318_000, 636_000, 60, minibatches=167)
#: a small convolutional network, and a wire that hardly matters
COMPUTE = Measured(1e-3, (1.0,) * 4, 1e-5, 1.25e10, 29_000, 58_000, 64, minibatches=1000)


def fed(paces, *, kind=2, count=10, late=(), times=8, wire=None):
    """Return a gauge that slaves of these seconds a sample have fed."""
    gauge = Gauge()
    for turn in range(times):
        for slave, pace in paces.items():
            seconds = pace * count * (10 if (slave, turn) in late else 1)
            nbytes = 1000 if turn % 2 else 100_000
            gauge.add(slave, kind, count, seconds, wire(nbytes) if wire else None, nbytes)
    return gauge


def test_latency_and_bandwidth_are_a_line_through_small_and_large_transfers():
    gauge = fed({"a": 1.0, "b": 1.0}, wire=lambda nbytes: 2 * 3e-4 + nbytes / 1e8)
    latency, bandwidth = gauge.wire()
    assert latency == pytest.approx(3e-4)
    assert bandwidth == pytest.approx(1e8)


def test_a_wire_of_which_nothing_is_known_is_free():
    assert Gauge().wire() == (0.0, inf)
    assert fed({"a": 1.0}, wire=lambda nbytes: 2e-4).wire() == (1e-4, inf)


def test_slow_for_good_and_late_for_once_are_told_apart():
    slow = fed({"a": 1e-3, "b": 1e-3, "c": 4e-3})
    assert slow.speeds(3) == pytest.approx((1, 1, 0.25))
    assert slow.slowness() == {"c": 4}
    assert slow.lateness() == (0.0, 1.0)
    late = fed({"a": 1e-3, "b": 1e-3, "c": 1e-3}, late={("c", 3), ("a", 5)})
    assert late.speeds(3) == pytest.approx((1, 1, 1))
    assert late.slowness() == {}
    share, factor = late.lateness()
    assert (share, factor) == (pytest.approx(2 / 24), pytest.approx(10))


def test_of_two_slaves_the_quicker_one_is_the_usual():
    assert fed({"a": 1e-3, "b": 4e-3}).slowness() == {"b": 4}
    assert fed({"a": 1e-3, "b": 4e-3}).sample() == pytest.approx(1e-3)


def test_validation_and_training_are_not_mixed_up():
    gauge = fed({"a": 3e-3})
    for _ in range(8):
        gauge.add("a", 1, 10, 1e-2, None, 0)
    assert gauge.sample() == pytest.approx(3e-3)
    assert gauge.lateness() == (0.0, 1.0)


def test_it_knows_when_it_knows_enough():
    assert not Gauge().is_enough(1)
    assert not fed({"a": 1.0}, times=2).is_enough(1)
    assert fed({"a": 1.0}, times=3).is_enough(1)
    assert not fed({"a": 1.0}, times=8).is_enough(2)  # the other one has done nothing yet …
    assert fed({"a": 1.0}, times=32).is_enough(2)  # … and may never


def test_those_who_are_gone_are_forgotten():
    gauge = fed({"a": 1e-3, "b": 1e-3, "c": 4e-3})
    gauge.forget(["a", "b"])
    assert gauge.slowness() == {}


# -- the choice -----------------------------------------------------------------------------------


def test_sync_is_taken_where_it_is_about_as_quick():
    choice = choose(COMPUTE)
    assert choice.taken.sharing.startswith("sync")
    cheapest = choice.others[0].cost
    sync = next(one for one in choice.others if (one.sharing, one.codec) == ("sync", "plain"))
    enough = 100 * (sync.cost / cheapest - 1) + 1
    choice = choose(COMPUTE, margin=enough)
    assert choice.taken.sharing == "sync"
    assert "same bits" in choice.reason


def test_where_the_wire_is_the_limit_parameters_travel_seldom():
    taken = choose(SLOW_WIRE).taken
    assert taken.sharing.partition(":")[0] in ("average", "elastic")
    sync = next(one for one in predict(SLOW_WIRE) if one.sharing == "sync")
    assert sync.seconds == pytest.approx(2 * 5e-4 + 2 * 318_000 / 1.25e8 + 3e-4)


def test_periods_are_short_where_an_epoch_is():
    every = [
        int(one.sharing.partition("=")[2])
        for minibatches in (30, 300, 3000)
        for one in choose(replace(SLOW_WIRE, minibatches=minibatches)).others[:1]
    ]
    assert every == sorted(every)
    assert every[0] < every[-1]


def test_a_bound_helps_against_the_transient_and_not_against_the_slow():
    even = replace(COMPUTE, speeds=(1.0,) * 8)
    late = replace(even, late=0.05, factor=10.0)
    slow = replace(even, speeds=(1.0,) * 7 + (0.1,))

    def seconds(measured, mode):
        return next(one.seconds for one in predict(measured) if one.sharing == mode)

    def loss(measured, mode):
        """How many times the time of a run of equals."""
        return seconds(measured, mode) / seconds(even, mode)

    assert loss(late, "ssp:s=3") < 0.75 * loss(late, "sync:shards=8")
    assert loss(slow, "ssp:s=3") > 5
    assert loss(slow, "async") < 1.3
    assert loss(slow, "average:every=20") < 1.3  # stretches as long as slaves are quick


def test_codecs_are_taken_only_where_they_pay():
    coded = {"onebit": 0.034}
    assert choose(replace(COMPUTE, ratios=coded)).taken.codec == "plain"
    heavy = replace(SLOW_WIRE, latency=1e-5, bandwidth=1e6, ratios=coded)
    assert choose(heavy).taken.codec == "onebit"
    assert choose(heavy, codecs=False).taken.codec == "plain"
    slow_codec = replace(heavy, packing={"onebit": 10.0})
    assert choose(slow_codec).taken.codec == "plain"
    assert choose(SLOW_WIRE, codec="topk:0.01").taken.codec == "topk:0.01"


def test_near_the_edge_stale_modes_are_worth_nothing_and_averaging_more():
    def worth(edge, mode):
        found = predict(replace(SLOW_WIRE, edge=edge))
        return next(one.worth for one in found if one.sharing == mode)

    for mode, low in (("async", 0.01), ("groups:g=2", 0.02)):
        assert worth(low, mode) > 0.9
        assert worth(0.5, mode) < 0.01
    assert worth(0.04, "async") < 0.5  # three steps stale, and curvature grows from a low start
    assert worth(0.02, "async:damping=1") > 10 * worth(0.5, "async:damping=1")
    for mode in ("average:every=10", "elastic:every=10"):
        assert worth(0.02, mode) < worth(0.08, mode) < worth(0.5, mode)
    assert worth(None, "average:every=10") == worth(0.08, "average:every=10")


def test_a_replica_whose_stretches_are_short_weighs_little():
    def worth(speeds, mode="average:every=20"):
        found = predict(replace(SLOW_WIRE, speeds=speeds, minibatches=1000))
        return next(one.worth for one in found if one.sharing == mode)

    assert worth((1.0,)) == 1
    assert worth((1.0,)) > worth((1.0, 0.1)) > worth((1.0, 0.25)) > worth((1.0, 1.0))
    assert worth((1.0,) * 8) > 1.2 * worth((1.0,) * 8, "average:every=50")  # and far apart
    assert worth((1.0, 1.0)) < 1.05 * worth((1.0, 1.0), "average:every=50")


def test_what_is_barred_is_not_taken():
    barred: frozenset[str] = frozenset()
    for _ in range(4):
        choice = choose(SLOW_WIRE, barred=barred)
        name = choice.taken.sharing.partition(":")[0]
        assert name not in barred
        barred |= {name} - {"sync"}
    assert not choose(SLOW_WIRE, stale=False).taken.is_stale


def test_every_word_that_it_takes_is_one():
    for slaves in (1, 2, 8, 100):
        measured = replace(SLOW_WIRE, speeds=(1.0,) * slaves, ratios={"onebit": 0.03})
        for one in predict(measured):
            parse_sharing(one.sharing)
            assert one.seconds > 0
            assert 0 < one.worth <= 1


def test_the_reason_says_what_was_measured():
    measured = replace(SLOW_WIRE, speeds=(1, 1, 1, 0.25), late=0.05, factor=9.6)
    reason = choose(measured).reason
    assert "\n" not in reason
    for part in ("auto takes", "4 slaves", "10 us a sample", "0.32 MB", "500 us + 1 Gbit/s",
                 "1 slow for good (4.0 times)", "5 % of pieces 9.6 times longer"):  # fmt: skip
        assert part in reason


# -- the guard ------------------------------------------------------------------------------------


def test_a_trial_that_lets_the_loss_rise_is_given_up():
    guard = Guard()
    for _ in range(20):
        guard.trained(1.0)
    guard.begin("async", is_trial=True)
    for _ in range(20):
        guard.trained(1.3)
    assert not guard.has_tripped
    for _ in range(12):
        guard.trained(1.7)
    assert guard.has_tripped
    assert guard.bar() == "async"
    assert guard.barred == {"async", "ssp", "groups"}
    assert not guard.has_tripped


def test_a_loss_that_is_no_number_ends_a_trial_at_once():
    guard = Guard()
    guard.trained(1.0)
    guard.begin("async", is_trial=True)
    guard.trained(float("nan"))
    assert guard.has_tripped


def test_stale_gradients_are_given_up_where_the_loss_rises_above_its_least_in_any_epoch():
    guard = Guard()
    guard.begin("async", is_trial=True)
    for epoch, loss in enumerate((1.0, 0.5, 0.6, 0.7)):
        for _ in range(20):
            guard.trained(loss)
        guard.evaluated(loss)
        assert guard.is_best == (epoch < 2)
        assert not guard.has_tripped
    for _ in range(12):
        guard.trained(0.8)  # as in the first epoch, so no trial would be given up for it
    assert guard.has_tripped


def test_what_follows_a_mode_that_was_given_up_is_not_held_to_the_best_of_before():
    guard = Guard()
    guard.begin("async", is_trial=True)
    guard.evaluated(1.0)
    guard.evaluated(9.0)
    assert guard.has_tripped
    guard.bar()
    guard.begin("average", is_trial=False)
    guard.evaluated(4.0)
    assert not guard.has_tripped
    assert guard.is_best


def test_any_mode_but_sync_is_given_up_where_validation_gets_much_worse():
    guard = Guard()
    guard.evaluated(1.0)
    guard.evaluated(9.0)
    assert not guard.has_tripped  # there is nothing to go back to
    guard.begin("average", is_trial=False)
    guard.evaluated(1.3)
    assert not guard.has_tripped
    guard.evaluated(1.5)
    assert guard.has_tripped
