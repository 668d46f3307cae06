"""Devices: where arrays live and operations run. OpenCL is imported only when it is asked for."""

from veloflow.devices import expressions, random
from veloflow.devices.base import Array, Device, DeviceInfo, Launch, Program, Space
from veloflow.devices.recurrence import Inputs, Recurrence
from veloflow.devices.selection import (
    DeviceReport,
    choose_device,
    examine_devices,
    list_devices,
    open_device,
)
from veloflow.devices.selftest import self_test
from veloflow.devices.window import Window

__all__ = [
    "Array",
    "Device",
    "DeviceInfo",
    "DeviceReport",
    "Inputs",
    "Launch",
    "Program",
    "Recurrence",
    "Space",
    "Window",
    "choose_device",
    "examine_devices",
    "expressions",
    "list_devices",
    "open_device",
    "random",
    "self_test",
]
