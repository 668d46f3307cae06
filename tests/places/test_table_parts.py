"""Parquet tables of several parts: the same samples as in one file, and no part in vain."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from veloflow.errors import DataError
from veloflow.units.table_parts import PartRows


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three parts of 10 rows."""
    folder = tmp_path / "x.parquet"
    folder.mkdir()
    values = np.arange(60.0).reshape(30, 2)
    frame = pl.DataFrame({"a": values[:, 0], "b": values[:, 1], "kind": ["u", "v"] * 15})
    for part in range(3):
        frame[10 * part : 10 * part + 10].write_parquet(folder / f"part-{part}.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def test_only_the_parts_of_the_rows_are_read(folder):
    rows = PartRows(folder, "kind")
    assert (len(rows), rows.columns) == (30, ["a", "b"])
    assert rows.labels().tolist() == ["u", "v"] * 15
    np.testing.assert_array_equal(rows[12:15], np.arange(24.0, 30.0).reshape(3, 2))
    assert rows.parts_read == {"part-1.parquet"}
    np.testing.assert_array_equal(rows[8:22], np.arange(16.0, 44.0).reshape(14, 2))
    np.testing.assert_array_equal(rows[:], np.arange(60.0).reshape(30, 2))
    assert len(rows[5:5]) == 0


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="no table"):
        PartRows(tmp_path / "none.parquet", None)
    with pytest.raises(DataError, match="'kind' holds String"):
        PartRows(folder, None)
    (folder / "part-1.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"part-1\.parquet cannot be read"):
        PartRows(folder, "kind")
