"""Clusters of Dask, Ray and Spark on this machine, for as long as they are used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def dask_on_this_machine() -> Iterator[Any]:
    """Give a client of a Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def ray_on_this_machine() -> Iterator[Any]:
    """Give the module ray, connected to a cluster of this machine."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@contextmanager
def spark_on_this_machine() -> Iterator[Any]:
    """Give a Spark context with two threads on this machine."""
    pyspark = pytest.importorskip("pyspark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        conf = pyspark.SparkConf().setMaster("local[2,1000000]").setAppName("tests")
        conf.set("spark.ui.enabled", "false").set("spark.driver.host", "127.0.0.1")
        context = pyspark.SparkContext(conf=conf)
        yield context
        context.stop()
