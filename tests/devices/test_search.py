"""The tuner's decisions: what is tried next, what is kept, when it ends. No device, no clock."""

from __future__ import annotations

import random

import pytest

from veloflow.devices.opencl.search import Attempt, Family, Search, thresholds
from veloflow.devices.opencl.tiles import (
    Blas,
    Choice,
    Direct,
    Facts,
    Local,
    Packed,
    default_choices,
    fits,
)

CPU = Facts(True, 32, 2, 1 << 20, 4096)
GPU = Facts(False, 0, 132, 48 << 10, 1024)
DIRECT, PACKED, BLAS = Direct(6, 2, 32), Packed(6, 2, 32, 512, 16), Blas()


def run(search, rate, *, seconds=1.0, broken=()):
    """Let the search measure with made-up rates; return the attempts in order."""
    attempts, elapsed = [], 0.0
    while (attempt := search.next(elapsed)) is not None:
        attempts.append(attempt)
        elapsed += seconds
        if attempt.method in broken:
            search.failed(attempt, "it crashed")
        else:
            search.heard(attempt, rate(attempt))
        assert len(attempts) < 1000, "the search never ends"
    return attempts


def is_sound(choices, facts):
    sizes = [one.from_size for one in choices]
    assert sizes[0] == 0
    assert sizes == sorted(set(sizes))
    assert not isinstance(choices[0].method, Blas)
    assert all(fits(one.method, facts) for one in choices)


def test_the_default_is_tried_first_and_stays_unless_another_is_clearly_better():
    search = Search(CPU, 1000.0)
    attempts = run(search, lambda attempt: 100.0)
    assert attempts[0].method == default_choices(CPU)[0].method
    assert search.is_complete
    assert search.choices() == (Choice(0, DIRECT),)


def test_the_quickest_of_each_family_is_kept_with_the_size_from_which_on_it_wins():
    quick, deep = Direct(4, 3, 32), Packed(5, 2, 32, 512, 16)
    better = {quick: 110.0, deep: 115.0}

    def rate(attempt):
        if isinstance(attempt.method, Blas):
            return 60.0 if attempt.size < 640 else 140.0
        if isinstance(attempt.method, Packed):
            return better.get(attempt.method, 80.0) * (0.6 if attempt.size < 256 else 1.0)
        return better.get(attempt.method, 90.0) * (1.0 if attempt.size < 448 else 0.5)

    search = Search(CPU, 1000.0)
    run(search, rate)
    assert search.choices() == (Choice(0, quick), Choice(256, deep), Choice(640, BLAS))


def test_a_method_that_fails_is_never_tried_again_and_never_chosen():
    broken = {DIRECT, Direct(4, 3, 32), PACKED}
    search = Search(CPU, 1000.0)
    attempts = run(search, lambda attempt: 100.0, broken=broken)
    for one in broken:
        assert sum(attempt.method == one for attempt in attempts) == 1
        assert search.set_aside[one] == "it crashed"
    assert not broken & {choice.method for choice in search.choices()}
    is_sound(search.choices(), CPU)


def test_without_any_kernel_that_works_the_default_stays():
    search = Search(CPU, 1000.0)
    kernels = {one for family in search.families for one in family.candidates} - {BLAS}
    run(search, lambda attempt: 100.0, broken=kernels)
    assert search.choices() == default_choices(CPU)


@pytest.mark.parametrize("budget", [0.5, 1, 3, 7, 12, 20, 40])
@pytest.mark.parametrize("facts", [CPU, GPU], ids=["cpu", "gpu"])
def test_whenever_time_is_up_there_is_an_answer(budget, facts):
    search = Search(facts, budget)
    attempts = run(search, lambda attempt: 50.0 + len(str(attempt.method)))
    assert len(attempts) <= budget + 1
    is_sound(search.choices(), facts)


def test_the_ladder_gets_its_share_of_a_short_time():
    search = Search(CPU, 10.0)
    attempts = run(search, lambda attempt: 100.0)
    assert any(isinstance(attempt.method, Blas) for attempt in attempts)
    assert not search.is_complete
    assert [one.from_size for one in search.choices()] == [
        one.from_size for one in default_choices(CPU)
    ], "sizes are the default's until the ladder is whole"


def test_the_best_are_looked_at_twice_and_the_best_look_counts():
    family = Family([Direct(6, 2, 32), Direct(4, 3, 32), Direct(5, 2, 32), Direct(4, 2, 32)], 192)
    search = Search(CPU, 1000.0, [family], [128])
    looks = {}

    def rate(attempt):
        looks[attempt] = looks.get(attempt, 0) + 1
        slow = attempt.method == Direct(4, 3, 32) and looks[attempt] == 1  # somebody else computed
        return {6: 100.0, 4: 104.0 if slow else 130.0, 5: 102.0}[attempt.method.tall] - (
            50.0 if attempt.method == Direct(4, 2, 32) else 0.0
        )

    run(search, rate)
    assert looks[Attempt(Direct(4, 2, 32), 192)] == 1
    assert search.choices()[0].method == Direct(4, 3, 32)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("facts", [CPU, GPU], ids=["cpu", "gpu"])
def test_any_rates_and_failures_end_in_a_sound_choice(seed, facts):
    chance = random.Random(seed)
    search = Search(facts, chance.choice([10.0, 30.0, 100.0]))
    methods = [one for family in search.families for one in family.candidates]
    broken = set(chance.sample(methods, chance.randint(0, len(methods))))
    run(search, lambda attempt: chance.uniform(1, 200), broken=broken)
    is_sound(search.choices(), facts)
    assert search.made <= search.expected
    kernels = {one for one in methods if not isinstance(one, Blas)}
    if not set(search.set_aside) >= kernels:
        assert not set(search.set_aside) & {choice.method for choice in search.choices()}


def test_one_odd_measurement_moves_no_threshold():
    sizes = (128, 256, 512)
    figures = {Attempt(DIRECT, size): 100.0 for size in sizes}
    figures |= {Attempt(PACKED, size): 90.0 for size in sizes}
    figures[Attempt(PACKED, 256)] = 150.0
    assert thresholds([DIRECT, PACKED], sizes, figures) == (Choice(0, DIRECT),)
    figures[Attempt(PACKED, 512)] = 120.0
    assert thresholds([DIRECT, PACKED], sizes, figures) == (Choice(0, DIRECT), Choice(256, PACKED))
    del figures[Attempt(DIRECT, 128)]
    assert thresholds([DIRECT, PACKED], sizes, figures) is None


def test_a_gpu_takes_its_tiles_by_what_was_measured():
    small, large = Local(32, 32, 16, 2, 2, 1), Local(128, 128, 8, 8, 8, 4)

    def rate(attempt):
        if attempt.size < 1024:
            return 150.0 if attempt.method == small else 100.0
        return 300.0 if attempt.method == large else 200.0

    search = Search(GPU, 1000.0)
    run(search, rate)
    assert search.choices() == (Choice(0, small), Choice(1024, large))
