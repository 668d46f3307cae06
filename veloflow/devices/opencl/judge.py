"""What NumPy computes in a kernel's place: for trials, and where no kernel works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from veloflow.devices.base import Array, Device, Launch
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.opencl.recipes import Call, Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Twin", "host_launch", "runs", "samples", "trial_of"]

#: binds the same operation on another device, on arrays with the same names
Twin: TypeAlias = Callable[[Device, Mapping[str, Array]], Launch]

#: how far a kernel may be from NumPy, relative to 1 + |value|
_TOLERANCE = {4: 2e-4, 8: 1e-9}


def samples(
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
) -> dict[str, NDArray[Any]]:
    """Return small random arrays: floats in (-1.5, 1.5), whole numbers from 0 to 6."""
    random = np.random.default_rng(20)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, dtype) in shapes.items():
        if dtype.kind == "f":
            arrays[name] = random.uniform(-1.5, 1.5, shape).astype(dtype)
        else:
            arrays[name] = random.integers(0, 7, shape).astype(dtype)
    return arrays


def trial_of(
    twin: Twin,
    calls: Sequence[Call],
    arrays: Mapping[str, NDArray[Any]],
    outputs: Iterable[str],
    *,
    scratch: Mapping[str, NDArray[Any]] | None = None,
    scalars: Mapping[str, float] | None = None,
    exact: bool = False,
) -> Trial:
    """Return a trial of ``calls`` whose expected results NumPy computes.

    Unless ``exact``, places are left out where NumPy's own float32 and float64 disagree: there the
    formula is ill-conditioned, or a comparison falls on either side.
    """
    given = dict(scalars or {})
    expected = _computed(twin, arrays, outputs, given)
    floats = [array.dtype.itemsize for array in arrays.values() if array.dtype.kind == "f"]
    tolerance = 0.0 if exact else _TOLERANCE[max(floats, default=8)]
    if not exact:
        wide = {
            name: array.astype(np.float64) if array.dtype.kind == "f" else array
            for name, array in arrays.items()
        }
        for name, precise in _computed(twin, wide, outputs, given).items():
            with np.errstate(invalid="ignore"):
                near = np.abs(expected[name] - precise) <= tolerance * (1.0 + np.abs(precise))
            expected[name] = np.where(near, precise, np.nan)
    return Trial(calls, {**arrays, **(scratch or {})}, given, expected, tolerance)


def _computed(
    twin: Twin,
    arrays: Mapping[str, NDArray[Any]],
    outputs: Iterable[str],
    scalars: Mapping[str, float],
) -> dict[str, NDArray[np.float64]]:
    host = NumpyDevice()
    twins = {name: host.asarray(array) for name, array in arrays.items()}
    twin(host, twins)(**scalars)
    return {name: host.read(twins[name]).astype(np.float64) for name in outputs}


def runs(calls: Sequence[Call], arrays: Mapping[str, NDArray[Any]]) -> Trial:
    """Return a trial that only asks whether the kernels run, with every scalar 0."""
    return Trial(calls, arrays, {}, {}, 0.0)


def host_launch(twin: Twin, arrays: Mapping[str, Array], outputs: Sequence[str]) -> Launch:
    """Return a launch that computes with NumPy on copies of the arrays; slow, but right."""
    host = NumpyDevice()
    copies: dict[int, Array] = {}
    twins = {}
    for name, array in arrays.items():  # one array under two names stays one
        twins[name] = copies.setdefault(id(array), host.zeros(array.shape, array.dtype))
    bound = twin(host, twins)

    def launch(**scalars: float) -> None:
        for name, array in arrays.items():
            twins[name].write(array.read())
        bound(**scalars)
        for name in outputs:
            arrays[name].write(twins[name].read())

    return launch
