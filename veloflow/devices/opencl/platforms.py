"""The OpenCL devices of this machine, and what is known of one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from veloflow.devices.opencl.tiles import Facts
from veloflow.errors import DeviceError, nearest

cl: Any
try:
    import pyopencl as cl
except ImportError as error:  # an install without OpenCL still computes with NumPy
    cl = None
    _REASON = f"pyopencl cannot be imported ({error})"
else:
    _REASON = "there is no OpenCL platform on this machine"

__all__ = ["Hardware", "cl", "devices_by_name", "open_hardware"]

#: LLVM's names of processors with AVX-512, by their beginnings
_HAS_AVX512 = (
    "skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake", "tigerlake",
    "rocketlake", "sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5",
    "x86-64-v4", "knl", "knm",
)  # fmt: skip

_CURE = "install one with: pip install 'pyopencl[pocl]'"


def devices_by_name() -> dict[str, Any]:
    """Return every OpenCL device by its name, such as "opencl:0:0"; none without OpenCL."""
    if cl is None:
        return {}
    try:
        platforms = cl.get_platforms()
    except cl.Error:  # the loader found no platform: its way of saying "none"
        return {}
    found: dict[str, Any] = {}
    for number, platform in enumerate(platforms):
        try:
            devices = platform.get_devices()
        except cl.Error:  # a driver without its hardware
            continue
        found.update({f"opencl:{number}:{place}": each for place, each in enumerate(devices)})
    return found


def open_hardware(name: str) -> Hardware:
    """Return the device of that name; "opencl" is the first one.

    Raises:
        DeviceError: there is none; the message says what to do.
    """
    if not re.fullmatch(r"opencl(:\d+(:\d+)?)?", name):
        raise DeviceError(f"{name!r} names no OpenCL device: write opencl:PLATFORM:DEVICE")
    found = devices_by_name()
    if not found:
        raise DeviceError(f"{name!r} was asked for, but {_REASON}; {_CURE}")
    for known, handle in found.items():
        if known == name or known.startswith(name + ":"):
            return Hardware(known, handle)
    raise DeviceError(
        f"there is no OpenCL device {name!r}{nearest(name, found)}; there are: {', '.join(found)}"
    )


@dataclass(frozen=True, eq=False)
class Hardware:
    """A device's handle and the facts by which kernels are chosen."""

    name: str
    handle: Any

    @cached_property
    def is_cpu(self) -> bool:
        """Whether kernels run on the host's processor and share its memory."""
        return bool(self.handle.type & cl.device_type.CPU and self.handle.host_unified_memory)

    @cached_property
    def has_double(self) -> bool:
        """Whether kernels may compute in float64."""
        return bool(self.handle.double_fp_config)

    @cached_property
    def alignment(self) -> int:
        """The bytes of which the start of a sub-buffer must be a multiple."""
        return max(1, int(self.handle.mem_base_addr_align) // 8)

    @cached_property
    def vector_bytes(self) -> int:
        """The bytes of a vector register; kernels for a GPU work on single numbers.

        PoCL takes its functions for the processor that it runs on, but its LLVM makes code for the
        nearest one that it knows. Where that one has no AVX-512 (its LLVM 14 knows none of AMD's
        that has), values of 64 bytes are handed over in other registers than they are looked for:
        wrong numbers, crashes, compilers that never end.
        """
        if not self.is_cpu:
            return 0
        size = 4 * max(4, int(self.handle.preferred_vector_width_float))
        target = re.search(r"HSTR: pthread-x86_64\S*-([\w-]+)$", str(self.handle.version).strip())
        if target is not None and not target[1].startswith(_HAS_AVX512):
            return min(size, 32)
        return size

    @cached_property
    def compute_units(self) -> int:
        """The number of cores."""
        return max(1, int(self.handle.max_compute_units))

    @cached_property
    def facts(self) -> Facts:
        """What decides how matrices are multiplied."""
        return Facts(
            self.is_cpu,
            self.vector_bytes,
            self.compute_units,
            int(self.handle.local_mem_size),
            int(self.handle.max_work_group_size),
        )

    @cached_property
    def driver(self) -> str:
        """The driver and platform with their versions."""
        platform = self.handle.platform
        return f"{platform.name} {platform.version} {self.handle.driver_version}".strip()

    @property
    def identity(self) -> str:
        """What a compiled kernel depends on besides its source."""
        return f"{self.handle.name}|{self.driver}"

    def lanes(self, itemsize: int) -> int:
        """Return how many numbers of ``itemsize`` bytes a vector of a kernel holds."""
        return min(16, max(1, self.vector_bytes // itemsize))
