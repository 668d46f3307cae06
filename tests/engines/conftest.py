"""Real engines on this machine: their clusters."""

from __future__ import annotations

import sys

import pytest
from engine_runs import LONG, run_on


@pytest.fixture(scope="session")
def local():
    """Return the bits that local slaves give after 3 epochs."""
    return run_on(None).sha256


@pytest.fixture(scope="session")
def local_long():
    """Return the bits that local slaves give after 400 epochs."""
    return run_on(None, epochs=400, workflow=LONG).sha256


@pytest.fixture(scope="session")
def dask_client():
    """Give a client of a Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="session")
def ray_cluster():
    """Give the module ray, connected to a cluster of this machine."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def spark_context():
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
