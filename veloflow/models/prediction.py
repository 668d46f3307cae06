"""Predictions of a trained model for the samples in a file, written as a table."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.errors import DataError, InputError
from veloflow.places import Place, place_of
from veloflow.runtime.storage.files import check_writable, write_atomically

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from veloflow.models.inference import InferenceGraph

__all__ = ["check_table", "predict"]

_SUFFIXES = (".parquet", ".csv")
#: samples that are read together, as many minibatches
_MINIBATCHES = 10


def check_table(path: Place) -> None:
    """Check that a table can be written to ``path``, before long work is done for it.

    Raises:
        InputError: another suffix than .parquet and .csv.
        StorageError: it is a folder, or its folder cannot be written to.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path}: {path.suffix!r} is no table; use .parquet or .csv")
    check_writable(path)


def predict(
    model: InferenceGraph,
    data: str | Place,
    output: str | Place,
    *,
    key: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Predict for all samples in ``data`` and write a table to ``output``; return their number.

    The table has a row a sample: ``sample``, its name or number from 0 on; for a classifier
    ``label``, ``probability`` and a column ``p(LABEL)`` for each class; otherwise a column
    ``output_N`` for each number of the output.

    Args:
        model: from :func:`~veloflow.models.open_model`.
        data: a file, a folder or the URL of one, of a kind that the workflow's loader or
            :mod:`veloflow.units.reading` knows.
        output: a .parquet or .csv file, or its URL.
        key: the name of the array in ``data``, where there are several.
        progress: is told how many samples are done, and of how many.

    Raises:
        DataError: the data cannot be read, or does not fit to the model.
        StorageError: the table cannot be written; an older one is untouched.
    """
    data, output = place_of(data), place_of(output)
    check_table(output)
    if not data.exists():
        raise DataError(f"no data {data}")
    names, samples = model.loader.read_raw(data, key=key)
    total = len(samples)
    step = _MINIBATCHES * model.minibatch_size
    parts = []
    for first in range(0, total, step):
        try:
            parts.append(model.run(np.asarray(samples[first : first + step])))
        except DataError as error:
            raise DataError(f"{data}, samples from {first} on: {error}") from error
        progress(min(first + step, total), total)
    outputs = np.concatenate(parts) if parts else model.run(np.empty((0, *model.sample_shape)))
    write_table(_table(model, names, outputs), output)
    return total


def _table(model: InferenceGraph, names: list[str] | None, outputs: NDArray[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"sample": names or np.arange(len(outputs), dtype=np.int64)}
    if model.classifies:
        winners = outputs.argmax(axis=1)
        found["label"] = [model.labels[number] for number in winners]
        found["probability"] = outputs.max(axis=1)
        return found | {f"p({raw})": outputs[:, n] for n, raw in enumerate(model.labels)}
    flat = outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))
    return found | {f"output_{n}": flat[:, n] for n in range(flat.shape[1])}


def write_table(columns: dict[str, Any], path: Place) -> None:
    """Write columns as a .parquet or .csv file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    import polars as pl

    frame: pl.DataFrame = pl.DataFrame(columns)
    content = io.BytesIO()
    if path.suffix.lower() == ".csv":
        frame.write_csv(content)
    else:
        frame.write_parquet(content)
    write_atomically(path, [content.getbuffer()])
