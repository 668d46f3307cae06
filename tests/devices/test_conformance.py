"""One suite for every device that computes: each operation against plain NumPy, written here."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veloflow.devices import expressions as ex
from veloflow.devices import open_device, random, self_test
from veloflow.devices.base import Program
from veloflow.errors import DeviceError, ShapeError, VeloflowError

X, Y = ex.element("x"), ex.element("y")
FLOATS = (np.float32, np.float64)
SOME = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=["numpy", pytest.param("opencl", marks=pytest.mark.opencl)])
def device(request):
    try:
        opened = open_device(request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


def numbers(*shape, seed=0, dtype=np.float32):  # noqa: ANN002 - sizes
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(dtype)


def close(array, wanted, scale=1.0):
    """Compare within a few units of the dtype's last place, times ``scale``."""
    got = np.asarray(array.read())
    tolerance = (4e-6 if got.dtype.itemsize <= 4 else 1e-14) * scale
    np.testing.assert_allclose(got, np.reshape(wanted, got.shape), rtol=tolerance, atol=tolerance)


def compute(device, formula, shape, dtype=np.float32, scalars=None, **inputs):
    """Compute one formula over named host arrays into a new array."""
    arrays = {name: device.asarray(values) for name, values in inputs.items()}
    arrays["result"] = device.zeros(shape, dtype)
    device.elementwise({"result": formula}, arrays)(**(scalars or {}))
    return arrays["result"]


def test_device_passes_its_self_test(device):
    assert self_test(device) == []


def test_info_says_what_it_is(device):
    info = device.info()
    assert info.name == device.name
    assert info.kind == device.name.partition(":")[0]
    assert info.hardware
    assert info.driver
    assert info.memory > 0
    assert info.compute_units > 0


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4)])
def test_what_is_written_is_read(device, dtype, shape):
    values = (50 + 10 * numbers(*shape)).astype(dtype)
    array = device.zeros(shape, dtype)
    assert not np.asarray(array.read()).any()
    array.write(values)
    got = array.read()
    assert got.dtype == np.dtype(dtype)
    assert got.shape == shape
    np.testing.assert_array_equal(got, values)


def test_what_is_read_cannot_be_changed(device):
    values = device.asarray(numbers(4)).read()
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1


def test_write_broadcasts_and_refuses_what_does_not_fit(device):
    array = device.zeros((3, 4))
    array.write(2.5)
    np.testing.assert_array_equal(array.read(), np.full((3, 4), 2.5))
    array.write(np.arange(4))
    np.testing.assert_array_equal(array.read(), np.tile(np.arange(4), (3, 1)))
    with pytest.raises(ShapeError):
        array.write(np.arange(5))


def test_views_share_memory(device):
    flat = device.asarray(numbers(1000))
    host = numbers(1000)
    for start in (128, 256, 768):
        part = device.view(flat, start, (10, 20))
        part.write(float(start))
        host[start : start + 200] = start
        device.elementwise({"x": X + 1}, {"x": part})()
        host[start : start + 200] += 1
    np.testing.assert_array_equal(flat.read(), host)


def test_place_and_reshape_share_memory(device):
    flat, declared = device.zeros((300,)), device.array((2, 64))
    assert not declared.is_allocated
    device.place(declared, flat, 128)
    declared.write(numbers(2, 64))
    np.testing.assert_array_equal(np.asarray(flat.read())[128:256], numbers(2, 64).reshape(-1))
    declared.reshape(64, 2).write(3.0)
    np.testing.assert_array_equal(declared.read(), np.full((2, 64), 3.0))
    with pytest.raises(ShapeError):
        declared.reshape(3, 5)


def test_view_outside_is_refused(device):
    with pytest.raises(ShapeError):
        device.view(device.zeros((200,)), 128, (100,))


def test_allocating_twice_keeps_the_values(device):
    array = device.asarray(numbers(5))
    device.allocate(array)
    np.testing.assert_array_equal(array.read(), numbers(5))


def test_array_without_memory_is_refused(device):
    with pytest.raises(VeloflowError):
        device.elementwise({"x": X + 1}, {"x": device.array((3,))})


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
def test_copy_is_exact(device, dtype):
    values = (numbers(6, 7) * 50 + 101).astype(dtype)
    values.flat[0] = (1 << 30) + 1 if dtype == "i4" else 77
    target = device.zeros((6, 7), dtype)
    device.copy(device.asarray(values), target)()
    np.testing.assert_array_equal(target.read(), values)


# -- elementwise ----------------------------------------------------------------------------------

LAYOUTS = {"full": (6, 4, 5), "row": (4, 5), "column": (6,), "single": (1,)}


@pytest.mark.parametrize(("one", "two"), list(product(LAYOUTS, repeat=2)))
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(device, one, two, dtype):
    x, y = numbers(*LAYOUTS[one], dtype=dtype), numbers(*LAYOUTS[two], seed=1, dtype=dtype)
    got = compute(device, X * 3 - Y, (6, 4, 5), dtype, x=x, y=y)
    wide = [a.reshape(6, 1, 1) if a.shape == (6,) else a for a in (x, y)]
    close(got, np.broadcast_to(wide[0] * 3 - wide[1], (6, 4, 5)))


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 9), (9, 1), (3, 1, 2)])
def test_layouts_of_thin_arrays(device, shape):
    x = numbers(*shape)
    row = numbers(*shape[1:], seed=1)
    close(compute(device, X + Y, shape, x=x, y=row.reshape(1, *shape[1:])), x + row)


@pytest.mark.parametrize("n", [1, 4, 5])
def test_a_square_matrix_changes_no_layout(device, n):
    x, flat = numbers(4, n), numbers(4, seed=1)
    close(compute(device, X * Y, (4, n), x=x, y=flat), x * flat[:, None])
    if n == 4:
        close(compute(device, X * Y, (4, n), x=x, y=flat[None]), x * flat)
    if n == 5:
        with pytest.raises(ShapeError, match=r"a row has the shape \(1, 5\)"):
            compute(device, X * Y, (4, n), x=x, y=numbers(5))


HOSTS = {"where": lambda c, x, y: np.where(c != 0, x, y)}
OPERANDS = {
    "power": (np.abs(numbers(11, 13)) + 0.1, numbers(11, 13, seed=1)),
    "log": (np.abs(numbers(11, 13)) + 0.01,),
    "log1p": (np.abs(numbers(11, 13)) * 0.01,),
    "sqrt": (np.abs(numbers(11, 13)),),
    "equal": (np.sign(numbers(11, 13)), np.sign(numbers(11, 13, seed=1))),
    "not_equal": (np.sign(numbers(11, 13)), np.sign(numbers(11, 13, seed=1))),
    "where": (np.sign(numbers(11, 13)).clip(0), numbers(11, 13, seed=1), numbers(11, 13, seed=2)),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("operation", ex.OPERATIONS)
def test_every_operation(device, operation, dtype):
    count = ex.OPERATIONS[operation]
    default = (numbers(11, 13), numbers(11, 13, seed=1))
    hosts = [a.astype(dtype) for a in OPERANDS.get(operation, default)[:count]]
    formula = ex.Apply(operation, tuple(ex.element(f"a{n}") for n in range(count)))
    inputs = {f"a{n}": host for n, host in enumerate(hosts)}
    wanted = HOSTS.get(operation, getattr(np, operation))(*hosts).astype(dtype)
    close(compute(device, formula, (11, 13), dtype, **inputs), wanted)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0, -1.0])
def test_powers_by_a_constant(device, exponent):
    x = np.abs(numbers(50)) + 0.1
    close(compute(device, X**exponent, (50,), x=x), x**exponent)
    got = compute(device, X ** ex.scalar("p"), (50,), scalars={"p": exponent}, x=x)
    close(got, x**exponent)


def test_where_chooses_bits(device):
    """Neither branch leaks into the other: not its NaN, infinity or sign of zero."""
    x = np.array([1, 0, -1, 2, 0], np.float32)
    strange = np.array([np.nan, np.inf, np.nan, -0.0, 5], np.float32)
    plain = np.array([1, 2, 3, 4, -0.0], np.float32)
    for yes, no in ((strange, plain), (plain, strange)):
        got = compute(device, ex.where(X, Y, ex.element("z")), (5,), x=x, y=yes, z=no).read()
        wanted = np.where(x != 0, yes, no)
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(np.signbit(got[wanted == 0]), np.signbit(wanted[wanted == 0]))
    zero_else = compute(device, ex.where(X > 0, Y, 0.0), (5,), x=x, y=strange).read()
    np.testing.assert_array_equal(zero_else, np.where(x > 0, strange, 0))
    zero_first = compute(device, ex.where(X > 0, 0.0, Y), (5,), x=x, y=strange).read()
    np.testing.assert_array_equal(zero_first, np.where(x > 0, 0, strange))


def test_comparisons_with_nan_are_false(device):
    x = np.array([np.nan, 1.0], np.float32)
    for formula, wanted in (
        (X < 2, [0, 1]), (X <= 2, [0, 1]), (X > 0, [0, 1]), (X >= 1, [0, 1]),
        (X.equals(X), [0, 1]), (X.differs(X), [1, 0]), ((X < 2) * 3 + 1, [1, 4]),
    ):  # fmt: skip
        np.testing.assert_array_equal(compute(device, formula, (2,), x=x).read(), wanted)


def test_nan_is_not_hidden(device):
    """A rectifier must not turn NaN into 0: that would hide a run that has diverged."""
    x = np.array([np.nan, 1.0], np.float32)
    for formula in (ex.maximum(X, 0), ex.maximum(0, X), ex.minimum(X, 9), ex.minimum(9, X)):
        np.testing.assert_array_equal(compute(device, formula, (2,), x=x).read(), x)


def test_extreme_numbers_warn_nobody(device):
    x = np.array([-1e4, -90, 0, 90, 1e4], np.float32)
    softplus = ex.where(X > 15, X, ex.log1p(ex.exp(X)))
    wanted = np.logaddexp(x.astype(np.float64), 0)
    got = compute(device, softplus, (5,), x=x)
    np.testing.assert_allclose(got.read(), wanted, rtol=1e-5, atol=1e-30)
    huge = compute(device, ex.exp(X) * 1e300 - 1 / Y, (5,), x=x, y=np.zeros(5, np.float32))
    assert not np.isfinite(huge.read()).any()


def test_in_place_and_several_outputs(device):
    x, y = numbers(40, 30), numbers(40, 30, seed=1)
    arrays = {"x": device.asarray(x), "y": device.asarray(y)}
    device.elementwise({"x": X + Y, "y": X - Y}, arrays)()
    close(arrays["x"], x + y)
    close(arrays["y"], x - y)


def test_outputs_read_before_they_are_written(device):
    x, y = numbers(20), numbers(20, seed=1)
    arrays = {"x": device.asarray(x), "y": device.asarray(y)}
    swap = device.elementwise({"x": Y, "y": X}, arrays)
    swap()
    np.testing.assert_array_equal(arrays["x"].read(), y)
    np.testing.assert_array_equal(arrays["y"].read(), x)
    arrays["z"] = device.zeros((20,))
    device.elementwise({"z": X, "x": X * 2 + Y, "y": X}, arrays)()
    np.testing.assert_array_equal(arrays["z"].read(), y)
    np.testing.assert_array_equal(arrays["y"].read(), y)
    close(arrays["x"], 2 * y + x)


def test_momentum_step_with_scalars(device):
    w, v, g = (numbers(33_000, seed=seed) for seed in range(3))
    arrays = {name: device.asarray(a) for name, a in (("w", w), ("v", v), ("g", g))}
    velocity = ex.scalar("moment") * ex.element("v") - ex.scalar("rate") * ex.element("g")
    step = device.elementwise({"v": velocity, "w": ex.element("w") + velocity}, arrays)
    for rate in (0.5, 0.25):
        step(moment=0.9, rate=rate)
        v = np.float32(0.9) * v - np.float32(rate) * g
        w = w + v
    close(arrays["v"], v)
    close(arrays["w"], w)


def test_scalars_must_be_given(device):
    array = device.asarray(numbers(3))
    launch = device.elementwise({"x": X * ex.scalar("rate")}, {"x": array})
    with pytest.raises((TypeError, VeloflowError)):
        launch()
    with pytest.raises((TypeError, VeloflowError)):
        launch(speed=2.0)


@pytest.mark.parametrize("shape", [(6, 7), (5, 2, 3), (9,), (1, 8), (8, 1)])
def test_indices(device, shape):
    rows, columns = shape[0], math.prod(shape[1:])
    got = compute(device, ex.index(0) * 100 + ex.index(1), shape)
    wanted = np.arange(rows)[:, None] * 100 + np.arange(columns)
    np.testing.assert_array_equal(np.asarray(got.read()).reshape(rows, columns), wanted)


def test_one_hot(device):
    """Integers and floating numbers meet in one formula, as in an evaluator."""
    y, labels = numbers(12, 10), np.arange(12, dtype=np.int32) % 10
    got = compute(device, X - ex.index(1).equals(Y), (12, 10), x=y, y=labels)
    close(got, y - np.eye(10, dtype=np.float32)[labels])


def test_integer_results(device):
    x = numbers(30) * 10
    np.testing.assert_array_equal(compute(device, X, (30,), np.int32, x=x).read(), x.astype("i4"))
    count = np.arange(30, dtype=np.int32) + (1 << 24)
    got = compute(device, X * 2 + 1, (30,), np.int32, x=count)  # beyond what float32 holds
    np.testing.assert_array_equal(got.read(), count * 2 + 1)


def test_constants_alone(device):
    np.testing.assert_array_equal(
        compute(device, ex.Const(2.5), (3, 4)).read(), np.full((3, 4), 2.5)
    )
    got = compute(device, ex.scalar("a") * 2, (5,), scalars={"a": 3.0})
    np.testing.assert_array_equal(got.read(), np.full(5, 6.0))


@given(rows=st.integers(1, 70), columns=st.integers(1, 300), seed=st.integers(0, 9))
@SOME
def test_elementwise_of_any_shape(device, rows, columns, seed):
    x, row, column = numbers(rows, columns, seed=seed), numbers(1, columns), numbers(rows, seed=1)
    formula = ex.maximum(X * ex.element("row"), 0.5) + ex.element("column") * X
    got = compute(device, formula, x.shape, x=x, row=row, column=column)
    close(got, np.maximum(x * row, np.float32(0.5)) + column[:, None] * x)


@pytest.mark.parametrize("shape", [(100_003,), (3, 40_001), (9_001, 7)])
def test_elementwise_of_large_arrays(device, shape):
    x = numbers(*shape)
    got = compute(device, X * Y + X, shape, x=x, y=x[:1])
    close(got, x * x[:1] + x)


def test_elementwise_shape_errors(device):
    with pytest.raises(ShapeError):
        compute(device, X, (3, 4), x=numbers(5))
    arrays = {"x": device.zeros((3,)), "y": device.zeros((4,))}
    with pytest.raises(ShapeError):
        device.elementwise({"x": ex.Const(1), "y": ex.Const(1)}, arrays)


# -- gemm -----------------------------------------------------------------------------------------

SIZES = (1, 2, 7, 16, 17, 33, 64, 100, 300)


def multiply(device, m, n, k, *, dtype=np.float32, left=False, right=False, **options):
    """Multiply on the device; return its result and NumPy's in float64."""
    a, b = numbers(m, k, dtype=dtype), numbers(k, n, seed=1, dtype=dtype)
    out, bias = numbers(m, n, seed=2, dtype=dtype), numbers(n, seed=3, dtype=dtype)
    target = device.asarray(out)
    device.gemm(
        device.asarray(a.T.copy() if left else a), device.asarray(b.T.copy() if right else b),
        target, transpose_a=left, transpose_b=right,
        bias=device.asarray(bias) if "bias" in options else None,
        **{name: value for name, value in options.items() if name != "bias"},
    )()  # fmt: skip
    wanted = options.get("alpha", 1.0) * (a.astype(np.float64) @ b)
    if options.get("beta"):
        wanted += options["beta"] * out
    return target, wanted + (bias if "bias" in options else 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_gemm_sizes_and_transposes(device, size, dtype):
    for left, right in product((False, True), repeat=2):
        for m, n, k in ((size, 33, 20), (20, size, 33), (33, 20, size)):
            got, wanted = multiply(device, m, n, k, dtype=dtype, left=left, right=right)
            close(got, wanted, math.sqrt(k) * 4)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"alpha": -0.5, "beta": 0.25}, {"bias": True, "activation": ex.tanh(X)}]
)
def test_gemm_of_large_matrices(device, dtype, left, right, options):
    got, wanted = multiply(device, 331, 345, 333, dtype=dtype, left=left, right=right, **options)
    close(got, np.tanh(wanted) if "activation" in options else wanted, math.sqrt(333) * 4)


def test_gemm_of_large_matrices_waits_for_what_was_launched_before(device):
    a, b = device.asarray(numbers(400, 400)), device.asarray(numbers(400, 400, seed=1))
    out = device.zeros((400, 400))
    double = device.elementwise({"a": 2.0 * ex.element("a")}, {"a": a})
    launches = [double, device.gemm(a, b, out), double, device.gemm(out, b, a)]
    for launch in launches:
        launch()
    close(a, 2.0 * numbers(400, 400) @ numbers(400, 400, seed=1) @ numbers(400, 400, seed=1), 1600)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", [1.0, -0.5])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("extra", [(), ("bias",), ("activation",), ("bias", "activation")])
def test_gemm_epilogues(device, dtype, alpha, beta, extra):
    options = {"alpha": alpha, "beta": beta}
    options |= {"bias": True} if "bias" in extra else {}
    options |= {"activation": 1.7159 * ex.tanh(0.6666 * X)} if "activation" in extra else {}
    for m, n, k in ((17, 33, 20), (64, 64, 64), (300, 100, 5)):
        got, wanted = multiply(device, m, n, k, dtype=dtype, **options)
        if "activation" in extra:
            wanted = 1.7159 * np.tanh(0.6666 * wanted)
        close(got, wanted, math.sqrt(k) * 4)


@given(m=st.integers(1, 90), n=st.integers(1, 90), k=st.integers(1, 90), flips=st.integers(0, 3))
@SOME
def test_gemm_of_any_shape(device, m, n, k, flips):
    got, wanted = multiply(device, m, n, k, left=flips > 1, right=flips % 2 > 0, bias=True)
    close(got, wanted, math.sqrt(k) * 4)


def test_gemm_does_not_read_an_output_that_is_overwritten(device):
    out = device.asarray(np.full((5, 6), np.nan, np.float32))
    a, b = numbers(5, 7), numbers(7, 6, seed=1)
    device.gemm(device.asarray(a), device.asarray(b), out, bias=device.zeros((6,)))()
    close(out, a @ b, 10)


def test_gemm_sees_more_dimensions_as_a_matrix(device):
    a, b = numbers(4, 2, 3), numbers(6, 5, seed=1)
    out = device.zeros((4, 5, 1))
    device.gemm(device.asarray(a), device.asarray(b), out)()
    close(out, a.reshape(4, 6) @ b, 10)


def test_gemm_on_views_and_again(device):
    flat = device.asarray(numbers(128 * 8))
    host = numbers(128 * 8)
    a, b, out = (device.view(flat, start, shape) for start, shape in
                 ((128, (10, 12)), (256, (12, 11)), (640, (10, 11))))  # fmt: skip
    launch = device.gemm(a, b, out)
    for value in (1.0, 2.0):
        a.write(numbers(10, 12, seed=5) * value)
        launch()
        close(out, value * numbers(10, 12, seed=5) @ host[256 : 256 + 132].reshape(12, 11), 10)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("left", "right"), list(product((False, True), repeat=2)))
def test_gemm_of_stacks(device, dtype, left, right):
    a, b = numbers(5, 19, 7, dtype=dtype), numbers(5, 7, 35, seed=1, dtype=dtype)
    out, bias = numbers(5, 19, 35, seed=2, dtype=dtype), numbers(35, seed=3, dtype=dtype)
    target = device.asarray(out)
    one, two = (x.swapaxes(1, 2).copy() if flip else x for x, flip in ((a, left), (b, right)))
    device.gemm(
        device.asarray(one), device.asarray(two), target, transpose_a=left, transpose_b=right,
        alpha=0.5, beta=0.25, bias=device.asarray(bias), activation=ex.tanh(X), stacked=True,
    )()  # fmt: skip
    close(target, np.tanh(0.5 * (a.astype("f8") @ b) + 0.25 * out + bias), 10)


def test_gemm_of_stacks_that_do_not_match(device):
    a, b = device.zeros((5, 3, 4)), device.zeros((5, 4, 3))
    for left, right, out in (
        (a, device.zeros((4, 4, 3)), device.zeros((5, 3, 3))),
        (a, device.zeros((4, 3)), device.zeros((5, 3, 3))),
        (a, b, device.zeros((5, 4, 3))),
    ):
        with pytest.raises(ShapeError):
            device.gemm(left, right, out, stacked=True)


def test_gemm_shape_errors(device):
    a, b, out = device.zeros((4, 5)), device.zeros((5, 6)), device.zeros((4, 6))
    for wrong in (
        lambda: device.gemm(a, out, b),
        lambda: device.gemm(a, b, device.zeros((4, 7))),
        lambda: device.gemm(a, b, out, transpose_a=True),
        lambda: device.gemm(a, b, out, bias=device.zeros((5,))),
        lambda: device.gemm(a, b, device.zeros((4, 6), np.float64)),
    ):
        with pytest.raises(ShapeError):
            wrong()


# -- reduce ---------------------------------------------------------------------------------------

AXES = (0, 1, None)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("operation", ["sum", "max"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (60, 10), (7, 333), (129, 65), (4, 3, 5), (50,), (2000, 9)]
)
def test_reduce(device, operation, axis, shape):
    for dtype in FLOATS:
        x = numbers(*shape, dtype=dtype)
        matrix = (x.astype(np.float64) ** 2).reshape(shape[0], -1)
        wanted = getattr(matrix, operation)(axis=axis)
        out = device.zeros((np.size(wanted),), dtype)
        device.reduce(operation, X * X, {"x": device.asarray(x)}, out, axis=axis)()
        close(out, wanted, 2)


@pytest.mark.parametrize("axis", AXES)
def test_reduce_formula_of_several_layouts(device, axis):
    x, row, column = numbers(31, 22), numbers(1, 22, seed=1), numbers(31, seed=2)
    arrays = {"x": x, "row": row, "column": column}
    formula = ex.absolute(X - ex.element("row")) * ex.element("column") + ex.index(0) - ex.index(1)
    host = np.abs(x - row) * column[:, None] + np.arange(31)[:, None] - np.arange(22)
    out = device.zeros((host.sum(axis).size,))
    arrays = {name: device.asarray(values) for name, values in arrays.items()}
    device.reduce("sum", formula, arrays, out, axis=axis)()
    np.testing.assert_allclose(out.read(), host.sum(axis).reshape(-1), rtol=1e-5, atol=1e-3)


def test_counting_is_exact(device):
    winners = np.arange(1000, dtype=np.int32) % 10
    labels = np.arange(1000, dtype=np.int32) % 7
    out = device.zeros((1,), np.int32)
    arrays = {"x": device.asarray(winners), "y": device.asarray(labels)}
    device.reduce("sum", X.differs(Y), arrays, out, axis=None)()
    assert out.read()[0] == np.count_nonzero(winners != labels)


def test_sums_accumulate_in_float64(device):
    """A float32 sum of these would stop at 2 ** 24."""
    x = np.full((1, 20_000_000), 1, np.uint8)
    out = device.zeros((1,), np.float64)
    device.reduce("sum", X, {"x": device.asarray(x)}, out, axis=None)()
    assert out.read()[0] == 20_000_000


@pytest.mark.parametrize("axis", AXES)
def test_equal_input_gives_equal_bits(device, axis):
    x = numbers(777, 501)
    sums = []
    for _ in range(2):
        out = device.zeros(((501, 777)[axis] if axis is not None else 1,))
        launch = device.reduce("sum", X, {"x": device.asarray(x)}, out, axis=axis)
        launch()
        sums.append(np.array(out.read()))
        launch()
        sums.append(np.array(out.read()))
    for other in sums[1:]:
        np.testing.assert_array_equal(other.view("u4"), sums[0].view("u4"))


def test_maximum_of_nan_is_nan(device):
    x = numbers(5, 6)
    x[2, 3] = np.nan
    out = device.zeros((6,))
    device.reduce("max", X, {"x": device.asarray(x)}, out, axis=0)()
    np.testing.assert_array_equal(out.read(), x.max(0))
    x = np.full((3, 4), -5, np.float32)
    device.reduce("max", X, {"x": device.asarray(x)}, one := device.zeros((1,)), axis=None)()
    assert one.read()[0] == -5


def test_reduce_with_scalars(device):
    x = numbers(6, 5)
    out = device.zeros((5,))
    launch = device.reduce("sum", X * ex.scalar("rate"), {"x": device.asarray(x)}, out, axis=0)
    launch(rate=3.0)
    close(out, 3 * x.sum(0), 10)


def test_reduce_shape_errors(device):
    array = device.zeros((6, 5))
    with pytest.raises(ShapeError):
        device.reduce("sum", X, {"x": array}, device.zeros((6,)), axis=0)
    with pytest.raises(ShapeError):
        device.reduce("sum", X, {"x": array}, device.zeros((2,)), axis=None)


# -- softmax --------------------------------------------------------------------------------------


def plain_softmax(x):
    powers = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize(
    "shape", [(1, 1), (60, 10), (100, 3), (33, 64), (5, 65), (7, 1000), (2000, 10)]
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(device, shape, dtype):
    x = 5 * numbers(*shape, dtype=dtype)
    out, winners = device.zeros(shape, dtype), device.zeros(shape[:1], np.int32)
    device.softmax(device.asarray(x), out, winners)()
    close(out, plain_softmax(x), 4)
    np.testing.assert_array_equal(winners.read(), x.argmax(1))


@pytest.mark.parametrize("columns", [5, 300])
def test_softmax_of_ties_and_large_numbers(device, columns):
    x = np.zeros((4, columns), np.float32)
    x[1] = 3e38
    x[2, [2, 4]] = 1000
    x[3] = -3e38
    array, winners = device.asarray(x), device.zeros((4,), np.int32)
    device.softmax(array, array, winners)()  # in place
    close(array, plain_softmax(x))
    np.testing.assert_array_equal(winners.read(), [0, 0, 2, 0])


def test_softmax_shape_errors(device):
    x = device.zeros((4, 5))
    with pytest.raises(ShapeError):
        device.softmax(x, device.zeros((4, 6)))
    with pytest.raises(ShapeError):
        device.softmax(x, x, device.zeros((5,), np.int32))


# -- gather ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source_dtype", ["u1", "i4", "f4", "f8"])
@pytest.mark.parametrize("out_dtype", ["f4", "f8", "i4"])
@pytest.mark.parametrize("index_dtype", ["i4", "i8"])
@pytest.mark.parametrize("row", [(), (1,), (13,), (3, 5)])
def test_gather(device, source_dtype, out_dtype, index_dtype, row):
    source = np.abs(60 * numbers(20, *row)).astype(source_dtype)
    where = np.array([19, 3, -1, 0, 3, -1, 7], index_dtype)
    out = device.zeros((7, *row), out_dtype)
    indices = device.asarray(where)
    launch = device.gather(device.asarray(source), indices, out, fill=-2)
    for _ in range(2):
        launch()
        wanted = source[where].astype(out_dtype)
        wanted[where < 0] = -2
        np.testing.assert_array_equal(out.read(), wanted)
        where = where[::-1].copy()
        indices.write(where)


def test_gather_fills_with_zero(device):
    out = device.asarray(numbers(2, 3))
    indices = device.asarray(np.array([-1, -1], np.int32))
    device.gather(device.asarray(numbers(4, 3)), indices, out)()
    np.testing.assert_array_equal(out.read(), np.zeros((2, 3)))


def test_gather_of_a_large_minibatch(device):
    source = (np.arange(500 * 784) % 251).astype(np.uint8).reshape(500, 784)
    where = np.random.default_rng(0).integers(0, 500, 300).astype(np.int32)
    out = device.zeros((300, 28, 28))
    device.gather(device.asarray(source), device.asarray(where), out)()
    np.testing.assert_array_equal(out.read(), source[where].reshape(300, 28, 28))


def test_gather_shape_errors(device):
    source, where = device.zeros((5, 3)), device.zeros((2,), np.int32)
    with pytest.raises(ShapeError):
        device.gather(source, where, device.zeros((2, 4)))
    with pytest.raises(ShapeError):
        device.gather(source, device.zeros((2,), np.float32), device.zeros((2, 3)))


# -- random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (9,), (5, 4), (7, 10), (3, 2, 3), (1000, 11), (2, 70_001)])
def test_uniform_has_the_same_bits(device, shape, dtype):
    key = random.key_of(11, "dropout")
    out = device.zeros(shape, dtype)
    launch = device.uniform(out, key)
    bits = f"u{out.dtype.itemsize}"
    for stream, row in ((0, 0), (3, 17), (2**40, 123_456_789)):
        launch(stream=stream, row=row)
        wanted = random.uniform(
            key, shape[0], math.prod(shape[1:]), stream=stream, row=row, dtype=dtype
        )
        got = np.asarray(out.read()).reshape(wanted.shape)
        np.testing.assert_array_equal(got.view(bits), wanted.view(bits))


def test_uniform_does_not_see_minibatches(device):
    whole, part = device.zeros((60, 5)), device.zeros((20, 5))
    key = (3, 2**64 - 1)
    device.uniform(whole, key)(stream=1, row=100)
    launch = device.uniform(part, key)
    for start in (40, 0, 20):
        launch(stream=1, row=100 + start)
        np.testing.assert_array_equal(part.read(), np.asarray(whole.read())[start : start + 20])


# -- programs -------------------------------------------------------------------------------------

_SOURCE = """
kernel void blend(global const real *x, global real *y, global int *seen,
                  const int count, const real rate)
{
    const int i = get_global_id(0), j = get_global_id(1);
    if (i >= count)
        return;
    y[i * 5 + j] += rate * x[i * 5 + j];
    if (j == 0)
        seen[i] += 1;
}
"""


def blend(x, y, seen, *, count, rate):
    y[:count] += rate * x[:count]
    seen[:count] += 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_program(device, dtype):
    program = Program(
        "blend", _SOURCE, blend, ("x", "y", "seen"), (("count", "int"), ("rate", "real"))
    )
    x, y = numbers(6, 5, dtype=dtype), numbers(6, 5, seed=1, dtype=dtype)
    arrays = {
        "x": device.asarray(x), "y": device.asarray(y), "seen": device.zeros((6,), np.int32)
    }  # fmt: skip
    launch = device.program(program, arrays, (6, 5))
    for count, rate in ((4, 0.5), (6, -2.0)):
        launch(count=count, rate=rate)
        y[:count] += dtype(rate) * x[:count]
    close(arrays["y"], y)
    np.testing.assert_array_equal(arrays["seen"].read(), [2, 2, 2, 2, 1, 1])
    with pytest.raises((TypeError, VeloflowError)):
        launch(count=3)


def test_program_needs_its_arrays(device):
    program = Program("blend", _SOURCE, blend, ("x", "y", "seen"))
    with pytest.raises(VeloflowError):
        device.program(program, {"x": device.zeros((6, 5))}, (6, 5))
