"""A workflow of every family on three slaves, one of them killed: the bits of a run alone.

Add a family in families.py.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import veloflow
from tests.runtime.test_cluster import leaves_nothing  # noqa: F401
from tests.workflows.families import FAMILIES
from veloflow.core import EpochDone
from veloflow.errors import Interrupted

pytestmark = [pytest.mark.slow]

_FILE = Path(__file__).with_name("families.py")


def run(family, **options):
    given = {"device": "numpy", "sharing": "sync:shards=3", **options}
    return veloflow.run(_FILE, family=family, **given)


@pytest.mark.cluster
@pytest.mark.parametrize("family", FAMILIES)
def test_slaves_find_the_bits_of_a_run_alone(family):
    alone = run(family)
    # the run may be over before the last of them has joined: whoever has work dies of it, once
    faults = ",".join(f"kill=slave{number}@job2" for number in (1, 2, 3))
    result = run(family, slaves=3, faults=faults)
    assert result.parameters_sha256 == alone.parameters_sha256
    assert result.epochs == alone.epochs
    assert result.more["jobs"]["lost"] >= 1


@pytest.mark.parametrize("sharing", ["sync:shards=3", None])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_run_ends_with_the_same_bits(family, sharing, tmp_path):
    def interrupt(session):
        session.events.subscribe(
            EpochDone,
            lambda event: event.record["epoch"] == 1 and os.kill(os.getpid(), signal.SIGINT),
        )

    whole = run(family, sharing=sharing)
    with pytest.raises(Interrupted):
        run(family, sharing=sharing, checkpoint=tmp_path, watch=interrupt)
    resumed = run(family, sharing=sharing, checkpoint=tmp_path, resume=True)
    assert resumed.parameters_sha256 == whole.parameters_sha256
    assert resumed.epochs == whole.epochs
