"""A piece at which slaves die, or go wrong: when it is to blame, and goes to no other."""

from __future__ import annotations

from collections import Counter

__all__ = ["Deaths"]

#: a piece is never blamed for fewer deaths
_FEWEST = 3
#: the chance that a harmless piece is blamed, in a run
_ERROR = 1e-5
#: answers that count before there are any, with one death among them
_PRIOR = 5


class Deaths:
    """Which pieces slaves were computing when they died.

    Slaves die of other things too, some often. A piece at which ``k`` of them died is to blame
    when chance is no explanation: with ``p`` the share of deaths at all other pieces and ``n``
    pieces so far, when ``n * p ** k`` is small. In a calm run three deaths are enough; where
    every twentieth job kills, seven are.
    """

    def __init__(self) -> None:
        self._at: Counter[int] = Counter()
        self._total = 0
        self._answers = 0

    def answered(self) -> None:
        """Count a piece that was computed."""
        self._answers += 1

    def died(self, number: int) -> int:
        """Count a death at this piece; return how many there were if it is to blame, else 0."""
        self._at[number] += 1
        self._total += 1
        count = self._at[number]
        elsewhere = self._total - count
        share = (elsewhere + 1) / (self._answers + elsewhere + _PRIOR)
        is_chance = (self._answers + 1) * share**count >= _ERROR
        return 0 if count < _FEWEST or is_chance else count

    def settle(self, number: int) -> None:
        """Forget a piece that was computed in the end."""
        self._at.pop(number, None)
