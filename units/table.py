"""Tables: a loader of CSV and Parquet files, one row a sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from veloflow.errors import DataError, nearest
from veloflow.units.fullbatch import FullBatchLoader, Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from veloflow.core import Workflow
    from veloflow.units.normalization import Normalizer

__all__ = ["TableLoader"]


@final
class TableLoader(FullBatchLoader):
    """A loader of a table: numbers in some columns, the label in another.

    Args:
        path: a .csv, .tsv or .parquet file.
        label: the column of labels, or None.
        columns: the columns of numbers, by default all others.
        missing: what to do with missing numbers: "error", fill with the column's "mean", or
            "drop" the rows.
        **options: see :class:`FullBatchLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        path: str | Path,
        *,
        label: str | None,
        columns: Sequence[str] | None = None,
        missing: Literal["error", "mean", "drop"] = "error",
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        normalization: str | Normalizer = "none",
        validation_ratio: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow,
            minibatch_size=minibatch_size,
            shuffle_limit=shuffle_limit,
            normalization=normalization,
            validation_ratio=validation_ratio,
            name=name,
        )
        self.table = Path(path).expanduser()
        self.label = label
        self.columns = columns
        self.missing = missing

    def load_samples(self) -> Samples:
        """Read the table."""
        frame = self._read()
        wanted = [*(self.columns or []), *([self.label] if self.label else [])]
        for column in wanted:
            if column not in frame.columns:
                raise DataError(
                    f"{self.table} has no column {column!r}{nearest(column, frame.columns)}; "
                    f"it has {', '.join(frame.columns)}"
                )
        columns = list(self.columns or (one for one in frame.columns if one != self.label))
        for column in columns:
            if not (frame[column].dtype.is_numeric() or str(frame[column].dtype) == "Boolean"):
                raise DataError(
                    f"{self.table}: column {column!r} holds {frame[column].dtype}, and no numbers; "
                    "leave it out with columns=[…], or turn it into numbers first"
                )
        frame = self._without_missing(frame, columns)
        data = frame.select(columns).to_numpy().astype(np.float64)
        labels = np.array(frame[self.label].to_list(), dtype=object) if self.label else None
        return Samples(data, labels, (0, 0, len(data)))

    def _read(self) -> pl.DataFrame:
        import polars as pl

        if not self.table.is_file():
            raise DataError(f"no table {self.table}; give the path of a .csv or .parquet file")
        readers: dict[str, Any] = {
            ".csv": pl.read_csv,
            ".tsv": lambda path: pl.read_csv(path, separator="\t"),
            ".parquet": pl.read_parquet,
        }
        suffix = self.table.suffix.lower()
        if suffix not in readers:
            raise DataError(f"{self.table}: {suffix!r} is no table; use {', '.join(readers)}")
        try:
            frame: pl.DataFrame = readers[suffix](self.table)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{self.table} cannot be read: {error}") from error
        return frame

    def _without_missing(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        floats = [column for column in columns if frame[column].dtype.is_float()]
        frame = frame.with_columns(pl.col(floats).fill_nan(None)) if floats else frame
        for column in columns:
            holes = frame[column].is_null()
            if not holes.any():
                continue
            if self.missing == "error":
                row = int(holes.arg_max() or 0)
                raise DataError(
                    f"{self.table}: column {column!r} has no number in row {row + 1} "
                    f"({holes.sum()} missing in all); give missing='mean' or missing='drop'"
                )
            if self.missing == "mean":
                frame = frame.with_columns(pl.col(column).fill_null(strategy="mean"))
        return frame.drop_nulls(list(columns)) if self.missing == "drop" else frame
