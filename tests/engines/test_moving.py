"""A run moves from one engine to another by its checkpoint, and ends with the same bits."""

from __future__ import annotations

import os
import signal

import pytest
from engine_runs import run_on

import veloflow
from veloflow.core import EpochDone
from veloflow.errors import Interrupted

pytestmark = pytest.mark.engines

EPOCHS = 30


def _stop_after(epoch):
    """Return what stops a run after an epoch as Ctrl-C does, with a checkpoint."""

    def watch(session):
        def hear(event):
            if event.record["epoch"] == epoch:
                os.kill(os.getpid(), signal.SIGINT)

        session.events.subscribe(EpochDone, hear)

    return watch


def _part(on, folder, *, until, **settings):
    with pytest.raises(Interrupted, match="checkpoint in"):
        veloflow.run("digits_mlp", device="numpy", on=on, watch=_stop_after(until), **settings)
    assert (folder / "last.safetensors").is_file()


def test_from_dask_to_ray_to_spark_to_this_machine(
    dask_client, ray_cluster, spark_context, tmp_path
):
    whole = run_on(None, epochs=EPOCHS).sha256
    _part(dask_client, tmp_path, until=5, slaves=2, epochs=EPOCHS, checkpoint=tmp_path)
    _part(ray_cluster, tmp_path, until=12, slaves=3, resume=tmp_path)
    _part(spark_context, tmp_path, until=20, slaves=1, resume=tmp_path)
    last = veloflow.run("digits_mlp", device="numpy", slaves=2, resume=tmp_path)
    assert last.parameters_sha256 == whole
    assert [one["epoch"] for one in last.epochs] == list(range(EPOCHS + 1))
