"""k-means on handwritten digits: any work can be farmed out, not only training.

Lloyd's algorithm. Slaves find the nearest centre of each digit, block by block; the master moves
the centres, until none moves any more. The result is the same to the last bit with any number of
slaves, for blocks are added in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from veloflow import Bool, Input, Repeater, Unit, Workflow
from veloflow.core import Payload
from veloflow.units import FarmMap, digits


def assign(first: int, count: int, centres: np.ndarray) -> Payload:
    """Find the nearest centre of some digits; return what the centres need to move."""
    data = digits()[0][first : first + count]
    distances = np.square(data[:, None, :] - centres[None]).sum(axis=2)
    nearest = distances.argmin(axis=1)
    sums = np.zeros_like(centres)
    np.add.at(sums, nearest, data)
    return {
        "labels": nearest,
        "sums": sums,
        "counts": np.bincount(nearest, minlength=len(centres)),
        "inertia": float(distances.min(axis=1).sum()),
    }


class Centres(Unit):
    """The centres: says what is to be assigned, and moves them when that is done."""

    group = "decision"

    found = Input[list[Mapping[str, Any]]]()

    def __init__(self, wf: Workflow, clusters: int, block: int, rounds: int) -> None:
        super().__init__(wf)
        self.clusters, self.block, self.rounds = clusters, block, rounds
        self.complete = Bool()
        self.items: list[Payload] = []
        self.inertias: list[float] = []

    def initialize(self) -> None:
        """Begin with the first digits as centres."""
        self.data = digits()[0]
        self._move_to(self.data[: self.clusters].copy())

    def _move_to(self, centres: np.ndarray) -> None:
        self.centres = centres
        self.items = [
            {"first": first, "count": self.block, "centres": centres}
            for first in range(0, len(self.data), self.block)
        ]

    def run(self) -> None:
        """Move each centre to the mean of its digits."""
        sums = sum(found["sums"] for found in self.found)
        counts = sum(found["counts"] for found in self.found)
        self.inertias.append(sum(found["inertia"] for found in self.found))
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], self.centres)
        is_still = np.array_equal(moved, self.centres)
        self.complete.set(is_still or len(self.inertias) >= self.rounds)
        self._move_to(moved)

    def results(self) -> Mapping[str, object]:
        """Return how well the centres fit."""
        return {"inertia": self.inertias[-1], "rounds": len(self.inertias)}

    def state(self) -> Mapping[str, object]:
        """Return the centres."""
        return {"centres": self.centres, "inertias": self.inertias}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from these centres."""
        saved: dict[str, Any] = dict(state)
        self._move_to(saved["centres"])
        self.inertias = list(saved["inertias"])


def build(wf: Workflow, *, clusters: int = 10, block: int = 200, rounds: int = 100) -> None:
    """Cluster the digits.

    Args:
        clusters: how many centres.
        block: how many digits a job is about.
        rounds: stop after so many at most.
    """
    repeater = Repeater(wf)
    centres = Centres(wf, clusters, block, rounds)
    assignment = FarmMap(wf, assign)
    assignment.link_data(centres, "items")
    centres.link_data(assignment, found="outputs")

    wf.start >> repeater >> assignment >> centres >> repeater
    centres >> wf.end
    wf.end.gate_block = ~centres.complete
