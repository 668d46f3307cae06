"""Steps of recurrent layers as one launch: NumPy's numbers, whoever else is in the minibatch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from veloflow.devices import open_device
from veloflow.devices.opencl.device import OpenCLDevice
from veloflow.devices.opencl.platforms import open_hardware
from veloflow.devices.recurrence import Inputs, by_steps
from veloflow.errors import DeviceError, ShapeError
from veloflow.units import gates

MAKERS = {
    "lstm": gates.lstm_forward,
    "lstm back": gates.lstm_backward,
    "gru": gates.gru_forward,
    "gru back": gates.gru_backward,
    "tanh": partial(gates.rnn_forward, function="tanh"),
    "tanh back": partial(gates.rnn_backward, function="tanh"),
    "relu": partial(gates.rnn_forward, function="relu"),
    "relu back": partial(gates.rnn_backward, function="relu"),
}
SIZES = gates.Sizes(5, 16, 24, np.dtype(np.float32), masked=True, every=True)
TOLERANCES = {4: 2e-5, 8: 1e-12}


@pytest.fixture(scope="module")
def device():
    try:
        opened = open_device("opencl")
    except DeviceError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


def begin(recurrence, dtype, rows):
    """Return what the arrays begin with; the first rows are the same for any number of them."""
    random = np.random.default_rng(3)
    arrays = {}
    for name, shape in recurrence.shapes.items():
        if name == "lengths":
            arrays[name] = random.integers(0, 7, 64)[:rows].astype(np.int32)
        elif name == "errors" or name in ("gates", "sums", "states"):
            whole = random.uniform(-1, 1, (shape[0], 64, shape[2]))
            arrays[name] = whole[:, :rows].astype(dtype)
        elif "bias" in name:
            arrays[name] = random.uniform(-1, 1, shape).astype(dtype)
        else:
            arrays[name] = np.zeros(shape, dtype)
    weights = random.uniform(-0.3, 0.3, recurrence.weights_shape).astype(dtype)
    return arrays, weights


def results(device, recurrence, sizes, bind=None):
    arrays, weights = begin(recurrence, sizes.dtype, sizes.rows)
    placed = {name: device.asarray(values) for name, values in arrays.items()}
    bind, entering = bind or device.recurrence, None
    if recurrence.entering is not None:
        random = np.random.default_rng(5)
        values = random.uniform(-1, 1, (sizes.steps, 64, 9))[:, : sizes.rows].astype(sizes.dtype)
        columns = recurrence.shapes[recurrence.entering][-1]
        enter = random.uniform(-1, 1, (columns, 9)).astype(sizes.dtype)
        entering = Inputs(device.asarray(values), device.asarray(enter))
    launch = bind(recurrence, placed, device.asarray(weights), entering)
    launch()
    return [np.array(placed[name].read()) for name in recurrence.outputs]


@pytest.mark.opencl
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("masked", "every"), [(False, False), (True, True)])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_device_gives_the_numbers_of_numpy(device, kind, masked, every, dtype):
    for rows, cells in ((1, 128), (16, 24), (13, 5)):
        sizes = gates.Sizes(5, rows, cells, np.dtype(dtype), masked, every)
        recurrence = MAKERS[kind](sizes)
        found = results(device, recurrence, sizes)
        host = open_device("numpy")
        # views of NumPy begin anywhere, so no step need be aligned
        for ours, expected in zip(found, results(host, recurrence, sizes), strict=True):
            tolerance = TOLERANCES[sizes.dtype.itemsize]
            np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)
    assert not device.info().notes


@pytest.mark.opencl
@pytest.mark.parametrize("kind", MAKERS)
def test_bits_of_a_row_do_not_depend_on_the_others(device, kind):
    """Rows of a tile, tiles and work-items are other ones for each of these numbers of rows."""
    whole = replace(SIZES, rows=64)
    wanted = results(device, MAKERS[kind](whole), whole)
    for rows in (1, 3, 10, 33, 50):
        sizes = replace(SIZES, rows=rows)
        for ours, expected in zip(results(device, MAKERS[kind](sizes), sizes), wanted, strict=True):
            np.testing.assert_array_equal(ours, expected[:, :rows])


@pytest.mark.opencl
def test_where_the_kernel_is_wrong_steps_are_launches_of_their_own(tmp_path):
    """A kernel that leaves out the last step, and one that is no OpenCL."""
    for number, broken in enumerate(("count - 1", "count +")):
        good = OpenCLDevice(open_hardware("opencl"), cache=tmp_path / f"good {number}")
        source = source_of(good)
        device = OpenCLDevice(
            open_hardware("opencl"),
            cache=tmp_path / str(number),
            sources={"recurrence": source.replace("n < count", f"n < {broken}")},
        )
        recurrence = gates.lstm_forward(SIZES)
        (found,) = results(device, recurrence, SIZES)
        (expected,) = results(open_device("numpy"), recurrence, SIZES)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
        assert any("recurrence" in note for note in device.info().notes)
        for one in (good, device):
            one.close()


def source_of(device):
    """Return the source of the kernel for ``SIZES``."""
    seen = []
    compiler = device._engine.compiler
    ask = compiler.program
    compiler.program = lambda recipe, trial: (seen.append(recipe), ask(recipe, trial))[1]
    results(device, gates.lstm_forward(SIZES), SIZES)
    (source,) = {one.source for one in seen if one.name == "recurrence"}
    return source


def test_numpy_takes_the_steps_one_by_one():
    host = open_device("numpy")
    recurrence = gates.gru_forward(SIZES)
    one = results(host, recurrence, SIZES)
    two = results(host, recurrence, SIZES, partial(by_steps, host))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["numpy", pytest.param("opencl", marks=pytest.mark.opencl)])
def test_arrays_of_other_shapes_are_refused(name, request):
    place = open_device("numpy") if name == "numpy" else request.getfixturevalue("device")
    recurrence = gates.lstm_forward(SIZES)
    arrays = {key: place.zeros(shape) for key, shape in recurrence.shapes.items()}
    good = place.zeros((96, 24))
    with pytest.raises(ShapeError, match="what enters 'lstm_forward' does not fit gates"):
        place.recurrence(recurrence, arrays, good)
    with pytest.raises(ShapeError, match=r"lstm_forward.*weights of \(96, 24\)"):
        place.recurrence(recurrence, arrays, place.zeros((24, 96)))
