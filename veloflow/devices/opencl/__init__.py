"""The OpenCL backend; the only place that imports pyopencl."""

from veloflow.devices.opencl.device import OpenCLDevice, discover

__all__ = ["OpenCLDevice", "discover"]
