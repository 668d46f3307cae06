"""The search for the quickest ways to multiply: what to try next and what to keep, without a clock.

A shell measures what :meth:`Search.next` asks for and tells the outcome. Each family of kernels is
searched at one size, its best members then meet at a ladder of sizes, which tells from which size
on each is taken. Whenever the search is ended, what was found so far is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from veloflow.devices.opencl.tiles import (
    Blas,
    Choice,
    default_choices,
    direct_candidates,
    local_candidates,
    packed_candidates,
)

if TYPE_CHECKING:
    from veloflow.devices.opencl.tiles import Facts, Method

__all__ = ["Attempt", "Family", "Search", "families_of", "thresholds"]

#: what another method must win by before the default, or an earlier family, is left for it
_GAIN = 1.03
#: the share of the time after which the ladder begins, ready or not
_FAMILIES_SHARE = 0.7
#: how many of a family are measured once more, for a machine is seldom quiet
_AGAIN = 3
_CPU_LADDER = (128, 192, 256, 320, 448, 640, 1024)
_GPU_LADDER = (128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Attempt:
    """A measurement to make: the product of two square matrices of ``size``."""

    method: Method
    size: int


@dataclass(frozen=True)
class Family:
    """Methods of one kind, the default first, and the size at which they are compared."""

    candidates: Sequence[Method]
    size: int


def families_of(facts: Facts) -> list[Family]:
    """Return what is searched on a device, in the order of the sizes that each is good for."""
    if facts.is_cpu:
        return [
            Family(direct_candidates(facts), 192),
            Family(packed_candidates(facts), 512),
            Family([Blas()], 512),
        ]
    return [
        Family(local_candidates(facts, small=True), 256),
        Family(local_candidates(facts, small=False), 2048),
    ]


@dataclass
class Search:
    """One search.

    Args:
        facts: of the device.
        budget: seconds.
        families, ladder: what is searched, where it is not the usual.
    """

    facts: Facts
    budget: float
    families: Sequence[Family] = ()
    ladder: Sequence[int] = ()
    #: the best rate of each method at each size, in GFLOP/s
    figures: dict[Attempt, float] = field(default_factory=dict)
    #: why a method is not taken
    set_aside: dict[Method, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.families = self.families or families_of(self.facts)
        self.ladder = self.ladder or (_CPU_LADDER if self.facts.is_cpu else _GPU_LADDER)
        self._looks: dict[Attempt, int] = {}

    # -- what happens ---------------------------------------------------------------------------

    def next(self, elapsed: float) -> Attempt | None:
        """Return what to measure, None when nothing is left or ``elapsed`` is the whole budget."""
        if elapsed >= self.budget:
            return None
        if elapsed < self.budget * _FAMILIES_SHARE:
            for family in self.families:
                attempt = self._of_family(family)
                if attempt is not None:
                    return attempt
        return next(iter(self._of_ladder()), None)

    def heard(self, attempt: Attempt, gflops: float) -> None:
        """Take in a measurement; the best of several counts, for load only slows down."""
        self.figures[attempt] = max(gflops, self.figures.get(attempt, 0.0))
        self._looks[attempt] = self._looks.get(attempt, 0) + 1

    def failed(self, attempt: Attempt, reason: str) -> None:
        """Set a method aside for good: it crashed, hung, or gave wrong numbers."""
        self.set_aside[attempt.method] = reason

    # -- what follows ---------------------------------------------------------------------------

    @property
    def made(self) -> int:
        """How many measurements were made or failed."""
        return sum(self._looks.values()) + len(self.set_aside)

    @property
    def expected(self) -> int:
        """How many measurements there will be, about, if time allows."""
        if self.is_complete:
            return self.made
        alone = [family for family in self.families if len(family.candidates) > 1]
        several = sum(
            len(family.candidates) + min(_AGAIN, len(family.candidates)) for family in alone
        )
        return max(self.made, several + len(self.ladder) * len(self.families))

    @property
    def is_complete(self) -> bool:
        """Whether all was measured."""
        families = all(self._of_family(family) is None for family in self.families)
        return families and not self._of_ladder()

    def best(self, family: Family) -> Method | None:
        """Return the best of a family; None where all were set aside."""
        able = [one for one in family.candidates if one not in self.set_aside]
        if not able:
            return None
        rates = {one: self.figures.get(Attempt(one, family.size), 0.0) for one in able}
        quickest = max(able, key=lambda one: rates[one])
        return quickest if rates[quickest] >= _GAIN * rates[able[0]] else able[0]

    def choices(self) -> tuple[Choice, ...]:
        """Return what to take from now on."""
        best = [self.best(family) for family in self.families]
        found = thresholds(best, self.ladder, self.figures)
        if found is None:
            found = self._by_default(best)
        # a product must have a kernel, for the BLAS cannot do all of them
        if not found or isinstance(found[0].method, Blas):
            kernels = [one for one in best if one is not None and not isinstance(one, Blas)]
            if not kernels:
                return default_choices(self.facts)
            found = (Choice(0, kernels[0]), *(replace_size(one) for one in found))
        return found

    def _by_default(self, best: Sequence[Method | None]) -> tuple[Choice, ...]:
        """Return the default's sizes with the best of each family."""
        by_kind = {type(one): one for one in best if one is not None}
        usual = default_choices(self.facts)
        if self.facts.is_cpu:
            kept = [
                Choice(one.from_size, by_kind[type(one.method)])
                for one in usual
                if type(one.method) in by_kind
            ]
        else:
            kept = [one for one in usual if one.method not in self.set_aside]
            if best[-1] is not None and len(kept) > 1:
                kept[-1] = Choice(kept[-1].from_size, best[-1])
        return tuple(
            Choice(0 if number == 0 else one.from_size, one.method)
            for number, one in enumerate(kept)
        )

    def _of_family(self, family: Family) -> Attempt | None:
        able = [one for one in family.candidates if one not in self.set_aside]
        if len(family.candidates) < 2:
            return None  # nothing to compare it with; the ladder measures it
        attempts = [Attempt(one, family.size) for one in able]
        for attempt in attempts:
            if attempt not in self.figures:
                return attempt
        ranked = sorted(attempts, key=lambda one: -self.figures[one])
        return next((one for one in ranked[:_AGAIN] if self._looks[one] < 2), None)

    def _of_ladder(self) -> list[Attempt]:
        best = [self.best(family) for family in self.families]
        wanted = [Attempt(one, size) for size in self.ladder for one in best if one is not None]
        return [one for one in wanted if one not in self.figures]


def replace_size(choice: Choice) -> Choice:
    """Return a choice that leaves room for another below it."""
    return Choice(max(1, choice.from_size), choice.method)


def thresholds(
    methods: Sequence[Method | None], sizes: Sequence[int], figures: Mapping[Attempt, float]
) -> tuple[Choice, ...] | None:
    """Return from which size on each method is taken; None where a size was not measured.

    A later method is taken from the smallest size on from which it, or one after it, wins by 3 %
    at every larger size too: one odd measurement decides nothing.

    Args:
        methods: in the order of the sizes that they are good for; None: there is none.
        sizes: rising.
        figures: the rates.
    """
    able = [one for one in methods if one is not None]
    if any(Attempt(one, size) not in figures for one in able for size in sizes):
        return None

    def wins(later: int, size: int) -> bool:
        rates = [figures[Attempt(one, size)] for one in able]
        return max(rates[later:]) >= _GAIN * max(rates[:later])

    found: list[Choice] = []
    for number, method in enumerate(able):
        start = 0
        if number:
            runs = [size for n, size in enumerate(sizes) if all(wins(number, s) for s in sizes[n:])]
            if not runs:
                continue
            start = 0 if runs[0] == sizes[0] else runs[0]
        while found and found[-1].from_size >= start:
            found.pop()
        found.append(Choice(start, method))
    return tuple(found)
