"""Bound launches: kernels with their arguments set, that cost as little as possible to enqueue.

Measured (2-core Xeon, PoCL 3.0, pyopencl 2026.1): enqueueing a kept kernel takes 0.9 us, setting
one scalar with ``Kernel.set_arg`` 6.2 us, with the method below it 0.09 us.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from veloflow.devices.opencl.pending import Bound
from veloflow.devices.opencl.platforms import cl
from veloflow.devices.opencl.recipes import Argument, ArrayArgument, Call, LaunchScalar

if TYPE_CHECKING:
    import numpy as np

    from veloflow.devices.base import Launch
    from veloflow.devices.opencl.pending import Pending, Step

__all__ = ["Scalar", "bind", "defer", "nothing", "set_arguments"]


_FORMATS = {"int32": "=i", "int64": "=q", "uint64": "=Q", "float32": "=f", "float64": "=d"}
_CONVERSIONS: dict[str, Callable[[float], float]] = {
    "f": float,
    "i": int,
    "u": lambda value: int(value) % (1 << 64),  # a counter goes on from zero
}


class Scalar:
    """A launch-time number and everywhere that it is an argument."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._pack = struct.Struct(_FORMATS[dtype.name]).pack
        self._setters: list[tuple[Callable[[int, bytes], None], int]] = []
        self._convert = _CONVERSIONS[dtype.kind]

    def feeds(self, kernel: Any, place: int) -> None:
        """Add one argument of a kernel."""
        # the public set_arg tries six kinds of arguments before it comes to bytes
        self._setters.append((getattr(kernel, "_set_arg_buf", kernel.set_arg), place))

    def set(self, value: float) -> None:
        """Set the arguments."""
        data = self._pack(self._convert(value))
        for setter, place in self._setters:
            setter(place, data)


def nothing(**scalars: float) -> None:
    """Compute nothing: the launch of an operation on no elements."""


def bind(
    queue: Any,
    programs: Mapping[str, Any],
    calls: Sequence[Call],
    buffers: Mapping[str, Any],
    enqueue: Any = None,
) -> Launch:
    """Return a launch that enqueues the calls in order.

    ``programs`` holds the program of each kernel, ``buffers`` the memory of each array name.
    ``enqueue`` is pyopencl's own function unless somebody wants to know of every kernel.
    """
    enqueue = enqueue or cl.enqueue_nd_range_kernel
    scalars: dict[str, Scalar] = {}
    steps = []
    for call in calls:
        kernel = cl.Kernel(programs[call.kernel], call.kernel)
        set_arguments(kernel, call.arguments, buffers, scalars)
        steps.append((kernel, call.size, call.local))
    keep = tuple(buffers.values())  # the driver does not keep the memory of a kernel's arguments
    if scalars:
        return _with_scalars(partial(enqueue, queue), steps, scalars, keep)
    if len(steps) > 1:
        return _several(partial(enqueue, queue), steps, keep)
    launch = partial(enqueue, queue, *steps[0])  # a function of ours costs more
    launch.keep = keep  # type: ignore[attr-defined] # partials take attributes
    return cast("Launch", launch)


def set_arguments(
    kernel: Any,
    arguments: Sequence[Argument],
    buffers: Mapping[str, Any],
    scalars: dict[str, Scalar],
    first: int = 0,
) -> None:
    """Set a kernel's arguments, from the one at place ``first`` on; add to the ``scalars``."""
    for place, argument in enumerate(arguments, first):
        if isinstance(argument, ArrayArgument):
            kernel.set_arg(place, buffers[argument.name])
        elif isinstance(argument, LaunchScalar):
            scalar = scalars.setdefault(argument.name, Scalar(argument.dtype))
            scalar.feeds(kernel, place)
            scalar.set(0)
        else:
            kernel.set_arg(place, argument)


def defer(pending: Pending, steps: Sequence[Step], scalars: Mapping[str, Scalar]) -> Launch:
    """Return a launch that adds these steps to those that are pending."""
    names = scalars.keys()

    def set_scalars(given: Mapping[str, float]) -> None:
        for name, value in given.items():
            scalars[name].set(value)

    bound = Bound(steps, set_scalars)

    def launch(**given: float) -> None:
        if given.keys() != names:
            raise TypeError(f"this launch takes {sorted(names)}, got {sorted(given)}")
        pending.add(bound, given)

    return cast("Launch", launch if names else partial(pending.add, bound))


def _several(
    enqueue: Callable[..., object], steps: Sequence[tuple[Any, Any, Any]], keep: object
) -> Launch:
    def launch(*, _keep: object = keep) -> None:
        for kernel, size, local in steps:
            enqueue(kernel, size, local)

    return cast("Launch", launch)


def _with_scalars(
    enqueue: Callable[..., object],
    steps: Sequence[tuple[Any, Any, Any]],
    scalars: Mapping[str, Scalar],
    keep: object,
) -> Launch:
    names = scalars.keys()
    last: dict[str, float] | None = None

    def change(given: Mapping[str, float]) -> None:
        nonlocal last
        if given.keys() != names:
            raise TypeError(f"this launch takes {sorted(names)}, got {sorted(given)}")
        for name, value in given.items():
            scalars[name].set(value)
        last = dict(given)

    def launch(*, _keep: object = keep, **given: float) -> None:
        if given != last:
            change(given)
        for kernel, size, local in steps:
            enqueue(kernel, size, local)

    return cast("Launch", launch)
