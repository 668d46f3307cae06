"""Devices that tell an observer what they do and when: what ``--profile`` is made of.

:func:`traced` puts a device in front of another one, which tells of every launch, with the bytes
that the operation reads and writes; what only the device itself can know, the times of its kernels
and its waits, it tells through :meth:`Device.observe`. A device that nobody observes does nothing
here.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from veloflow.devices.base import Array, Device, DeviceInfo, Launch
from veloflow.devices.expressions import elements_of
from veloflow.devices.recurrence import Inputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Observer", "traced"]


class Observer(Protocol):
    """Takes what a device does. Times are those of ``time.perf_counter_ns``."""

    #: the operation that is being launched, so that its kernels can be told to be its own
    operation_name: str

    def operation(self, name: str, began: int, ended: int, read: int, written: int) -> None:
        """Take the launch of an operation, as the host sees it, and the bytes that it moves."""

    def kernel(self, name: str, operation: str, began: int, ended: int) -> None:
        """Take a kernel's time on the device."""

    def wait(self, began: int, ended: int) -> None:
        """Take a time in which the host did nothing but wait for the device."""


def traced(device: Device, observer: Observer) -> Device:
    """Return a device in front of ``device`` that tells ``observer``; closing it ends that.

    It has every operation that the interface has, also those that are added some day: so its class
    is made from the interface.
    """
    operations = {
        name: _passed_on(name, inspect.signature(method))
        for name, method in vars(Device).items()
        if inspect.isfunction(method) and method.__annotations__.get("return") == "Launch"
        and getattr(method, "__isabstractmethod__", False)
    }  # fmt: skip
    kind: Callable[[Device, Observer], Device] = type("TracedDevice", (_Front,), operations)
    return kind(device, observer)


def _passed_on(name: str, signature: inspect.Signature) -> Callable[..., Launch]:
    """Return a method that binds an operation of the other device and traces its launches."""

    def bind(self: _Front, *arguments: object, **keywords: object) -> Launch:
        launch: Launch = getattr(self.device, name)(*arguments, **keywords)
        given = signature.bind(self, *arguments, **keywords)
        given.apply_defaults()
        reads, writes = _moved(given.arguments)
        label = f"{name} {'x'.join(map(str, writes[0].shape))}" if writes else name
        if name == "program":
            label = given.arguments["program"].name
        elif name == "recurrence":
            label = given.arguments["recurrence"].program.name
        return _traced_launch(launch, self.observer, label, _bytes(reads), _bytes(writes))

    return bind


def _moved(arguments: Mapping[str, Any]) -> tuple[list[Array], list[Array]]:
    """Return the arrays that an operation reads, and those that it writes, by their names."""
    reads: list[Array] = []
    writes: list[Array] = []
    formulas = arguments.get("formulas", {})
    read_by_name: Sequence[str] | None = None  # None: all of them
    if formulas:
        read_by_name = elements_of(*formulas.values())
    elif "formula" in arguments:
        read_by_name = elements_of(arguments["formula"])
    for name, value in arguments.items():
        if isinstance(value, Inputs):
            reads += [value.values, value.weights]
        elif name in ("factors", "outs"):
            (writes if name == "outs" else reads).extend(one for one in value if one is not None)
        elif isinstance(value, Array):
            is_output = name in ("out", "winners") or name.endswith("_gradient")
            (writes if is_output else reads).append(value)
        elif isinstance(value, Mapping) and name == "arrays":
            # of a program nobody says which of its arrays it writes: all count as read
            writes += [value[one] for one in formulas]
            reads += [value[one] for one in (value if read_by_name is None else read_by_name)]
    if arguments.get("beta"):
        reads.append(arguments["out"])
    if "indices" in arguments:  # of the source only the rows picked are read
        reads.remove(arguments["source"])
        reads.append(Array(arguments["out"].device, arguments["out"].shape,
                           arguments["source"].dtype))  # fmt: skip
    return reads, writes


def _bytes(arrays: Sequence[Array]) -> int:
    return sum({id(array): array.nbytes for array in arrays}.values())


def _traced_launch(
    launch: Launch, observer: Observer, name: str, read: int, written: int
) -> Launch:
    clock = time.perf_counter_ns

    def run(**scalars: float) -> None:
        observer.operation_name = name
        began = clock()
        launch(**scalars)
        observer.operation(name, began, clock(), read, written)

    return run


def _of_the_other(name: str) -> Any:
    """Return a property that is the other device's."""

    def get(front: _Front) -> object:
        return getattr(front.device, name)

    def put(front: _Front, value: object) -> None:
        setattr(front.device, name, value)

    return property(get, put)


class _Front(Device):
    """A device in front of another one, whose arrays these are. Its operations are made above."""

    def __init__(self, device: Device, observer: Observer) -> None:
        self.name = device.name
        self.device = device
        self.observer = observer
        device.observe(observer)

    #: what is said of the other device is said of this one, and the other way round
    precision_level = _of_the_other("precision_level")
    has_one_thread = _of_the_other("has_one_thread")
    least_shared = _of_the_other("least_shared")
    keeps_bytes = _of_the_other("keeps_bytes")
    reads_beside = _of_the_other("reads_beside")
    fingerprint = _of_the_other("fingerprint")

    # -- memory: all of it is the other device's ----------------------------------------------

    def array(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Array:
        """Declare an array of the other device."""
        return self.device.array(shape, dtype)

    def allocate(self, array: Array) -> None:
        """Give it memory."""
        self.device.allocate(array)

    def host(self, array: Array) -> NDArray[np.generic] | None:
        """Pass on."""
        return self.device.host(array)

    def adopt(self, memory: NDArray[np.generic]) -> Array:
        """Pass on."""
        return self.device.adopt(memory)

    def view(self, array: Array, start: int, shape: Sequence[int]) -> Array:
        """Return an array on a part of another's memory."""
        return self.device.view(array, start, shape)

    def place(self, array: Array, parent: Array, start: int) -> None:
        """Put a declared array onto a part of another's memory."""
        self.device.place(array, parent, start)

    def read(self, array: Array) -> NDArray[np.generic]:
        """Wait and return the values."""
        return self.device.read(array)

    def write(self, array: Array, values: ArrayLike) -> None:
        """Wait and copy values in."""
        self.device.write(array, values)

    def synchronize(self) -> None:
        """Wait for all launches."""
        self.device.synchronize()

    # -- the device itself --------------------------------------------------------------------

    def info(self) -> DeviceInfo:
        """Describe the other device."""
        return self.device.info()

    def close(self) -> None:
        """Stop the observation; the other device stays open."""
        self.device.observe(None)
