"""OpenCL launches that are gathered, and become few when they come again."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.devices import Program, Window
from veloflow.devices.benchmark import SmallStep
from veloflow.devices.expressions import element, index, scalar, tanh, where
from veloflow.devices.opencl.grouping import grouped
from veloflow.devices.opencl.pending import _OFTEN, _SELDOM

pytestmark = pytest.mark.opencl

BATCH, INPUTS, HIDDEN, CLASSES = 18, 37, 21, 5


@pytest.fixture
def opened(tmp_path_factory):
    from veloflow.devices.opencl import OpenCLDevice
    from veloflow.devices.opencl.platforms import open_hardware
    from veloflow.errors import DeviceError

    devices = []

    def open_one(**options):
        try:
            hardware = open_hardware("opencl")
        except DeviceError as error:
            pytest.skip(str(error))
        if not hardware.is_cpu:
            pytest.skip("launches are gathered on processors only")
        devices.append(OpenCLDevice(hardware, **options))
        return devices[-1]

    yield open_one
    for device in devices:
        device.close()


class Step:
    """A training step of a small network, on any device."""

    def __init__(self, device):
        random = np.random.default_rng(4)

        def some(*shape):  # noqa: ANN002 - sizes
            return device.asarray(random.uniform(-1, 1, shape).astype(np.float32))

        self.device = device
        self.w, self.b, self.v = some(HIDDEN, INPUTS), some(HIDDEN), some(CLASSES, HIDDEN)
        self.indices = device.zeros((BATCH,), "int32")
        self.label = device.zeros((BATCH,), "int32")
        x, h, p = device.zeros((BATCH, INPUTS)), some(BATCH, HIDDEN), some(BATCH, CLASSES)
        error, back, delta = some(BATCH, CLASSES), some(BATCH, HIDDEN), some(BATCH, HIDDEN)
        winners = device.zeros((BATCH,), "int32")
        gw, gv = some(HIDDEN, INPUTS), some(CLASSES, HIDDEN)
        self.seen = [p, winners, gw, gv, self.w, self.v]
        wrong = (element("p") - index(1).equals(element("label"))) * scalar("scale")
        slope = element("e") * (1 - element("h") * element("h"))
        move = {"w": element("w") - scalar("rate") * element("g")}
        self.forward = [
            device.gather(some(50, INPUTS), self.indices, x),
            device.gemm(x, self.w, h, transpose_b=True, bias=self.b, activation=tanh(element("x"))),
            device.gemm(h, self.v, p, transpose_b=True),
            device.softmax(p, p, winners),
        ]
        self.error = device.elementwise(
            {"e": where(element("label") >= 0, wrong, 0.0)},
            {"p": p, "label": self.label, "e": error},
        )
        self.backward = [
            device.gemm(error, self.v, back),
            device.gemm(error, h, gv, transpose_a=True),
            device.elementwise({"d": slope}, {"e": back, "h": h, "d": delta}),
            device.gemm(delta, x, gw, transpose_a=True),
        ]
        self.moves = [device.elementwise(move, {"w": w, "g": g})
                      for w, g in ((self.w, gw), (self.v, gv))]  # fmt: skip

    def __call__(self, number):
        self.indices.write((np.arange(BATCH) * 7 + number) % 50)
        self.label.write((np.arange(BATCH) + number) % (CLASSES + 1) - 1)
        for launch in self.forward:
            launch()
        self.error(scale=1 / (1 + number % 3))
        for launch in self.backward:
            launch()
        for launch in self.moves:
            launch(rate=0.1 / (1 + number))
        return [np.array(one.read()) for one in self.seen]


def test_a_sequence_that_comes_again_is_few_launches_with_the_same_bits(opened):
    device, plain = opened(), opened()
    step, wanted = Step(device), Step(plain)
    plain._engine._pending._is_often = lambda sequence: False
    for number in range(_OFTEN + 6):
        for got, want in zip(step(number), wanted(number), strict=True):
            np.testing.assert_array_equal(got, want)
    assert device.info().notes == ()
    (plan,) = device._engine._pending._plans.values()
    launches = []
    enqueue = device._engine._pending._enqueue
    device._engine._pending._enqueue = lambda *what: launches.append(what) or enqueue(*what)
    step(99)
    assert len(launches) <= 2  # those that stay alone; the merged ones have their own way
    assert plan is not None


@pytest.mark.parametrize(("apart", "plans"), [(_SELDOM + 4, 1), (_SELDOM // 2, 2)])
def test_a_sequence_that_comes_seldom_is_not_worth_a_plan(opened, apart, plans):
    """As the last minibatch of an epoch, after which somebody reads in another place."""
    device = opened()
    array = device.zeros((64,))
    each = [
        device.elementwise({"a": element("a") * factor + 1}, {"a": array}) for factor in (0.5, 0.25)
    ]
    for number in range((_OFTEN + 3) * apart):
        for launch in each if number % apart else reversed(each):
            launch()
        device.synchronize()
    assert len(device._engine._pending._plans) == plans


def test_a_sequence_agrees_with_numpy(opened):
    from veloflow.devices import open_device

    step, wanted = Step(opened()), Step(open_device("numpy"))
    for number in range(_OFTEN + 3):
        for got, want in zip(step(number), wanted(number), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "says"),
    [("kernel void merged(global float *a) { }", "stay apart"), ("this is no C", "stay apart")],
    ids=["other arguments", "does not compile"],
)
def test_a_merged_kernel_that_does_not_work_is_left_alone(opened, tmp_path, source, says):
    step = Step(opened(cache=tmp_path, sources={"merged": source}))
    wanted = Step(opened())
    for number in range(_OFTEN + 3):
        for got, want in zip(step(number), wanted(number), strict=True):
            np.testing.assert_array_equal(got, want)
    assert says in " ".join(step.device.info().notes)


def test_a_merged_kernel_with_other_numbers_is_left_alone(opened, monkeypatch):
    from veloflow.devices.opencl import engine

    def skipping(queue, program, steps, units):
        return lambda given: None  # computes nothing

    monkeypatch.setattr(engine, "merged_launch", skipping)
    step, wanted = Step(opened()), Step(opened())
    for number in range(_OFTEN + 3):
        for got, want in zip(step(number), wanted(number), strict=True):
            np.testing.assert_array_equal(got, want)
    assert "other numbers" in " ".join(step.device.info().notes)


def test_reading_waits_for_what_uses_the_array_only(opened):
    device = opened()
    a, b = device.asarray(np.ones(5)), device.asarray(np.ones(5))
    device.elementwise({"a": element("a") + 1}, {"a": a})()
    assert b.read()[0] == 1
    assert device._engine._pending._bound  # nothing has begun
    assert a.read()[0] == 2
    assert not device._engine._pending._bound
    device.elementwise({"a": element("a") + 1}, {"a": a})()
    a.write(7)
    assert a.read()[0] == 7
    device.elementwise({"a": element("a") + 1}, {"a": a})()
    device.synchronize()
    assert device.host(a)[0] == 8


def test_a_launch_keeps_its_arrays(opened):
    device = opened()
    out = device.zeros((1000,))
    launch = device.elementwise(
        {"o": element("x") + 1}, {"o": out, "x": device.asarray(np.arange(1000.0))}
    )
    for _ in range(50):
        device.zeros((1000,))  # takes any memory that is free
    launch()
    np.testing.assert_array_equal(out.read(), np.arange(1000.0) + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "sizes", [(16, 1, 1), (17, 3, 40), (100, 10, 100), (18, 70, 5), (16, 20, 5)]
)
@pytest.mark.parametrize("flip", [False, True])
def test_products_that_go_by_rows(opened, dtype, sizes, flip):
    device = opened()
    rows, columns, inner = sizes
    random = np.random.default_rng(1)
    a, b = random.normal(size=(rows, inner)), random.normal(size=(inner, columns))
    bias = random.normal(size=columns)
    a, b, bias = (one.astype(dtype) for one in (a, b, bias))
    out, plain = device.zeros((rows, columns), dtype), device.zeros((rows, columns), dtype)
    second = device.asarray(np.ascontiguousarray(b.T) if flip else b)
    device.gemm(device.asarray(a), second, plain, transpose_b=flip)()
    device.gemm(
        device.asarray(a), second, out, transpose_b=flip, bias=device.asarray(bias),
        activation=tanh(element("x")),
    )()  # fmt: skip
    tolerance = 2e-5 if dtype is np.float32 else 1e-12
    wide = a.astype(np.float64) @ b
    np.testing.assert_allclose(plain.read(), wide, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(out.read(), np.tanh(wide + bias), rtol=tolerance, atol=tolerance)


def _with_many_items(device):
    """Return launches that go by 100 rows, more work-items than small operations have.

    The last needs all that the one before it writes, so there are two at least.
    """
    first, second = (device.asarray(np.ones((100, 8), np.float32)) for _ in range(2))
    row = device.asarray(np.ones((1, 8), np.float32))
    half = element("x") * 0.5
    launches = [
        device.elementwise({"x": half}, {"x": first}),
        device.elementwise({"x": half}, {"x": row}),
        device.elementwise({"x": half + element("row")}, {"x": second, "row": row}),
    ]

    def launch():
        for one in launches:
            one()

    return launch


def _small_product(device):
    random = np.random.default_rng(5)
    a, b = random.normal(size=(100, 10)), random.normal(size=(100, 10))
    out = device.zeros((100, 100))
    a, b = (device.asarray(one.astype(np.float32)) for one in (a, b))
    return device.gemm(a, b, out, transpose_b=True), out


def _convolution(device, batch=None, channels=2, kernels=5):
    random = np.random.default_rng(6)
    window = Window((6, 6, channels), (3, 3), (1, 1), (1, 1, 1, 1))
    batch = batch or 4 * device._engine.hardware.compute_units + 1

    def some(*shape):  # noqa: ANN002 - sizes
        return device.asarray(random.normal(size=shape).astype(np.float32))

    x, weights = some(batch, 6, 6, channels), some(kernels, 3 * 3 * channels)
    return window, x, weights, some(batch, *window.places, kernels)


def _forward(device):
    window, x, weights, out = _convolution(device)
    return device.convolution(x, weights, out, window), out


def _forward_by_tiles(device):
    window, x, weights, out = _convolution(device, channels=32, kernels=32)
    return device.convolution(x, weights, out, window), out


def _back(device, **sizes):
    window, x, weights, err = _convolution(device, **sizes)
    gradient = device.zeros(weights.shape)
    launch = device.convolution_gradient(
        err, x, weights, window, weights_gradient=gradient, input_gradient=device.zeros(x.shape),
        bias_gradient=device.zeros((err.shape[-1],)),
    )  # fmt: skip
    return launch, gradient


def _back_by_tiles(device):
    return _back(device, channels=32, kernels=32)


@pytest.mark.parametrize(
    "make", [_small_product, _forward, _forward_by_tiles, _back, _back_by_tiles]
)
def test_work_items_of_one_launch_stay_in_the_memory_of_their_own(opened, monkeypatch, make):
    """Each has a piece of scratch memory; beside a launch of more work-items there are no more."""
    device = opened()
    engine, ends = device._engine, {}

    def roomy(name, size):
        ends[name] = max(size, ends.get(name, 0))
        if name not in engine._scratch:
            block = engine.buffers.allocate((64 * size + 4096,), np.dtype(np.uint8))
            block.host[...] = 171
            engine._scratch[name] = block
        return engine._scratch[name]

    monkeypatch.setattr(engine, "_scratch_block", roomy)
    launch, out = make(device)
    other = _with_many_items(device)
    launch()
    wanted = np.array(out.read())
    for _ in range(_OFTEN + 3):
        launch()
        other()
        np.testing.assert_array_equal(out.read(), wanted)
    assert ends
    launch()
    other()
    device.synchronize()
    for name, end in ends.items():
        assert (engine._scratch[name].host[end:] == 171).all(), f"{name} is written past its end"
    assert device.info().notes == ()
    assert engine._pending._plans


def test_a_unit_s_own_kernel_stays_a_launch_of_its_own(opened):
    device = opened()
    source = """kernel void count(global real *a, const int step)
{ a[get_global_id(0)] += step * get_global_size(0); }"""
    own = Program("count", source, lambda a, step: None, ("a",), (("step", "int"),))
    a = device.zeros((50,))
    launch = device.program(own, {"a": a}, (3,))
    other = _with_many_items(device)
    for _ in range(_OFTEN + 3):
        launch(step=1)
        other()
        device.synchronize()
    np.testing.assert_array_equal(a.read(), [3 * (_OFTEN + 3)] * 3 + [0] * 47)
    assert device.info().notes == ()


def test_steps_of_the_benchmark_become_few_launches(opened):
    device, plain = opened(), opened()
    plain._engine._pending._is_often = lambda sequence: False
    step, wanted = SmallStep(device), SmallStep(plain)
    for _ in range(_OFTEN + 3):
        for one in (step, wanted):
            one()
            one()
            one.device.synchronize()
    np.testing.assert_array_equal(step.parameters.read(), wanted.parameters.read())
    assert device.info().notes == ()


@pytest.mark.parametrize("is_plan", [True, False])
def test_reading_waits_for_the_last_launch_that_uses_the_array(opened, is_plan):
    """A kernel that takes long runs on while what the launch before it wrote is read."""
    device = opened()
    pending = device._engine._pending
    source = """kernel void turn(global real *x, const int turns)
{ for (int turn = 0; turn < turns; ++turn) x[0] = x[0] * 0.5f + 1; }"""
    turn = Program("turn", source, lambda x, turns: None, ("x",), (("turns", "int"),))
    a, x = device.zeros((6, 4)), device.zeros((1,))
    launches = [
        device.elementwise({"a": element("a") + 1}, {"a": a}),
        device.program(turn, {"x": x}, (1,)),
    ]

    def launch(turns):
        launches[0]()
        if not is_plan:  # each is given to the driver by itself
            pending.flush()
        launches[1](turns=turns)
        pending.flush()

    for _ in range(_OFTEN + 1):
        launch(1)
        device.synchronize()
    assert bool(pending._plans) is is_plan
    a.write(np.arange(4.0))
    launch(50_000_000)  # takes 0.1 s or more
    np.testing.assert_array_equal(a.read(), np.tile(np.arange(4.0) + 1, (6, 1)))
    last = pending._last_use(id(device._engine.block(x).root))
    assert last.command_execution_status != 0  # it is not complete
    assert x.read()[0] == 2
    assert last.command_execution_status == 0
    device.synchronize()
    assert not pending._running


def test_a_plan_knows_where_the_use_of_each_buffer_ends(opened):
    step = Step(opened())
    for number in range(_OFTEN + 2):
        step(number)
    pending = step.device._engine._pending
    ((sequence, plan),) = pending._plans.items()
    steps = [one for bound in sequence for one in bound.steps]
    groups = grouped([one.work() for one in steps])
    assert len(groups) > 2
    for place, group in enumerate(groups):
        for number in group:
            for block in steps[number].blocks.values():
                assert plan.ends[id(block.root)] >= place
    used = {place: {id(block.root) for one in group for block in steps[one].blocks.values()}
            for place, group in enumerate(groups)}  # fmt: skip
    assert all(root in used[place] for root, place in plan.ends.items())
