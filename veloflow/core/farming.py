"""Farmed work: what units say to their twins on slaves, and who has pieces computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veloflow.core.unit import Unit

__all__ = ["Batch", "BatchSource", "Farm", "Journal", "Part", "Payload", "shard_size"]

#: what a unit says to its twin: JSON values and NumPy arrays, by name; never code
Payload = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch that is issued to be computed.

    Attributes:
        kind: TEST (0), VALIDATION (1) or TRAIN (2).
        epoch: the number of the pass over the data.
        position: the place of its first sample in the order of the pass.
        size: how many samples.
        weight: how many of them count in the mean that is the gradient.
        samples: which they are, as the source knows them: int64 (size,).
    """

    kind: int
    epoch: int
    position: int
    size: int
    weight: int
    samples: Sequence[int]


@dataclass(frozen=True)
class Part:
    """Some consecutive samples of a minibatch: what one job is about."""

    batch: Batch
    first: int
    count: int


def shard_size(minibatch_size: int, shards: int) -> int:
    """Return how many samples a part of a minibatch holds; the last part may hold fewer.

    With ``shards`` = 0 the size says: parts of 32 and more, at least 2 and at most 8 of them. It
    never depends on the number of slaves, for the order of sums does not either.
    """
    return ceil(minibatch_size / (shards or max(2, min(8, minibatch_size // 32))))


class BatchSource(ABC):
    """A unit that issues minibatches: a loader, as a farm sees it.

    Attributes:
        max_minibatch_size: how many samples a full minibatch holds.
    """

    max_minibatch_size: int

    @abstractmethod
    def issue(self) -> Batch:
        """Return the next minibatch; it is outstanding until it is served."""

    @abstractmethod
    def serve(self, batch: Batch) -> None:
        """Let this outstanding minibatch be the present one."""

    @property
    @abstractmethod
    def has_more_of_kind(self) -> bool:
        """Whether :meth:`issue` would give one of the kind of those outstanding, or any if none."""


class Journal:
    """Keeps results of single items of long work, so that a resumed run does not do them again.

    A service of each workflow. This one keeps nothing, for runs without a checkpoint folder.
    """

    def find(self, unit: Unit, item: Payload) -> Payload | None:
        """Return the result of this item, if it is known."""
        return None

    def add(self, unit: Unit, item: Payload, result: Payload) -> None:
        """Keep a result.

        Raises:
            Interrupted: the user has asked for the end.
        """


class Farm(ABC):
    """Has work computed for the units of a master; a service of its workflow.

    Attributes:
        has_moved: the slaves have moved the parameters by the present minibatch already.
        is_local: slaves take steps of their own, and count them: see ``Unit.go_to``.
    """

    has_moved: bool = False
    is_local: bool = False

    @abstractmethod
    def take_turn(self, source: BatchSource) -> None:
        """Issue minibatches of ``source`` as seems good, and let it serve one of them."""

    @abstractmethod
    def collect(self) -> None:
        """Wait for the result of the present minibatch; hand all units their updates."""

    @abstractmethod
    def map(self, unit: Unit, payloads: Sequence[Payload]) -> Iterator[tuple[int, Payload]]:
        """Have the twin of ``unit`` work on each payload; yield number and update as they come."""
