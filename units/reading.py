"""Samples in files: arrays and tables by the kind of file, opened without reading all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, final

import numpy as np

from veloflow.errors import DataError, nearest
from veloflow.places import Place, RemotePath, open_seekable, whole
from veloflow.units.csv_table import read_csv
from veloflow.units.extras import needs
from veloflow.units.labels import listing

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = [
    "TABLES",
    "ArrayFile",
    "RawData",
    "open_arrays",
    "open_samples",
    "pick_array",
    "read_table",
    "refuse_missing",
    "table_columns",
    "table_parts",
]


class RawData(Protocol):
    """What has a length, and gives an array when cut by a slice: an array, or a file of one."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return these samples."""


# -- tables ----------------------------------------------------------------------------------------


def _parquet(path: Place) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(whole(path))


def _arrow(path: Place) -> pl.DataFrame:
    import polars as pl

    return pl.read_ipc(whole(path))


#: suffix -> what reads such a table
TABLES: Mapping[str, Callable[[Place], pl.DataFrame]] = {
    ".csv": partial(read_csv, separator=","), ".tsv": partial(read_csv, separator="\t"),
    ".parquet": _parquet,
    ".arrow": _arrow, ".feather": _arrow,
}  # fmt: skip


def read_table(path: Place) -> pl.DataFrame:
    """Read a table, the kind by its suffix: .csv, .tsv, .parquet, .arrow, .feather.

    A folder with the name of such a file, as Spark writes it, is read part after part.

    Raises:
        DataError: it is missing, damaged, ragged, or no table.
    """
    import polars as pl

    if not (path.is_file() or path.is_dir()):
        raise DataError(f"no table {path}; give the path of a .csv or .parquet file")
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(f"{path}: {suffix!r} is no table; use {', '.join(TABLES)}")
    try:
        return TABLES[suffix](path) if path.is_file() else _parts(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read: {reason}") from error


def table_parts(folder: Place) -> list[Place]:
    """Return the files of a table that is a folder, in order of name, as Spark writes them."""
    found = [
        one
        for one in folder.iterdir()
        if one.suffix.lower() == folder.suffix.lower() and not one.name.startswith(("_", "."))
    ]
    if not found:
        raise DataError(f"{folder} is a folder without any part{folder.suffix}")
    return sorted(found, key=lambda one: one.name)


def _parts(folder: Place) -> pl.DataFrame:
    import polars as pl

    return pl.concat([read_table(one) for one in table_parts(folder)])


def table_columns(path: Place, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return these columns, which must hold numbers.

    Raises:
        DataError: one is missing, or holds something else.
    """
    for column in columns:
        if column not in frame.columns:
            raise DataError(
                f"{path} has no column {column!r}{nearest(column, frame.columns)}; "
                f"it has {listing(frame.columns, 20)}"
            )
        if not (frame[column].dtype.is_numeric() or str(frame[column].dtype) == "Boolean"):
            _refuse_others(path, frame[column])
    return frame.select(columns)


def _refuse_others(path: Place, column: pl.Series) -> None:
    """Say what a column holds that is no number; of texts, name the first that is none."""
    import polars as pl

    if column.is_empty():
        raise DataError(f"{path} has no rows")
    said, cure = f"holds {column.dtype}, and no numbers", "turn it into numbers first"
    if column.dtype == pl.String:
        is_other = column.is_not_null() & column.cast(pl.Float64, strict=False).is_null()
        row = int(is_other.arg_max() or 0)
        if not is_other.all():
            said, cure = f"holds {column[row]!r} in row {row + 1}, which is no number", "mend it"
    raise DataError(
        f"{path}: column {column.name!r} {said}; leave it out with columns=[…], or {cure}"
    )


def refuse_missing(path: Place, column: pl.Series, cure: str) -> None:
    """Refuse a column in which numbers are missing, naming the first such row.

    Raises:
        DataError: there are some.
    """
    holes = column.is_null()
    if holes.any():
        row = int(holes.arg_max() or 0) + 1
        raise DataError(
            f"{path}: column {column.name!r} has no number in row {row} "
            f"({holes.sum()} missing in all); {cure}"
        )


# -- arrays ----------------------------------------------------------------------------------------


@final
class ArrayFile:
    """An array in an .npy file, of which only those rows are read that are asked for.

    The file is read and never mapped, so that its size does not count as the process's memory. Of a
    URL a range of bytes is asked for; where the server gives none, the file is copied here once.

    Attributes:
        shape, dtype: of the whole array.

    Raises:
        DataError: it is missing, damaged, holds Python objects, or lies in column order.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        try:
            file = open_seekable(path)
            self._kept = file if isinstance(path, RemotePath) else None
            with nullcontext() if self._kept else file:
                version = np.lib.format.read_magic(file)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if read is None:
                    raise ValueError(f"version {version} of the format")
                self.shape, is_fortran, self.dtype = read(file)
                self._start = file.tell()
        except FileNotFoundError:
            raise DataError(f"no data file {path}") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no whole .npy file: {error}") from error
        if self.dtype.hasobject:
            raise DataError(f"{path} holds Python objects, which are not read; save plain numbers")
        if is_fortran and len(self.shape) > 1:
            raise DataError(f"{path} lies in column order; save np.ascontiguousarray(array)")
        if not self.shape:
            raise DataError(f"{path} holds a single number, and no samples")
        promised = self._start + math.prod(self.shape) * self.dtype.itemsize
        size = path.stat().st_size
        if size < promised:
            raise DataError(
                f"{path} is cut short: its header promises {promised} bytes, "
                f"and it has {size}; get it again"
            )

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read the rows of a slice with step 1."""
        first, end, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows are read one after another: give a slice without a step")
        count = max(0, end - first)
        width = math.prod(self.shape[1:])
        found = np.empty(count * width, self.dtype)
        with nullcontext(self._kept) if self._kept else open_seekable(self.path) as file:
            file.seek(self._start + first * width * self.dtype.itemsize)
            view = found.view(np.uint8).data if found.size else memoryview(b"")
            while len(view):
                got = file.readinto(view)  # one call reads 2 GiB at most
                if not got:
                    raise DataError(f"{self.path} became shorter while it was read")
                view = view[got:]
        return found.reshape(count, *self.shape[1:])


@final
class _Rows:
    """An array of a library that gives rows when asked, and may have no length of its own."""

    def __init__(self, array: Any, path: Place) -> None:
        self.array = array
        self.path = path
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read rows.

        Raises:
            DataError: a part of the file is damaged.
        """
        try:
            return np.asarray(self.array[rows])
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{self.path} is damaged: {error}") from error


def open_arrays(path: Place) -> Mapping[str, RawData]:
    """Open the arrays of an .npy, .npz, HDF5 or Zarr file by name; an .npy file has one, "data".

    HDF5 files (.h5, .hdf5) need the extra ``hdf5``, and Zarr folders or zips (.zarr) the extra
    ``zarr``. Only .npz files are read as a whole.

    Raises:
        DataError: it is missing, damaged or of another kind, or an extra is missing.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"no data file {path}")
    match suffix:
        case ".npy":
            return {"data": cast("RawData", ArrayFile(path))}
        case ".npz":
            return _npz(path)
        case ".h5" | ".hdf5":
            return _hdf5(path)
        case ".zarr":
            return _zarr(path)
    raise DataError(f"{path}: {suffix!r} is no file of arrays; use .npy, .npz, .h5 or .zarr")


def _npz(path: Place) -> Mapping[str, RawData]:
    import zipfile
    import zlib

    try:
        raw = path.open("rb") if isinstance(path, Path) else whole(path)
        with raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        cure = "; save arrays of numbers, all rows of a length" * ("allow_pickle" in str(error))
        raise DataError(f"{path} is no whole .npz file of numbers: {error}{cure}") from error


def _hdf5(path: Place) -> Mapping[str, RawData]:
    h5py = needs("h5py", "hdf5", f"to read {path}")
    try:
        file = h5py.File(path if isinstance(path, Path) else open_seekable(path), "r")
    except OSError as error:
        raise DataError(f"{path} is no whole HDF5 file: {error}") from error
    found: dict[str, RawData] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = _Rows(item, path)

    file.visititems(visit)
    return found


def _zarr(path: Place) -> Mapping[str, RawData]:
    zarr = needs("zarr", "zarr", f"to read {path}")
    try:
        store = zarr.open(path if isinstance(path, Path) else path.url, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no Zarr array or group: {error}") from error
    if isinstance(store, zarr.Array):
        return {"data": _Rows(store, path)}
    found = store.members(max_depth=None)
    return {name: _Rows(one, path) for name, one in found if isinstance(one, zarr.Array)}


def pick_array(path: Place, arrays: Mapping[str, RawData], key: str | None) -> RawData:
    """Return the array of that name; without a name "data", or the only one.

    Raises:
        DataError: there is none, or it is not clear which.
    """
    if key is None and "data" not in arrays and len(arrays) == 1:
        return next(iter(arrays.values()))
    name = "data" if key is None else key
    if name not in arrays:
        known = ", ".join(arrays) or "nothing"
        raise DataError(f"{path} has no array {name!r}{nearest(name, arrays)}; it has {known}")
    return arrays[name]


# -- any file of samples ---------------------------------------------------------------------------


def open_samples(path: Place, sample_shape: Sequence[int], *, key: str | None = None) -> RawData:
    """Open raw samples in a file, by its kind: arrays, a table of numbers, IDX, or images.

    Args:
        path: a file, or a folder of images.
        sample_shape: of one sample, which images and tables are read for.
        key: the name of the array, where there are several.

    Raises:
        DataError: it is missing, damaged, or of another kind.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _table_samples(path, sample_shape)
    if suffix in (".npy", ".npz", ".h5", ".hdf5", ".zarr"):
        return pick_array(path, open_arrays(path), key)
    if suffix == ".gz" or path.name.endswith("-ubyte"):
        from veloflow.units.idx import read_idx

        return read_idx(path)
    raise DataError(
        f"{path}: no kind of file that holds samples; give .npy, .npz, .h5, .zarr, .csv, .parquet, "
        "IDX, or what the workflow's own loader reads"
    )


def _table_samples(path: Place, sample_shape: Sequence[int]) -> NDArray[Any]:
    frame = read_table(path)
    width = math.prod(sample_shape)
    columns = [one for one in frame.columns if frame[one].dtype.is_numeric()]
    if len(columns) != width:
        raise DataError(
            f"{path} has {len(columns)} columns of numbers ({', '.join(columns[:5])}…), and the "
            f"model takes {width} numbers a sample"
        )
    for column in columns:
        refuse_missing(path, frame[column], "fill it first")
    return cast("NDArray[Any]", frame.select(columns).to_numpy())
