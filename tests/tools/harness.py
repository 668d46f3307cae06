"""Workflows for tests of units: with the services of a run, but without the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from veloflow.core import Events, Settings, Unit, Workflow
from veloflow.devices import Device
from veloflow.devices.memory import Memory
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.parameters import Parameters


def workflow_on(
    device: Device | None = None,
    *,
    seed: int = 0,
    dtype: str = "float32",
    testing: bool = False,
) -> Workflow:
    """Return an empty workflow that has all services; by default it is on the NumPy device."""
    device = device or NumpyDevice()
    memory, parameters = Memory(device), Parameters(device, dtype)
    wf = Workflow()
    wf.provide(Device, device).provide(Settings, Settings(seed, dtype, testing))
    wf.provide(Events, Events()).provide(Memory, memory).provide(Parameters, parameters)
    return wf.add_allocator(memory.allocate).add_allocator(parameters.allocate)


@contextmanager
def ready(*units: Unit) -> Iterator[Workflow]:
    """Link units in a chain from start to end and set their workflow up; close it afterwards.

    Then a test calls ``unit.run()`` itself, as often as it likes.
    """
    wf = units[0].workflow
    for before, after in zip((wf.start, *units), (*units, wf.end), strict=True):
        before >> after
    try:
        wf.set_up()
        yield wf
    finally:
        wf.close()


def trained(
    build: Callable[..., None],
    *,
    device: Device | None = None,
    seed: int = 0,
    dtype: str = "float32",
    testing: bool = False,
    change: Callable[[Workflow], None] | None = None,
    **options: object,
) -> Workflow:
    """Build a definition, let ``change`` lay hands on it, run it, and return the workflow."""
    wf = workflow_on(device, seed=seed, dtype=dtype, testing=testing)
    build(wf, **options)
    if change is not None:
        change(wf)
    try:
        wf.set_up()
        wf.run()
    finally:
        wf.close()
    return wf
