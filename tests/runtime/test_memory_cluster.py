"""A whole cluster in one process: slaves are threads, and the bits are the same."""

from __future__ import annotations

import threading

import pytest

import veloflow
from tests.runtime.test_cluster import alone, leaves_nothing, run  # noqa: F401
from veloflow.errors import InputError
from veloflow.runtime.slave import join

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_slaves_in_threads_find_the_same_bits(alone):  # noqa: F811
    def work():
        while True:
            try:
                join("memory://here", "numpy")
            except InputError:  # the master does not listen yet
                continue
            return

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    result = run(listen=["memory://here"])
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert result.parameters_sha256 == alone
    assert sum(one["jobs"] for one in result.more["slaves"]) >= result.more["jobs"]["accepted"]


def test_one_name_has_one_master():
    with pytest.raises(InputError, match="one of several"):
        veloflow.run("digits_mlp", device="numpy", listen=["memory://here", "tcp://127.0.0.1:0"])
