"""Slaves train on the partitions of a DataFrame of Spark; predictions come back as a DataFrame."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import veloflow
from veloflow.errors import InputError, OptionError
from veloflow.spark import fit, predict

pytestmark = [
    pytest.mark.engines,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # pyspark's of the pandas to come
]

_DEFINITION = """
from pathlib import Path
from veloflow import Workflow
from veloflow.units import ArrayFileLoader, softmax, standard_workflow, tanh

def build(wf: Workflow, *, data: Path) -> None:
    loader = ArrayFileLoader(wf, data, labels="kind", validation_ratio=0.2, minibatch_size=20,
                             shuffle_window=50)
    standard_workflow(wf, loader=loader, layers=[tanh(8), softmax(3)], learning_rate=0.1,
                      max_epochs=15)
"""


def _rows():
    random = np.random.default_rng(3)
    labels = np.arange(240) % 3
    data = random.normal(size=(240, 4)) + 2 * np.eye(3, 4)[labels]
    return data, labels


def test_train_and_predict(spark_context, tmp_path):
    from pyspark.sql import SparkSession

    data, labels = _rows()
    session = SparkSession(spark_context)
    rows = [(*map(float, row), int(kind)) for row, kind in zip(data, labels, strict=True)]
    frame = session.createDataFrame(rows, ["a", "b", "c", "d", "kind"]).repartition(4)
    path = tmp_path / "mine.py"
    path.write_text(_DEFINITION)
    result = fit(
        frame, str(path), data=tmp_path / "x.parquet", slaves=2, device="numpy",
        checkpoint=tmp_path / "saved",
    )  # fmt: skip
    parts = [one for one in (tmp_path / "x.parquet").iterdir() if one.suffix == ".parquet"]
    assert len(parts) == 4
    alone = veloflow.run(path, device="numpy", sharing="sync", data=tmp_path / "x.parquet")
    assert result.parameters_sha256 == alone.parameters_sha256
    made = predict(frame, tmp_path / "saved", columns=["a", "b", "c", "d"], workflow=str(path))
    assert made.columns == ["a", "b", "c", "d", "kind", "prediction", "probability"]
    found = made.collect()
    assert len(found) == 240
    right = sum(one["prediction"] == str(one["kind"]) for one in found)
    assert right > 200
    one = found[0]
    columns = {name: [one[name]] for name in "abcd"}
    pl.DataFrame(columns).write_csv(tmp_path / "one.csv")
    with pytest.raises(InputError, match="no column of numbers 'z'"):
        predict(frame, tmp_path / "saved", columns=["z"], workflow=str(path))
    with pytest.raises(OptionError, match=r"ends with \.parquet"):
        fit(frame, str(path), data=tmp_path / "x")
