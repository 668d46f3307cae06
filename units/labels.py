"""Labels: raw ones to class numbers, how many there are of each, and a split that keeps shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from veloflow.errors import DataError, InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "UNLABELLED",
    "Label",
    "balanced_order",
    "checked_ratio",
    "class_numbers",
    "count_labels",
    "hold_out",
    "stratified_split",
]

Label: TypeAlias = str | int

UNLABELLED = -1


def class_numbers(
    raw: ArrayLike, mapping: Mapping[Label, int] | None = None
) -> tuple[NDArray[np.int32], dict[Label, int]]:
    """Return the class number of each raw label, and raw label -> number in order of number.

    Args:
        raw: (n,) integers, strings, truth values, or whole numbers stored as floats; None and NaN
            stand for no label.
        mapping: what is known already; by default labels are numbered in sorted order.

    Returns:
        int32 (n,), -1 where there is no label; and the mapping.

    Raises:
        DataError: labels are not one-dimensional, or of another kind, or not in ``mapping``.
    """
    values, places = _distinct(np.asarray(raw))
    known = [value for value in values if value is not None]
    if mapping is None:
        ordered = sorted(known, key=lambda value: (isinstance(value, str), value))
        mapping = {value: number for number, value in enumerate(ordered)}
    strange = [value for value in known if value not in mapping]
    if strange:
        raise DataError(f"unknown labels {listing(strange)}; known are {listing(mapping)}")
    table = np.array([UNLABELLED if v is None else mapping[v] for v in values], np.int32)
    numbers: NDArray[np.int32] = table[places]
    return numbers, dict(sorted(mapping.items(), key=lambda item: item[1]))


def _distinct(raw: NDArray[Any]) -> tuple[list[Label | None], NDArray[np.intp]]:
    """Return the distinct labels as plain Python values, and the place of each sample's among them.

    Several equal values may stand for one label, as 1 and 1.0 do.
    """
    if raw.ndim != 1:
        raise DataError(f"labels must be one-dimensional, and these have shape {raw.shape}")
    if raw.dtype.kind == "O":
        found: dict[object, int] = {}
        # a type beside the value: to a dict 1, 1.0 and True are one
        keys = [(type(value), value) for value in raw.tolist()]
        places = np.array([found.setdefault(key, len(found)) for key in keys], np.intp)
        return [_plain(key[1]) for key in found if isinstance(key, tuple)], places
    distinct, places = np.unique(raw, return_inverse=True)
    return [_plain(value) for value in distinct.tolist()], places


def _plain(value: object) -> Label | None:
    """Return a raw label as str or int, or None when it stands for none."""
    match value:
        case None | str():
            return value
        case bool() | int() | np.integer() | np.bool_():
            return int(value)
        case float() | np.floating() if np.isnan(value):
            return None
        case float() | np.floating() if float(value).is_integer():
            return int(value)
    raise DataError(
        f"{value!r} is no label: labels are strings or whole numbers; "
        "to learn other numbers, give them as targets"
    )


def listing(values: Iterable[object], limit: int = 5) -> str:
    """Return the first values for a message."""
    texts = [repr(value) for value in values]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" * (len(texts) > limit))


def count_labels(numbers: NDArray[np.integer], mapping: Mapping[Label, int]) -> dict[Label, int]:
    """Return how many samples have each label, for all labels of ``mapping``."""
    labelled = numbers[numbers >= 0]
    counts = np.bincount(labelled, minlength=max(mapping.values(), default=-1) + 1)
    return {raw: int(counts[number]) for raw, number in mapping.items()}


def stratified_split(
    numbers: NDArray[np.integer], ratio: float, random: np.random.Generator
) -> NDArray[np.intp]:
    """Choose a share of the samples at random, with about that share of every class.

    Args:
        numbers: (n,) class numbers; the unlabelled, -1, count as a class.
        ratio: the share to choose, in [0, 1).
        random: where chance comes from.

    Returns:
        The chosen places, sorted: round(n * ratio) of them, or fewer, for of each class at
        least one sample stays.
    """
    classes, counts = np.unique(numbers, return_counts=True)
    quotas = _quotas(counts, ratio)
    chosen = [
        random.permutation(np.flatnonzero(numbers == number))[:quota]
        for number, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, np.intp), *chosen]))


def hold_out(
    numbers: NDArray[np.integer],
    lengths: tuple[int, int, int],
    ratio: float,
    random: np.random.Generator,
) -> tuple[NDArray[np.intp], tuple[int, int, int]]:
    """Make a share of the training samples validation samples, the same share of every class.

    Args:
        numbers: (n,) class numbers of test, validation and training samples, in this order.
        lengths: how many there are of each.
        ratio: the share, in [0, 1).
        random: where chance comes from.

    Returns:
        The new order of the samples, and the new lengths.
    """
    order = np.arange(len(numbers))
    if not ratio:
        return order, lengths
    test, validation = lengths[:2]
    first = test + validation
    held = stratified_split(numbers[first:], ratio, random) + first
    rest = np.setdiff1d(order[first:], held)
    new = (test, validation + len(held), len(rest))
    return np.concatenate([order[:first], held, rest]), new


def balanced_order(numbers: NDArray[np.integer], random: np.random.Generator) -> NDArray[np.intp]:
    """Return places of samples so that every class comes equally often, in random order.

    Args:
        numbers: (n,) class numbers; the unlabelled, -1, are left out.
        random: where chance comes from.

    Returns:
        n places: of a large class each comes at most once, those of a small one come repeatedly,
        each before any comes again.
    """
    classes = [np.flatnonzero(numbers == number) for number in np.unique(numbers) if number >= 0]
    if not classes:
        return random.permutation(len(numbers))
    quotas = [len(numbers) // len(classes)] * len(classes)
    for extra in range(len(numbers) % len(classes)):
        quotas[extra] += 1
    chosen = []
    for members, quota in zip(classes, quotas, strict=True):
        rounds = [random.permutation(members) for _ in range(-(-quota // len(members)))]
        chosen.append(np.concatenate(rounds)[:quota] if rounds else members[:0])
    return random.permutation(np.concatenate(chosen))


def checked_ratio(ratio: float, path: str) -> float:
    """Return a share to hold out, which must be in [0, 1).

    Raises:
        InputError: it is not.
    """
    if not 0 <= ratio < 1:
        raise InputError(f"unit {path!r}: validation_ratio is {ratio}; give one in [0, 1)")
    return ratio


def _quotas(counts: NDArray[np.integer], ratio: float) -> NDArray[np.intp]:
    """Return how many to take of each class: the whole parts, then by the largest fractions."""
    exact = counts * ratio
    quotas: NDArray[np.intp] = np.floor(exact).astype(np.intp)
    wanted = round(int(counts.sum()) * ratio) - int(quotas.sum())
    for number in np.argsort(quotas - exact, kind="stable"):
        if wanted > 0 and quotas[number] < counts[number] - 1:
            quotas[number] += 1
            wanted -= 1
    return quotas
