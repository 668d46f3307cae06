"""Devices: where arrays live and operations run. OpenCL is imported only when it is asked for."""

from veloflow.devices.base import Array, Device, DeviceInfo, Launch, Program, Space

__all__ = ["Array", "Device", "DeviceInfo", "Launch", "Program", "Space"]
