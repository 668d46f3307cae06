"""DataFrames of Spark: train on one with slaves in its executors, predict for another's rows.

A DataFrame is written by its executors as Parquet, a file for each partition, and slaves read those
parts that their jobs are about; no row passes through the driver for that. Predictions are made
where the rows are, one partition at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from veloflow.errors import InputError, OptionError
from veloflow.places import Place, RemotePath, place_of

if TYPE_CHECKING:
    from veloflow.runtime.result import Result

__all__ = ["fit", "predict"]


def fit(
    frame: Any, workflow: str, *, data: str | Place, option: str = "data", **settings: Any
) -> Result:
    """Train a workflow on a DataFrame; return the run's result.

    Args:
        frame: ``pyspark.sql.DataFrame``, columns of numbers and one of labels.
        workflow: the name of a definition, or the path of its file, whose loader reads Parquet,
            such as ``ArrayFileLoader(wf, data, labels="kind")``.
        data: a path or URL that executors and this process reach, ending with .parquet; rows are
            written there, and what is there is replaced.
        option: the definition's option that takes ``data``.
        **settings: of :func:`veloflow.run`; by default slaves are tasks of the same Spark.

    Raises:
        OptionError: ``data`` does not end with .parquet.
        VeloflowError: see :func:`veloflow.run`.
    """
    from veloflow.runtime.api import run

    place = place_of(data)
    if place.suffix != ".parquet":
        raise OptionError(f"data is {data}; give a path or URL that ends with .parquet")
    where = place.url if isinstance(place, RemotePath) else f"file://{place.absolute()}"
    frame.write.mode("overwrite").parquet(where)
    given = {"on": frame.sparkSession, **settings}
    given["options"] = {**given.get("options", {}), option: place_of(data)}
    return run(workflow, **given)


def predict(
    frame: Any,
    checkpoint: str | Place,
    *,
    columns: list[str] | None = None,
    workflow: str | None = None,
    minibatch_size: int = 100,
) -> Any:
    """Return a DataFrame with ``prediction`` and ``probability``, or ``output``, beside each row.

    Args:
        frame: ``pyspark.sql.DataFrame``.
        checkpoint: a file, folder or URL that executors reach.
        columns: what a sample is made of, in order; by default all columns of numbers.
        workflow: the definition, by name or file, if it does not come along.
        minibatch_size: samples that are computed together.

    Raises:
        InputError: a column does not exist, or does not hold numbers.
    """
    numbers = [name for name, kind in frame.dtypes if _is_number(kind)]
    chosen = numbers if columns is None else list(columns)
    for name in chosen:
        if name not in numbers:
            raise InputError(f"the DataFrame has no column of numbers {name!r}; it has {numbers}")
    source, size = str(checkpoint), minibatch_size
    classifies = _classifies(source, workflow)
    more = "prediction string, probability double" if classifies else "output array<double>"
    fields = ", ".join(f"`{n}` {kind}" for n, kind in frame.dtypes)

    def work(batches: Iterator[Any]) -> Iterator[Any]:
        import numpy as np
        import pyarrow as pa

        from veloflow.models import open_model

        with open_model(source, workflow=workflow, device="numpy", minibatch_size=size) as model:
            for batch in batches:
                rows = np.stack([batch.column(n).to_numpy(False) for n in chosen], axis=1)
                outputs = model.run(rows.astype(np.float64).reshape(-1, *model.sample_shape))
                if classifies:
                    labels = [str(model.labels[k]) for k in outputs.argmax(axis=1)]
                    found = [pa.array(labels), pa.array(outputs.max(axis=1).astype(np.float64))]
                    names = ["prediction", "probability"]
                else:
                    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
                    found, names = [pa.array(flat.tolist(), pa.list_(pa.float64()))], ["output"]
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, *found], names=[*batch.schema.names, *names]
                )

    return frame.mapInArrow(work, f"{fields}, {more}")


def _classifies(checkpoint: str, workflow: str | None) -> bool:
    from veloflow.models import open_model

    with open_model(checkpoint, workflow=workflow, device="numpy") as model:
        return bool(model.classifies)


def _is_number(kind: str) -> bool:
    return kind in ("tinyint", "smallint", "int", "bigint", "float", "double", "boolean")
