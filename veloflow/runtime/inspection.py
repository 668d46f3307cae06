"""Looking into updates before they count: form, finite numbers, and a digest of their bits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from veloflow.runtime.payloads import pack

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from veloflow.core import Payload

__all__ = ["TRAIN", "Form", "are_finite", "digest_of"]

#: the kind of pieces that leave gradients
TRAIN = 2


class Form:
    """What updates must look like.

    Args:
        templates: what the units here would say, by path.
        size, dtype: of the flat gradient.
    """

    def __init__(self, templates: Mapping[str, Payload], size: int, dtype: DTypeLike) -> None:
        self._templates = templates
        self._size, self._dtype = size, np.dtype(dtype)

    def fault_of(
        self, kind: int, payloads: Mapping[str, Payload], gradients: NDArray[Any] | None
    ) -> str:
        """Return what is wrong with an update for a piece of this kind, if anything."""
        fault = self._fault_of_gradients(gradients) if kind == TRAIN else ""
        return fault or (self._fault_of_payloads(payloads) if kind >= 0 else "")

    def _fault_of_gradients(self, gradients: NDArray[Any] | None) -> str:
        if gradients is None or gradients.shape != (self._size,):
            return "an update without its gradients"
        if gradients.dtype != self._dtype:
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
