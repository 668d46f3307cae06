"""Looking into updates before they count: form, finite numbers, and a digest of their bits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from veloflow.errors import WireError
from veloflow.runtime.jobs.round_order import ORDER, SUM, named
from veloflow.runtime.jobs.stretches import split_steps
from veloflow.runtime.transport.payloads import pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Payload
    from veloflow.runtime.jobs.round_order import Order
    from veloflow.runtime.transport.found_vector import FoundVector

__all__ = ["TRAIN", "VALIDATION", "Form", "are_finite", "digest_of"]

#: the kind of pieces that leave gradients
VALIDATION, TRAIN = 1, 2


class Form:
    """What updates must look like.

    Args:
        templates: what the units here would say, by path.
        vector: what else they bring.
    """

    def __init__(self, templates: Mapping[str, Payload], vector: FoundVector) -> None:
        self._templates = templates
        self._vector = vector

    def fault_of(
        self,
        kind: int,
        payloads: Mapping[str, Payload],
        gradients: NDArray[Any] | None,
        count: int = 1,
    ) -> str:
        """Return what is wrong with an update for a piece of this kind, if anything.

        Args:
            kind: of the piece.
            payloads: what units say.
            gradients: the gradient, or what a stretch has changed.
            count: how many minibatches the piece has, if slaves take steps of their own.
        """
        fault = self._fault_of_gradients(gradients) if kind == TRAIN else ""
        if fault or kind < 0:
            return fault
        if kind != TRAIN or not self._vector.is_local:
            return self._fault_of_payloads(payloads)
        try:
            steps = split_steps(payloads)
        except WireError as error:
            return str(error)
        if len(steps) != count:
            return f"an update of {len(steps)} minibatches, not {count}"
        return next(filter(None, map(self._fault_of_payloads, steps)), "")

    def fault_of_block(self, payloads: Mapping[str, Payload], order: Order) -> str:
        """Return what is wrong with what a slave says of its part of a block, if anything."""
        total = payloads.get(ORDER, {}).get(SUM)
        if not isinstance(total, float):
            return "a block of rounds without the sum of its state"
        for at in range(len(order.shards)):
            for shard in order.own(at):
                names = {path: named(at, shard, path) for path in self._templates}
                said = {path: payloads[one] for path, one in names.items() if one in payloads}
                fault = self._fault_of_payloads(said)
                if fault:
                    return fault
        return ""

    def _fault_of_gradients(self, gradients: NDArray[Any] | None) -> str:
        if gradients is None or gradients.shape != (self._vector.size,):
            return "an update without its gradients"
        if gradients.dtype != self._vector.dtype:
            return f"gradients of {gradients.dtype}"
        return ""

    def _fault_of_payloads(self, payloads: Mapping[str, Payload]) -> str:
        """Return in what the payloads differ from what the units here would say."""
        if payloads.keys() != self._templates.keys():
            return f"an update of units {sorted(payloads)}"
        for path, template in self._templates.items():
            payload = payloads[path]
            if payload.keys() != template.keys():
                return f"an update of unit {path!r} with {sorted(payload)}"
            for name, value in template.items():
                if not _is_like(payload[name], value):
                    return f"an update of unit {path!r} whose {name!r} is {payload[name]!r:.80}"
        return ""


def _is_like(value: object, template: object) -> bool:
    if isinstance(template, np.ndarray):
        return (
            isinstance(value, np.ndarray)
            and value.ndim == template.ndim
            and value.dtype.kind == template.dtype.kind
        )
    if isinstance(template, bool) or not isinstance(template, int | float):
        return type(value) is type(template)
    return isinstance(value, int | float) and not isinstance(value, bool)


def are_finite(payloads: Mapping[str, Payload], gradients: NDArray[Any] | None) -> bool:
    """Whether all numbers are finite, of the gradients by their sum."""
    numbers = (value for payload in payloads.values() for value in payload.values())
    return all(math.isfinite(one) for one in numbers if isinstance(one, float)) and (
        gradients is None or math.isfinite(float(gradients.sum()))
    )


def digest_of(payloads: Mapping[str, Payload], gradients: NDArray[Any] | None) -> bytes:
    """Return a digest of all bits that a slave has found."""
    data, headers, arrays = pack(payloads)
    digest = hashlib.blake2b(msgspec.json.encode((data, headers), order="sorted"), digest_size=16)
    for array in arrays:
        digest.update(array.data)
    if gradients is not None:
        digest.update(np.ascontiguousarray(gradients).data)
    return digest.digest()
