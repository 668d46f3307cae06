"""Models for tests: the inference graph of a workflow that was set up in this process."""

from __future__ import annotations

from contextlib import closing, contextmanager

from veloflow.devices.numpy import NumpyDevice
from veloflow.models import InferenceGraph
from veloflow.runtime.api import prepare
from veloflow.runtime.definition import Definition


@contextmanager
def model_of(build, *, runs=False, device=None, seed=3, **options):
    """Give the inference graph of a definition; ``runs`` trains it first."""
    with prepare(build, device="numpy", seed=seed, options=options) as session:
        if runs:
            session.run()
        checkpoint = session.checkpoint("test")
    place = device or NumpyDevice()
    with closing(InferenceGraph(Definition(build.__name__, build, None), checkpoint, place)) as it:
        yield it
