"""CSV tables: numbers that are written as nan or inf, and in which row such a file is wrong."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from veloflow.errors import DataError
from veloflow.places import Place, whole

if TYPE_CHECKING:
    import polars as pl

__all__ = ["read_csv"]


def read_csv(path: Place, separator: str) -> pl.DataFrame:
    """Read a CSV table; a column of numbers may hold "nan" and "inf".

    Raises:
        DataError: a row has more or fewer fields than there are columns.
        pl.exceptions.PolarsError, OSError: it cannot be read.
    """
    import polars as pl

    try:
        frame = pl.read_csv(whole(path), separator=separator)
    except pl.exceptions.ComputeError:
        _refuse_ragged(path, separator)
        raise
    if frame.width > 1 and frame[:, -1].null_count():  # Polars fills short rows up
        _refuse_ragged(path, separator)
    return frame.with_columns(map(_numbers, frame))


def _numbers(column: pl.Series) -> pl.Series:
    """Return a column of texts as numbers if all of them are."""
    import polars as pl

    if column.dtype != pl.String or column.null_count() == len(column):
        return column
    numbers = column.cast(pl.Float64, strict=False)
    return numbers if numbers.null_count() == column.null_count() else column


def _refuse_ragged(path: Place, separator: str) -> None:
    found = whole(path)
    raw = found.open("rb") if isinstance(found, Path) else found
    with io.TextIOWrapper(raw, "utf-8", "replace", newline="") as text:
        rows = csv.reader(text, delimiter=separator)
        try:
            columns = len(next(rows, []))
            for number, row in enumerate(rows, 1):
                if row and len(row) != columns:
                    raise DataError(
                        f"{path}: row {number} has {len(row)} fields, and the table has {columns} "
                        "columns; mend that row or take it away"
                    )
        except csv.Error:  # Polars has said, or will say, what is wrong
            return
