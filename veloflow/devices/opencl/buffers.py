"""Memory of arrays: on a CPU device the buffer is host memory, so nothing is ever copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.opencl.platforms import Hardware, cl

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "Buffers"]

#: bytes after a buffer's end that kernels may read (never write): two of the widest vectors
_PADDING = 256


@dataclass(frozen=True, eq=False)
class Block:
    """The memory of one array.

    It begins ``start`` bytes into the allocated buffer ``root``. ``buffer`` is what kernels are
    given; it begins ``offset`` bytes before the array, which is 0 unless the device cannot begin a
    buffer there. ``host`` is the array's own memory as NumPy sees it (shaped, writable), None where
    the device has memory of its own; ``values`` is the same, read-only.
    """

    root: Any
    start: int
    buffer: Any
    offset: int
    host: NDArray[Any] | None
    values: NDArray[Any] | None

    @property
    def nbytes(self) -> int:
        """The bytes of the array, where the host sees it; else 0."""
        return 0 if self.host is None else self.host.nbytes


class Buffers:
    """Allocates, divides, reads and writes the memory of one device."""

    def __init__(self, hardware: Hardware, context: Any, queue: Any) -> None:
        self._hardware = hardware
        self._context = context
        #: waits until nothing uses a block any more; by default until nothing runs
        self.settle: Callable[..., object] = lambda block, *, is_written: self.finish()
        self.use(queue, queue.finish)

    def use(self, queue: Any, finish: Callable[[], object]) -> None:
        """Copy through this queue from now on, and wait by calling ``finish``."""
        self._queue, self.finish = queue, finish

    def allocate(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Block:
        """Return zeroed memory for an array of that shape and dtype."""
        size = math.prod(shape) * dtype.itemsize
        if not self._hardware.is_cpu:
            return self._allocate_apart(size)
        # The driver's own memory, mapped for good: it lives until the last launch that uses it is
        # done, whoever has dropped the array meanwhile. Memory of NumPy's would be gone at once.
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
        buffer = cl.Buffer(self._context, flags, size + _PADDING)
        access = cl.map_flags.READ | cl.map_flags.WRITE
        whole, _ = cl.enqueue_map_buffer(
            self._queue, buffer, access, 0, (size + _PADDING,), np.uint8
        )
        whole.fill(0)
        return _block(buffer, 0, buffer, 0, whole[:size].view(dtype).reshape(tuple(shape)))

    def _allocate_apart(self, size: int) -> Block:
        buffer = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, size + _PADDING)
        cl.enqueue_copy(self._queue, buffer, np.zeros(size + _PADDING, np.uint8))
        return _block(buffer, 0, buffer, 0, None)

    def part(self, block: Block, start: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Block:
        """Return the memory of an array that lies ``start`` elements into ``block``."""
        count = math.prod(shape)
        first = block.start + start * dtype.itemsize
        offset = first % self._hardware.alignment
        origin, buffer = first - offset, block.root
        if origin:  # a part of a part must be taken from the whole
            buffer = block.root.get_sub_region(origin, max(1, offset + count * dtype.itemsize))
        host = block.host
        if host is not None:
            host = host.reshape(-1)[start : start + count].reshape(tuple(shape))
        return _block(block.root, first, buffer, offset, host)

    def read(self, block: Block, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[np.generic]:
        """Wait for what uses the block and return the values, read-only."""
        self.settle(block, is_written=False)
        if block.values is not None:
            return block.values
        values = np.empty(tuple(shape), dtype)
        if values.size:
            cl.enqueue_copy(self._queue, values, block.buffer, src_offset=block.offset)
        values.flags.writeable = False
        return values

    def write(self, block: Block, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
        """Wait for what uses the block and copy ``values``, of its shape, in as ``dtype``."""
        self.settle(block, is_written=True)
        if block.host is not None:
            block.host[...] = values
        elif values.size:
            packed = np.ascontiguousarray(values, dtype)
            cl.enqueue_copy(self._queue, block.buffer, packed, dst_offset=block.offset)


def _block(root: Any, start: int, buffer: Any, offset: int, host: NDArray[Any] | None) -> Block:
    values = None
    if host is not None:
        values = host.view()
        values.flags.writeable = False
    return Block(root, start, buffer, offset, host, values)
