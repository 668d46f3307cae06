"""What the operations of one OpenCL device share: its queue, memory, compiler and fallbacks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.base import Array
from veloflow.devices.numpy import NumpyDevice
from veloflow.devices.opencl.buffers import Block, Buffers
from veloflow.devices.opencl.cache import KernelCache
from veloflow.devices.opencl.compile import Compiler
from veloflow.devices.opencl.formulas import Numbers, c_type
from veloflow.devices.opencl.judge import Twin, host_launch
from veloflow.devices.opencl.launches import Scalar, bind, defer, set_arguments
from veloflow.devices.opencl.merging import merged_launch, merged_recipe
from veloflow.devices.opencl.pending import Pending, Step
from veloflow.devices.opencl.platforms import Hardware, cl
from veloflow.devices.opencl.recipes import ArrayArgument
from veloflow.devices.opencl.tuning import Tuning, load_tuning
from veloflow.devices.opencl.watch import KernelWatch
from veloflow.errors import DeviceError, KernelError

if TYPE_CHECKING:
    from veloflow.devices.base import Device, Launch
    from veloflow.devices.opencl.pending import Given
    from veloflow.devices.opencl.recipes import Call, Recipe, Trial
    from veloflow.devices.tracing import Observer

__all__ = ["Engine", "Variant"]

_log = logging.getLogger(__name__)

#: work-items in a group on devices that are no CPU
_GROUP = 64


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to do an operation: launches of the kernels of some recipes.

    ``parts`` are the recipes, each with its kernels' names and its trial; ``scratch`` gives the
    bytes of arrays that only these launches use.
    """

    parts: Sequence[tuple[Recipe, Sequence[str], Callable[[], Trial]]]
    calls: Sequence[Call]
    scratch: Mapping[str, int] = field(default_factory=dict)


class Engine:
    """One open device."""

    def __init__(
        self,
        hardware: Hardware,
        *,
        cache: Path | None = None,
        limit: float = 60.0,
        sources: Mapping[str, str] | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.hardware = hardware
        self.tuning = tuning or load_tuning(hardware)
        try:
            self._context = context = cl.Context([hardware.handle])
            self.queue = cl.CommandQueue(context)
        except cl.Error as error:
            raise DeviceError(f"{hardware.name} cannot be used: {error}") from error
        self.buffers = Buffers(hardware, context, self.queue)
        self.compiler = Compiler(
            hardware, context, KernelCache(cache), limit=limit, sources=sources
        )
        self.notes: list[str] = []
        self._scratch: dict[str, Block] = {}
        self._watch: KernelWatch | None = None
        self._pending: Pending | None = None
        if hardware.is_cpu:
            self._pending = Pending(self.queue, self._merged, self._note)
            self.buffers.settle = self._pending.settle
            self.buffers.use(self.queue, self._pending.finish)

    # -- how work is cut ----------------------------------------------------------------------

    def numbers(self, real: np.dtype[Any], *others: np.dtype[Any]) -> Numbers:
        """Return what kernels compute with for a real dtype, where the others meet it.

        A vector of the widest of them fills a register and no more.

        Raises:
            KernelError: the device has no such numbers.
        """
        if real.kind != "f" or real.itemsize not in (4, 8):
            raise KernelError(f"no kernel computes in {real}")
        if real.itemsize == 8 and not self.hardware.has_double:
            raise KernelError(f"{self.hardware.name} has no float64")
        widest = max(one.itemsize for one in (real, *others))
        return Numbers(c_type(real), self.hardware.lanes(widest))

    def spread(self, units: int, at_least: int) -> tuple[tuple[int], tuple[int]]:
        """Return the number of work-items and the group for ``units`` of work.

        On a CPU a work-item takes a contiguous range of at least ``at_least`` units; elsewhere
        work-items take turns.
        """
        if self.hardware.is_cpu:
            wanted = -(-units // max(1, at_least))
            return (max(1, min(wanted, 4 * self.hardware.compute_units)),), (1,)
        groups = min(-(-units // _GROUP), 32 * self.hardware.compute_units)
        return (max(1, groups) * _GROUP,), (_GROUP,)

    @property
    def defines(self) -> str:
        """The preprocessor lines that say how :meth:`spread` cuts the work."""
        return "" if self.hardware.is_cpu else "#define TAKE_TURNS\n"

    # -- binding ------------------------------------------------------------------------------

    def block(self, array: Array) -> Block:
        """Return the memory of an array.

        Raises:
            DeviceError: it has none, or lives on another device.
        """
        if not isinstance(array.memory, Block):
            where = "has no memory yet" if array.memory is None else "lives on another device"
            raise DeviceError(f"{array!r} {where}; {self.hardware.name} cannot use it")
        return array.memory

    def operation(
        self,
        name: str,
        variants: Sequence[Callable[[], Variant]],
        twin: Twin,
        arrays: Mapping[str, Array],
        outputs: Sequence[str],
    ) -> Launch:
        """Bind the first variant that compiles and computes right, or NumPy where none does."""
        launch = self.attempt(variants, arrays, outputs)
        if launch is not None:
            return launch
        self._note(f"{name} is computed by NumPy")
        return host_launch(twin, arrays, outputs)

    def attempt(
        self,
        variants: Sequence[Callable[[], Variant]],
        arrays: Mapping[str, Array],
        outputs: Sequence[str],
    ) -> Launch | None:
        """Bind the first variant that compiles and computes right; None where none does."""
        blocks = {key: self.block(array) for key, array in arrays.items()}
        for variant in variants:
            try:
                return self._bind(variant(), blocks, outputs)
            except KernelError as error:
                self._note(str(error))
        return None

    def on_host(self, twin: Twin, arrays: Mapping[str, Array], precision_level: int = 0) -> Launch:
        """Bind an operation of NumPy's to memory that this device, a CPU, shares with the host.

        The launch waits for those before it and is done when it returns.

        Raises:
            DeviceError: this device has memory of its own.
        """
        if not self.hardware.is_cpu:
            raise DeviceError(
                f"{self.hardware.name} has no precision level {precision_level}: the host computes "
                "those, in memory that both share; use --device numpy"
            )
        host = NumpyDevice()
        host.precision_level = precision_level
        twins: dict[str, Array] = {}
        for name, array in arrays.items():
            twins[name] = type(array)(host, array.shape, array.dtype)
            twins[name].memory = self.block(array).host
        bound, finish = twin(host, twins), self.buffers.finish
        keep = tuple(self.block(array) for array in arrays.values())

        def launch(*, _keep: object = keep, **scalars: float) -> None:
            finish()
            bound(**scalars)

        return launch

    def _bind(
        self, variant: Variant, blocks: Mapping[str, Block], outputs: Sequence[str]
    ) -> Launch:
        used = dict(blocks)
        for name, block in blocks.items():
            if block.offset:
                raise KernelError(f"the device cannot address {name!r} where it begins")
        programs: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for recipe, kernels, trial in variant.parts:
            program = self.compiler.program(recipe, trial)
            programs.update(dict.fromkeys(kernels, program))
            sources.update(dict.fromkeys(kernels, recipe.source))
        for name, size in variant.scratch.items():
            used[name] = self._scratch_block(name, size)
        buffers = {name: block.buffer for name, block in used.items()}
        try:
            if self._pending is not None:
                written = frozenset([*outputs, *variant.scratch])
                return self._deferred(variant.calls, programs, sources, used, written)
            enqueue = None if self._watch is None else self._watch.enqueue
            return bind(self.queue, programs, variant.calls, buffers, enqueue)
        except cl.Error as error:
            raise KernelError(f"{variant.parts[0][0].name} cannot be bound: {error}") from error

    def shared(
        self, name: str, device: Device, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> Array:
        """Return an array in memory that launches share under that name, each for a while."""
        key, size = f"{name} {dtype}", math.prod(shape)
        known = self._scratch.get(key)
        if known is None or known.buffer.size < size * dtype.itemsize:
            known = self._scratch[key] = self.buffers.allocate((size,), dtype)
        array = Array(device, shape, dtype)
        array.memory = self.buffers.part(known, 0, array.shape, dtype)
        return array

    def _deferred(
        self,
        calls: Sequence[Call],
        programs: Mapping[str, Any],
        sources: Mapping[str, str],
        blocks: Mapping[str, Block],
        written: frozenset[str],
    ) -> Launch:
        scalars: dict[str, Scalar] = {}
        buffers = {name: block.buffer for name, block in blocks.items()}
        steps = []
        for call in calls:
            kernel = cl.Kernel(programs[call.kernel], call.kernel)
            set_arguments(kernel, call.arguments, buffers, scalars)
            names = [one.name for one in call.arguments if isinstance(one, ArrayArgument)]
            own = {name: blocks[name] for name in names}
            steps.append(Step(call, kernel, sources[call.kernel], own, written))
        assert self._pending is not None
        return defer(self._pending, steps, scalars)

    def _merged(self, steps: Sequence[Step]) -> Callable[[Sequence[Given]], Any]:
        """Return a launch of all these steps at once, which returns its event."""
        recipe, trial = merged_recipe([(one.source, one.call) for one in steps])
        program = self.compiler.program(recipe, lambda: trial)
        return merged_launch(self.queue, program, steps, self.hardware.compute_units)

    def _scratch_block(self, name: str, size: int) -> Block:
        """Return memory that all launches share: the queue runs one launch at a time."""
        known = self._scratch.get(name)
        if known is None or known.buffer.size < size:
            known = self.buffers.allocate((size,), np.dtype(np.uint8))
            self._scratch[name] = known
        return known

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            _log.warning("%s: %s", self.hardware.name, text)

    def observe(self, observer: Observer | None) -> None:
        """Use a queue whose kernels tell their times, and tell the observer; None: as before."""
        self.finish()
        if self._watch is not None:
            self._watch.tell()
        kind = 0 if observer is None else cl.command_queue_properties.PROFILING_ENABLE
        self.queue = cl.CommandQueue(self._context, properties=kind)
        self._watch = None if observer is None else KernelWatch(self.queue, observer)
        finish = self.queue.finish if self._watch is None else self._watch.finish
        if self._pending is not None:
            enqueue = None if self._watch is None else self._watch.enqueue
            self._pending.use(self.queue, finish, enqueue)
            finish = self._pending.finish
        self.buffers.use(self.queue, finish)

    def finish(self) -> None:
        """Wait for all launches."""
        self.buffers.finish()

    def close(self) -> None:
        """Wait for what is pending and end the compiler's process."""
        self.finish()
        self.compiler.close()
        self._scratch.clear()
