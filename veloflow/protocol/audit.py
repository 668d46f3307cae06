"""Audit: some pieces are computed by two slaves, and the answers compared bit for bit.

Equal bits make it possible: what is deterministic needs no tolerance, so a single wrong mantissa
bit shows. If two differ, a third slave judges, and whoever is alone is wrong. Only slaves of one
kind, the same device and hardware, are compared.

A slave that spoils a share f of its updates, of which a share a is audited, is found after n
updates with probability 1 - (1 - a f)^n.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Audit", "Opinion"]

#: so many different answers, and none twice: the unit itself is at fault
_HOPELESS = 3


class Opinion(Enum):
    """What the answers to a piece come to."""

    SETTLED = "settled"  #: two agree, or nobody else can be asked: the last answer counts
    ANOTHER = "another"  #: another slave is to compute it
    JUDGE = "judge"  #: two differ: a third must say who is right
    HOPELESS = "hopeless"  #: all differ


@dataclass(slots=True)
class _File:
    """The answers to a piece so far."""

    kind: tuple[str, str] | None = None
    digests: dict[str, bytes] = field(default_factory=dict)  # by slave


class Audit:
    """Chooses pieces and keeps the answers to them.

    Args:
        share: of the pieces that are audited, from 0 to 1.
        seed: of the choice, which no slave may foresee.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._key = seed.to_bytes(8, "little")
        self._files: dict[int, _File] = {}
        #: pieces whose answers differ
        self.disputed: dict[int, None] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._files

    def choose(self, number: int) -> None:
        """Say whether a new piece is audited."""
        if self._share and self._draw(number) < self._share:
            self._files[number] = _File()

    def _draw(self, number: int) -> float:
        """Return a number from 0 to 1 (exclusive) that only who has the seed can foresee."""
        text = number.to_bytes(8, "little")
        digest = hashlib.blake2b(text, key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2**64

    def kind_of(self, number: int) -> tuple[str, str] | None:
        """Return device and hardware of the slaves that may be compared on a piece, once known."""
        return self._files[number].kind if number in self._files else None

    def weigh(self, number: int, slave: str, kind: tuple[str, str], digest: bytes) -> Opinion:
        """Take an answer to an audited piece.

        Args:
            number: of the piece.
            slave: who answers.
            kind: its device and hardware.
            digest: of its answer's bits.
        """
        file = self._files[number]
        if file.kind is None:
            file.kind = kind
        is_new = slave not in file.digests and kind == file.kind
        if not is_new:  # it proves nothing
            return Opinion.JUDGE if number in self.disputed else Opinion.SETTLED
        has_twin = digest in file.digests.values()
        file.digests[slave] = digest
        if has_twin:
            return Opinion.SETTLED
        if len(file.digests) == 1:
            return Opinion.ANOTHER
        self.disputed[number] = None
        return Opinion.JUDGE if len(file.digests) < _HOPELESS else Opinion.HOPELESS

    def outvoted(self, number: int, digest: bytes) -> list[str]:
        """Return the slaves whose answers to a piece were others than this one."""
        return [slave for slave, own in self._files[number].digests.items() if own != digest]

    def is_confirmed(self, number: int) -> bool:
        """Whether two slaves have answered the same."""
        digests = list(self._files[number].digests.values())
        return len(set(digests)) < len(digests)

    def settle(self, number: int) -> None:
        """Forget a piece that is done."""
        self._files.pop(number, None)
        self.disputed.pop(number, None)
