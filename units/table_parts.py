"""Rows of a Parquet table of which only those parts are read that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from veloflow.errors import DataError
from veloflow.places import Place, whole
from veloflow.units.reading import refuse_missing, table_columns, table_parts

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["PartRows"]


@final
class PartRows:
    """Numbers in columns of a Parquet file, or of a folder of parts as Spark writes it.

    Args:
        place: the file or folder.
        label: the column that is no sample but its label; None for none.

    Attributes:
        columns: of the samples, in the order of the first part.
        parts_read: the names of the parts of which rows were read.

    Raises:
        DataError: it is missing or damaged, or a column holds no numbers.
    """

    def __init__(self, place: Place, label: str | None) -> None:
        if not (place.is_file() or place.is_dir()):
            raise DataError(f"no table {place}")
        self.place = place
        self.label = label
        self._files = [place] if place.is_file() else table_parts(place)
        frames = [self._read(one, [] if label is None else [label]) for one in self._files]
        first = self._read(self._files[0], None, 1)
        self.columns = [one for one in first.columns if one != label]
        table_columns(self._files[0], first, self.columns)
        self._labels = frames
        self._ends = np.cumsum([self._length(one) for one in self._files])
        self.parts_read: set[str] = set()

    def _read(self, file: Place, columns: Sequence[str] | None, most: int | None = None) -> Any:
        import polars as pl

        try:
            return pl.read_parquet(
                whole(file), columns=None if columns is None else list(columns), n_rows=most
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{file} cannot be read: {reason}") from error

    def _length(self, file: Place) -> int:
        import polars as pl

        return int(pl.scan_parquet(whole(file)).select(pl.len()).collect().item())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def labels(self) -> NDArray[Any] | None:
        """Return the labels of all rows (n,), or None."""
        if self.label is None:
            return None
        found = [value for one in self._labels for value in one[self.label].to_list()]
        return np.array(found, dtype=object)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read the rows of a slice with step 1: (n, columns)."""
        first, end, _ = rows.indices(len(self))
        found = [np.empty((0, len(self.columns)))]
        for number, file in enumerate(self._files):
            start = int(self._ends[number - 1]) if number else 0
            low, high = max(first, start) - start, min(end, int(self._ends[number])) - start
            if low < high:
                found.append(self._rows(file, low, high))
        return np.concatenate(found)

    def _rows(self, file: Place, low: int, high: int) -> NDArray[Any]:
        frame: pl.DataFrame = self._read(file, self.columns, high)[low:]
        self.parts_read.add(file.name)
        for column in self.columns:
            refuse_missing(file, frame[column], "fill it first")
        return frame.select(self.columns).to_numpy().astype(np.float64)
