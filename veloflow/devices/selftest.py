"""A short test of each operation of a device against plain NumPy, for any device anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices import expressions as ex
from veloflow.devices import random
from veloflow.devices.base import Array, Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.devices.base import Device

    Outcome = tuple[Array | NDArray[Any], Any]  #: what the device says, what NumPy says

__all__ = ["self_test"]


def self_test(device: Device) -> list[str]:
    """Return one line for each operation that does not do what NumPy does; none if all is well."""
    problems = []
    for name, check in _CHECKS.items():
        try:
            for number, (got, wanted) in enumerate(check(device), start=1):
                problem = _difference(got, wanted)
                if problem:
                    problems.append(f"{name}, case {number}: {problem}")
        except Exception as error:  # whatever a driver may do is what the caller asked to hear
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return problems


def _difference(got: Array | NDArray[Any], wanted: object) -> str:
    """Return how two results differ, or '' if they agree as their dtype allows."""
    ours, theirs = np.asarray(got.read() if isinstance(got, Array) else got), np.asarray(wanted)
    if ours.dtype.kind in "iu":
        return "" if np.array_equal(ours, theirs) else f"{_wrong(ours != theirs)} wrong"
    tolerance = 1e-5 if ours.dtype.itemsize <= 4 else 1e-12
    close = np.isclose(
        ours, theirs.astype(np.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )
    return "" if np.all(close) else f"{_wrong(~close)} off by more than {tolerance:g}"


def _wrong(places: NDArray[np.bool_]) -> str:
    return f"{np.count_nonzero(places)} of {places.size} numbers are"


def _numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return numbers in [-2, 2), float32, none of them near 0."""
    values = np.random.default_rng(seed).uniform(0.1, 2.0, shape)
    signs = np.random.default_rng(seed + 1).choice([-1.0, 1.0], shape)
    return np.asarray(values * signs, np.float32)


# -- one check an operation; each yields what the device says and what NumPy says -----------------


def _memory(device: Device) -> Iterator[Outcome]:
    values = _numbers(300)
    flat = device.asarray(values)
    yield flat, values
    part = device.view(flat, 128, (4, 25))
    yield part, values[128:228].reshape(4, 25)
    part.write(1.0)
    yield flat, np.concatenate([values[:128], np.ones(100, np.float32), values[228:]])
    target = device.zeros((300,))
    device.copy(flat, target)()
    yield target, flat.read()


def _elementwise(device: Device) -> Iterator[Outcome]:
    x, y = _numbers(5, 33), _numbers(5, 33, seed=2)
    row, column = _numbers(1, 33, seed=4), _numbers(5, seed=6)
    arrays = {
        "x": device.asarray(x), "y": device.asarray(y), "row": device.asarray(row),
        "column": device.asarray(column), "out": device.zeros((5, 33)),
    }  # fmt: skip
    a, b = ex.element("x"), ex.element("y")
    linear = a * ex.scalar("rate") + ex.element("row") * ex.element("column") - ex.index(1)
    device.elementwise({"out": linear}, arrays)(rate=0.5)
    yield arrays["out"], x * 0.5 + row * column[:, None] - np.arange(33)
    device.elementwise({"x": b, "y": a + ex.index(0)}, arrays)()
    yield arrays["x"], y
    yield arrays["y"], x + np.arange(5)[:, None]


def _function(name: str, device: Device) -> Iterator[Outcome]:
    x, y = _numbers(7, 9), _numbers(7, 9, seed=2)
    leaves = [ex.element("x"), ex.element("y"), ex.Const(0.5)]
    hosts = [x, y, np.float32(0.5)]
    if name in ("power", "log", "log1p", "sqrt"):  # of positive numbers
        leaves[0], hosts[0] = ex.absolute(ex.element("x")), np.abs(x)
    operands = ex.OPERATIONS[name]
    out = device.zeros(x.shape)
    arrays = {"x": device.asarray(x), "y": device.asarray(y), "out": out}
    device.elementwise({"out": ex.Apply(name, tuple(leaves[:operands]))}, arrays)()
    function: Callable[..., Any] = getattr(np, name)
    yield out, function(*hosts[:operands])


def _gemm(device: Device) -> Iterator[Outcome]:
    for m, n, k in ((1, 1, 1), (17, 33, 20), (64, 40, 100)):
        a, b, bias = _numbers(m, k), _numbers(k, n, seed=2), _numbers(n, seed=4)
        product = a.astype(np.float64) @ b
        for left, right in ((False, False), (True, False), (False, True)):
            out = device.asarray(np.ones((m, n), np.float32))
            device.gemm(
                device.asarray(a.T if left else a), device.asarray(b.T if right else b), out,
                transpose_a=left, transpose_b=right, alpha=0.25, beta=0.5,
                bias=device.asarray(bias), activation=ex.tanh(ex.element("x") * 0.1),
            )()  # fmt: skip
            yield out, np.tanh(0.1 * (0.25 * product + 0.5 + bias))


def _reduce(device: Device) -> Iterator[Outcome]:
    x = _numbers(60, 45)
    array = device.asarray(x)
    for axis, size in ((0, 45), (1, 60), (None, 1)):
        total, largest = device.zeros((size,)), device.zeros((size,))
        square = ex.element("x") * ex.element("x")
        device.reduce("sum", square, {"x": array}, total, axis=axis)()  # type: ignore[arg-type]
        device.reduce("max", ex.element("x"), {"x": array}, largest, axis=axis)()  # type: ignore[arg-type]
        yield total, (x.astype(np.float64) ** 2).sum(axis).reshape(-1)
        yield largest, x.max(axis).reshape(-1)


def _softmax(device: Device) -> Iterator[Outcome]:
    for columns in (1, 10, 100):
        x = 40 * _numbers(6, columns)
        x[0] = 1e30  # all alike: the first one wins
        out, winners = device.zeros(x.shape), device.zeros((6,), np.int32)
        device.softmax(device.asarray(x), out, winners)()
        powers = np.exp((x - x.max(1, keepdims=True)).astype(np.float64))
        yield out, powers / powers.sum(1, keepdims=True)
        yield winners, x.argmax(1)


def _gather(device: Device) -> Iterator[Outcome]:
    where = np.array([3, -1, 0, 10, 3], np.int32)
    for dtype in (np.uint8, np.int32, np.float32):
        source = np.abs(100 * _numbers(11, 5)).astype(dtype)
        out = device.zeros((5, 5))
        device.gather(device.asarray(source), device.asarray(where), out, fill=7)()
        yield out, np.where(where[:, None] < 0, 7, source[where]).astype(np.float32)


def _uniform(device: Device) -> Iterator[Outcome]:
    key = random.key_of(5, "self-test")
    for dtype in (np.float32, np.float64):
        out = device.zeros((6, 7), dtype)
        device.uniform(out, key)(stream=3, row=9)
        wanted = random.uniform(key, 6, 7, stream=3, row=9, dtype=dtype)
        bits = f"u{np.dtype(dtype).itemsize}"
        yield np.asarray(out.read()).view(bits), wanted.view(bits)


def _program(device: Device) -> Iterator[Outcome]:
    def host(values: NDArray[Any], *, count: int, rate: float) -> None:
        values[:count] *= 1 + rate

    source = """
    kernel void grow(global float *values, const int count, const real rate)
    {
        const int i = get_global_id(0);
        if (i < count) values[i] *= 1 + rate;
    }
    """
    program = Program("grow", source, host, ("values",), (("count", "int"), ("rate", "real")))
    values = device.asarray(np.ones(50, np.float32))
    device.program(program, {"values": values}, (50,))(count=20, rate=0.5)
    yield values, np.where(np.arange(50) < 20, 1.5, 1.0)


_CHECKS: dict[str, Callable[[Device], Iterator[Outcome]]] = {
    "memory": _memory,
    "elementwise": _elementwise,
    **{f"function {name}": partial(_function, name) for name in ex.OPERATIONS},
    "gemm": _gemm,
    "reduce": _reduce,
    "softmax": _softmax,
    "gather": _gather,
    "uniform": _uniform,
    "program": _program,
}
