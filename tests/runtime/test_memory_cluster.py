"""A whole cluster in one process: slaves are threads, and the bits are the same."""

from __future__ import annotations

import pytest

import veloflow
from tests.runtime.slaves import in_threads
from tests.runtime.test_cluster import alone, leaves_nothing, run  # noqa: F401
from veloflow.errors import InputError

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_slaves_in_threads_find_the_same_bits(alone):  # noqa: F811
    result = in_threads(2, lambda address: run(listen=[address]))
    assert result.parameters_sha256 == alone
    assert sum(one["jobs"] for one in result.more["slaves"]) >= result.more["jobs"]["accepted"]


def test_one_name_has_one_master():
    with pytest.raises(InputError, match="one of several"):
        veloflow.run("digits_mlp", device="numpy", listen=["memory://here", "tcp://127.0.0.1:0"])
