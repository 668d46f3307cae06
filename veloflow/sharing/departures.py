"""Which ranges of a gradient leave before it is whole: wait-free backpropagation.

H. Zhang et al.: Poseidon: An Efficient Communication Architecture for Distributed Deep Learning on
GPU Clusters. USENIX ATC 2017. S. Li et al.: PyTorch Distributed: Experiences on Accelerating Data
Parallel Training. VLDB 2020 (section 3.2.3, buckets).
"""

from __future__ import annotations

__all__ = ["LEAST", "Departures", "Span"]

#: (start, stop) of numbers in the flat vector
Span = tuple[int, int]

#: bytes that are worth a message of their own: it costs 0.1 ms at both ends, and these take 0.1 ms
#: at 10 Gbit/s
LEAST = 1 << 17


class Departures:
    """The ranges of one gradient, as the backward pass completes them: the last layer's first.

    A range leaves when it is complete, with its neighbours that are; small ones wait for more, and
    what has not left when all is done travels with the update.

    Args:
        size: how many numbers the vector has.
        least: how many are worth a message.
    """

    def __init__(self, size: int, least: int) -> None:
        self._size = size
        self._least = least
        self._complete: list[Span] = []  # and still here, none beside another
        self._gone: list[Span] = []

    def complete(self, start: int, stop: int) -> Span | None:
        """Take note that these numbers will not change any more; return what is to leave now.

        Raises:
            ValueError: some of them were complete before, or there are no such numbers.
        """
        if not 0 <= start <= stop <= self._size or any(
            max(start, begin) < min(stop, end) for begin, end in (*self._complete, *self._gone)
        ):
            raise ValueError(f"numbers {start} to {stop} cannot be completed now")
        for begin, end in [one for one in self._complete if start in one or stop in one]:
            self._complete.remove((begin, end))
            start, stop = min(start, begin), max(stop, end)
        span = start, stop
        if stop - start < self._least:
            self._complete.append(span)
            return None
        self._gone.append(span)
        return span

    @property
    def rest(self) -> list[Span]:
        """What has not left, in order."""
        found, here = [], 0
        for start, stop in sorted(self._gone):
            if here < start:
                found.append((here, start))
            here = stop
        return [*found, (here, self._size)] if here < self._size else found
