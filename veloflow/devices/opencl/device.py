"""A device that computes with OpenCL kernels: the operations of the interface, each in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from veloflow.devices.base import Array, Device, DeviceInfo, Launch, Program
from veloflow.devices.joint_products import check_joint_products, one_by_one
from veloflow.devices.opencl.convolution import convolution, convolution_gradient
from veloflow.devices.opencl.elementwise import elementwise
from veloflow.devices.opencl.engine import Engine
from veloflow.devices.opencl.gather import gather
from veloflow.devices.opencl.gemm import gemm
from veloflow.devices.opencl.joint_products import joint_products as bind_joint_products
from veloflow.devices.opencl.platforms import Hardware, devices_by_name, open_hardware
from veloflow.devices.opencl.program import program as bind_program
from veloflow.devices.opencl.recurrence import recurrence as bind_recurrence
from veloflow.devices.opencl.recurrence import steps_table
from veloflow.devices.opencl.reduce import reduce
from veloflow.devices.opencl.softmax import softmax
from veloflow.devices.opencl.uniform import uniform
from veloflow.devices.recurrence import by_steps, check_recurrence
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from veloflow.devices.expressions import Expression
    from veloflow.devices.opencl.tuning import Tuning
    from veloflow.devices.recurrence import Inputs, Recurrence
    from veloflow.devices.tracing import Observer
    from veloflow.devices.window import Window

__all__ = ["OpenCLDevice", "discover"]


def discover() -> list[DeviceInfo]:
    """Return every OpenCL device of this machine; none where there is no OpenCL."""
    return [_info(Hardware(name, handle)) for name, handle in devices_by_name().items()]


def _info(hardware: Hardware, notes: Sequence[str] = (), methods: Sequence[str] = ()) -> DeviceInfo:
    handle = hardware.handle
    return DeviceInfo(
        hardware.name,
        "opencl",
        str(handle.name).strip(),
        hardware.driver,
        int(handle.global_mem_size),
        hardware.compute_units,
        tuple(notes),
        tuple(methods),
    )


class OpenCLDevice(Device):
    """One OpenCL device.

    Args:
        hardware: which one.
        cache: the folder of compiled kernels; by default in the cache folder of veloflow.
        limit: seconds after which a compiler that does not answer is given up.
        sources: replaces the source of kernels by name, to test what then happens.
        tuning: which methods are taken, instead of what is kept for this device.
    """

    #: launches whose arrays lie in one piece of memory cannot become one
    least_shared = 1 << 16
    #: as quick as numbers that are gathered ready, in a quarter of the memory; NumPy would take 1.8
    #: times as long, where each sample has its own range
    keeps_bytes = True

    def __init__(
        self,
        hardware: Hardware,
        *,
        cache: Path | None = None,
        limit: float = 60.0,
        sources: Mapping[str, str] | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.name = hardware.name
        #: elsewhere whoever reads waits for the whole queue
        self.reads_beside = hardware.is_cpu
        self._engine = Engine(hardware, cache=cache, limit=limit, sources=sources, tuning=tuning)
        self.fingerprint = self._engine.tuning.fingerprint(hardware.facts)

    @classmethod
    def open(cls, name: str = "opencl") -> Self:
        """Open a device by name: "opencl" is the first one.

        Raises:
            DeviceError: there is no such device; the message says how to get one.
        """
        return cls(open_hardware(name))

    def allocate(self, array: Array) -> None:
        """Give zeroed memory to an array that has none."""
        if not array.is_allocated:
            array.memory = self._engine.buffers.allocate(array.shape, np.dtype(array.dtype))

    def view(self, array: Array, start: int, shape: Sequence[int]) -> Array:
        """Return an array on a part of another's memory."""
        part = Array(self, shape, array.dtype)
        if not 0 <= start <= start + part.size <= array.size:
            raise ShapeError(f"{part.shape} from element {start} on lies outside {array!r}")
        block = self._engine.block(array)
        part.memory = self._engine.buffers.part(block, start, part.shape, np.dtype(array.dtype))
        return part

    def host(self, array: Array) -> NDArray[np.generic] | None:
        """Wait and return the memory, which is the host's where the device is the CPU."""
        self.synchronize()
        return self._engine.block(array).host

    def read(self, array: Array) -> NDArray[np.generic]:
        """Wait and return the values, read-only."""
        block = self._engine.block(array)
        return self._engine.buffers.read(block, array.shape, np.dtype(array.dtype))

    def write(self, array: Array, values: ArrayLike) -> None:
        """Wait and copy values in."""
        host = np.asarray(values)
        if host.shape != array.shape:
            try:
                host = np.broadcast_to(host, array.shape)
            except ValueError:
                raise ShapeError(
                    f"values of shape {host.shape} do not fit into {array!r}"
                ) from None
        self._engine.buffers.write(self._engine.block(array), host, np.dtype(array.dtype))

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
        bias: Array | None = None,
        activation: Expression | None = None,
        stacked: bool = False,
    ) -> Launch:
        """Bind a multiplication."""
        if self.precision_level:
            arrays = {"a": a, "b": b, "out": out} | ({} if bias is None else {"bias": bias})

            def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
                return host.gemm(
                    twins["a"], twins["b"], twins["out"], transpose_a=transpose_a,
                    transpose_b=transpose_b, alpha=alpha, beta=beta, bias=twins.get("bias"),
                    activation=activation, stacked=stacked,
                )  # fmt: skip

            return self._engine.on_host(twin, arrays, self.precision_level)
        return gemm(
            self._engine, a, b, out, transpose_a=transpose_a, transpose_b=transpose_b,
            alpha=alpha, beta=beta, bias=bias, activation=activation, stacked=stacked,
        )  # fmt: skip

    def joint_products(
        self, a: Array, factors: Sequence[Array | None], outs: Sequence[Array]
    ) -> Launch:
        """Bind products of one matrix, transposed: as one product on a processor."""
        check_joint_products(a, factors, outs)
        launch = None
        if self._engine.hardware.is_cpu and not self.precision_level and a.size:
            launch = bind_joint_products(self._engine, a, factors, outs)
        return launch or one_by_one(self, a, factors, outs)

    def convolution(
        self,
        x: Array,
        weights: Array,
        out: Array,
        window: Window,
        *,
        groups: int = 1,
        bias: Array | None = None,
        activation: Expression | None = None,
    ) -> Launch:
        """Bind a convolution."""
        return convolution(
            self._engine, x, weights, out, window, groups=groups, bias=bias, activation=activation
        )

    def convolution_gradient(
        self,
        err: Array,
        x: Array,
        weights: Array,
        window: Window,
        *,
        groups: int = 1,
        y: Array | None = None,
        slope: Expression | None = None,
        weights_gradient: Array | None = None,
        bias_gradient: Array | None = None,
        input_gradient: Array | None = None,
    ) -> Launch:
        """Bind the gradients of a convolution."""
        return convolution_gradient(
            self._engine, err, x, weights, window, groups=groups, y=y, slope=slope,
            weights_gradient=weights_gradient, bias_gradient=bias_gradient,
            input_gradient=input_gradient,
        )  # fmt: skip

    def elementwise(
        self, formulas: Mapping[str, Expression], arrays: Mapping[str, Array]
    ) -> Launch:
        """Bind formulas over whole arrays."""
        return elementwise(self._engine, formulas, arrays)

    def reduce(
        self,
        operation: Literal["sum", "max"],
        formula: Expression,
        arrays: Mapping[str, Array],
        out: Array,
        *,
        axis: Literal[0, 1] | None,
    ) -> Launch:
        """Bind a sum or maximum."""
        if self.precision_level == 2 and any(one.dtype == np.float64 for one in arrays.values()):

            def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
                inputs = {name: array for name, array in twins.items() if name != "out"}
                return host.reduce(operation, formula, inputs, twins["out"], axis=axis)

            if "out" not in arrays:
                return self._engine.on_host(twin, {**arrays, "out": out}, self.precision_level)
        return reduce(self._engine, operation, formula, arrays, out, axis)

    def softmax(self, x: Array, out: Array, winners: Array | None = None) -> Launch:
        """Bind the softmax of rows."""
        return softmax(self._engine, x, out, winners)

    def gather(self, source: Array, indices: Array, out: Array, *, fill: float = 0.0) -> Launch:
        """Bind the picking of rows."""
        return gather(self._engine, source, indices, out, fill)

    def uniform(self, out: Array, key: tuple[int, int]) -> Launch:
        """Bind the filling with random numbers."""
        return uniform(self._engine, out, key)

    def program(
        self, program: Program, arrays: Mapping[str, Array], space: Sequence[int]
    ) -> Launch:
        """Bind a unit's own kernel."""
        return bind_program(self._engine, program, arrays, space)

    def recurrence(
        self,
        recurrence: Recurrence,
        arrays: Mapping[str, Array],
        weights: Array,
        inputs: Inputs | None = None,
    ) -> Launch:
        """Bind steps that wait for each other: as one launch on a processor."""
        check_recurrence(recurrence, arrays, weights, inputs)
        launch = None
        if self._engine.hardware.is_cpu and not self.precision_level:
            table = self.asarray(steps_table(recurrence))
            launch = bind_recurrence(self._engine, recurrence, arrays, weights, table, inputs)
        return launch or by_steps(self, recurrence, arrays, weights, inputs)

    def synchronize(self) -> None:
        """Wait for all launches."""
        self._engine.finish()

    def observe(self, observer: Observer | None) -> None:
        """Tell of kernels and waits from now on; what was bound before stays on another queue."""
        self._engine.observe(observer)

    def info(self) -> DeviceInfo:
        """Describe the device and what was found amiss."""
        engine = self._engine
        return _info(engine.hardware, engine.notes, engine.tuning.lines())

    def close(self) -> None:
        """Wait for what is pending and end the compiler's process."""
        self._engine.close()
