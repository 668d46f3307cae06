"""Tables: a loader of CSV and Parquet files, one row a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, final

import numpy as np

from veloflow.errors import DataError, nearest
from veloflow.places import Place, place_of
from veloflow.units.fullbatch import FullBatchLoader, Samples
from veloflow.units.labels import listing
from veloflow.units.reading import TABLES, read_table, refuse_missing, table_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from veloflow.core import Workflow
    from veloflow.units.drift import DriftTest
    from veloflow.units.normalization import Normalizer
    from veloflow.units.reading import RawData

__all__ = ["TableLoader"]


@final
class TableLoader(FullBatchLoader):
    """A loader of a table: numbers in some columns, the label in another.

    Args:
        path: a .csv, .tsv, .parquet, .arrow or .feather file, or a folder of such parts; or its
            URL.
        label: the column of labels, or None.
        columns: the columns of numbers, by default all others.
        missing: what to do with missing numbers: "error", fill with the column's "mean", or
            "drop" the rows.
        **options: see :class:`FullBatchLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        path: str | Place,
        *,
        label: str | None,
        columns: Sequence[str] | None = None,
        missing: Literal["error", "mean", "drop"] = "error",
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        normalization: str | Normalizer = "none",
        validation_ratio: float = 0.0,
        balanced: bool = False,
        drift: DriftTest = "labels",
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow,
            minibatch_size=minibatch_size,
            shuffle_limit=shuffle_limit,
            normalization=normalization,
            validation_ratio=validation_ratio,
            balanced=balanced,
            drift=drift,
            name=name,
        )
        self.table = place_of(path)
        self.label = label
        self.columns = columns
        self.missing = missing

    def load_samples(self) -> Samples:
        """Read the table."""
        frame = read_table(self.table)
        if self.label is not None and self.label not in frame.columns:
            raise DataError(
                f"{self.table} has no column {self.label!r}{nearest(self.label, frame.columns)}; "
                f"it has {listing(frame.columns, 20)}"
            )
        if self.columns is None:
            self.columns = [one for one in frame.columns if one != self.label]
        table_columns(self.table, frame, self.columns)
        frame = self._without_missing(frame, self.columns)
        data = frame.select(self.columns).to_numpy().astype(np.float64)
        labels = np.array(frame[self.label].to_list(), dtype=object) if self.label else None
        return Samples(data, labels, (0, 0, len(data)))

    def read_raw(
        self, source: Place, *, key: str | None = None
    ) -> tuple[list[str] | None, RawData]:
        """Read the columns of the same names from another table, or arrays from another file.

        Missing numbers are an error, whatever ``missing`` says of training.
        """
        if source.suffix.lower() not in TABLES or self.columns is None:
            return super().read_raw(source, key=key)
        frame = table_columns(source, read_table(source), self.columns)
        for column in self.columns:
            refuse_missing(source, frame[column], "fill it first")
        return None, cast("RawData", frame.to_numpy())

    def restore_model(self, state: Mapping[str, Any]) -> None:
        """Take the names of the columns, too."""
        super().restore_model(state)
        self.columns = state["columns"]

    def state(self) -> Mapping[str, object]:
        """Return the place in the epoch, and the names of the columns."""
        return {**super().state(), "columns": list(self.columns or ())}

    def _without_missing(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        floats = [column for column in columns if frame[column].dtype.is_float()]
        frame = frame.with_columns(pl.col(floats).fill_nan(None)) if floats else frame
        for column in columns:
            if self.missing == "error":
                refuse_missing(self.table, frame[column], "give missing='mean' or missing='drop'")
            elif self.missing == "mean":
                frame = frame.with_columns(pl.col(column).fill_null(strategy="mean"))
        return frame.drop_nulls(list(columns)) if self.missing == "drop" else frame
