"""An item that kills each process that touches it: the run ends, and says which one it is."""

from __future__ import annotations

import pytest

import veloflow
from tests.runtime.test_cluster import leaves_nothing  # noqa: F401
from veloflow.errors import ClusterError

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DEADLY = """
import os, signal
from veloflow import Workflow
from veloflow.units import FarmMap

def call(number):
    if number == 70:
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"square": number * number}

def build(wf: Workflow) -> None:
    items = [{"number": number} for number in range(200)]
    wf.start >> FarmMap(wf, call, items=items) >> wf.end
"""


def test_an_item_that_kills_is_named(tmp_path):
    (tmp_path / "deadly.py").write_text(DEADLY)
    with pytest.raises(ClusterError, match=r"slaves died while .* \(item 70\).*SIGSEGV"):
        veloflow.run(str(tmp_path / "deadly.py"), device="numpy", slaves=2)
