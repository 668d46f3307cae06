"""In the steady state the NumPy device allocates no arrays: everything was there when it was bound.

NumPy tells tracemalloc of its arrays, so the highest mark of a launch shows any that it made.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from veloflow.devices.expressions import element, scalar, tanh, where
from veloflow.devices.numpy import NumpyDevice
from veloflow.runtime.api import prepare
from veloflow.units import ArrayLoader, softmax, standard_workflow
from veloflow.units import tanh as tanh_layer

ROWS, INNER, COLUMNS = 200, 784, 300

#: bytes of NumPy's own buffer of 8192 numbers, which it fills when it converts or spreads an array,
#: and of what Python makes; an array here has 240,000 or more
SMALL = 8 * np.getbufsize() + 4096


def _peak(call):
    """Return how many bytes more than before are held at most during a call."""
    tracemalloc.start()
    try:
        for _ in range(3):
            call()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _launches(device):
    random = np.random.default_rng(0)
    x = device.asarray(random.normal(size=(ROWS, INNER)), "float32")
    w = device.asarray(random.normal(size=(COLUMNS, INNER)), "float32")
    y, z = device.zeros((ROWS, COLUMNS)), device.zeros((ROWS, COLUMNS))
    bias, sums = device.zeros((COLUMNS,)), device.zeros((COLUMNS,))
    wide = device.asarray(np.arange(3 * ROWS * INNER).reshape(3 * ROWS, INNER) % 251, "uint8")
    indices = device.asarray(np.arange(ROWS) * 3 % 577, "int32")
    a, b = element("a"), element("b")
    yield "layer", device.gemm(
        x, w, y, transpose_b=True, bias=bias, activation=tanh(element("x"))
    )  # fmt: skip
    yield "product", device.gemm(y, x, device.zeros((COLUMNS, INNER)), transpose_a=True)
    yield "added product", device.gemm(y, w, x, alpha=1e-3, beta=0.5)
    update = device.elementwise(
        {"a": where(a > 0, a * scalar("rate") + b, b)}, {"a": y, "b": z}
    )  # fmt: skip
    yield "formula", lambda: update(rate=0.5)
    yield "column sums", device.reduce("sum", a, {"a": y}, sums, axis=0)
    yield "maximum", device.reduce("max", a, {"a": y}, device.zeros((1,)), axis=None)
    yield "softmax", device.softmax(y, z, device.zeros((ROWS,), "int32"))
    yield "gather", device.gather(wide, indices, x)
    fill = device.uniform(x, (1, 2))
    yield "random", lambda: fill(stream=1, row=0)


@pytest.mark.parametrize("name", [name for name, _ in _launches(NumpyDevice())])
def test_a_launch_allocates_no_array(name):
    assert _peak(dict(_launches(NumpyDevice()))[name]) < SMALL


def test_a_minibatch_allocates_nothing_of_its_size():
    def build(wf) -> None:
        random = np.random.default_rng(0)
        data = random.normal(size=(1000, INNER)).astype(np.float32)
        loader = ArrayLoader(wf, data, random.integers(0, 10, 1000), minibatch_size=100)
        standard_workflow(wf, loader=loader, layers=[tanh_layer(100), softmax(10)], max_epochs=None)

    with prepare(build, device="numpy") as session:
        flow = session.workflow.flow
        flow.start()
        flow.request_pause()
        flow.run()
        # indices, labels and probabilities of a minibatch are looked at: some kilobytes;
        # its samples alone are 313,600 bytes
        assert _peak(flow.run_round) < SMALL + 20_000
