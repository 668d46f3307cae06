"""The interface of a device: arrays, and operations that are bound once and launched many times.

Every operation takes its arrays when it is *bound* and returns a :class:`Launch`. Calling the
launch computes, or enqueues the computation; only reading an array or :meth:`Device.synchronize`
waits. So a unit binds in ``prepare`` and does nothing but launch in ``run``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np

from veloflow.devices.expressions import Expression, Index, elements_of, walk
from veloflow.errors import DeviceError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from veloflow.devices.recurrence import Inputs, Recurrence
    from veloflow.devices.tracing import Observer
    from veloflow.devices.window import Window

__all__ = ["Array", "Device", "DeviceInfo", "Launch", "Program", "Space", "in_turn"]


class Launch(Protocol):
    """A bound operation. Call it with the scalars that its formula names."""

    def __call__(self, **scalars: float) -> None:
        """Compute, or enqueue the computation, and return without waiting."""


def in_turn(launches: Sequence[Callable[[], object]]) -> Launch:
    """Return what launches all of these, one after the other, without scalars."""

    def launch() -> None:
        for one in launches:
            one()

    return cast("Launch", launch)


class Array:
    """A shaped block of memory on a device; it has no memory until :meth:`Device.allocate`.

    Attributes: ``shape``, ``dtype``, ``device``, and ``memory``, which only the device touches
    (None before allocation).
    """

    __slots__ = ("device", "dtype", "memory", "shape")

    def __init__(self, device: Device, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.device = device
        self.shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self.dtype: np.dtype[np.generic] = np.dtype(dtype)
        self.memory: object | None = None

    def __repr__(self) -> str:
        return f"Array({self.shape}, {self.dtype}, {self.device.name})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size * self.dtype.itemsize

    @property
    def is_allocated(self) -> bool:
        """Whether the array has memory."""
        return self.memory is not None

    def read(self) -> NDArray[np.generic]:
        """Wait for what is pending and return the values, read-only; copy what you keep."""
        return self.device.read(self)

    def write(self, values: ArrayLike) -> None:
        """Wait for what is pending and copy ``values`` (broadcast to the shape) into the array."""
        self.device.write(self, values)

    def reshape(self, *shape: int) -> Array:
        """Return another array on the same memory, which must have been allocated."""
        if math.prod(shape) != self.size:
            raise ShapeError(f"cannot see an array of shape {self.shape} as {shape}")
        return self.device.view(self, 0, shape)


@dataclass(frozen=True)
class DeviceInfo:
    """What ``veloflow devices`` shows of a device."""

    name: str  #: how to ask for it: "numpy", "opencl:0:0"
    kind: str  #: "numpy", "opencl", "null"
    hardware: str  #: the processor's own name
    driver: str  #: driver or library, with its version
    memory: int  #: bytes
    compute_units: int
    notes: tuple[str, ...] = ()  #: fallbacks in use, oddities found by the self-test
    methods: tuple[str, ...] = ()  #: how products of matrices are computed, and how quickly


@dataclass(frozen=True)
class Program:
    """A unit's own kernel, with its NumPy twin, which is the judge of what is right.

    ``source`` is OpenCL C with a kernel ``name`` whose parameters are the arrays in the order of
    ``arrays`` (global pointers) and then the scalars in the order of ``scalars`` (``int`` or
    ``real``; ``real`` is a macro for the dtype of the first floating array). It runs one
    work-item for each element of ``space`` (given at binding, one to three dimensions) and must
    do nothing when every scalar is 0. ``host`` does the same with NumPy arrays, in place, by
    keyword.

    For vectors there are ``REALS``, how many reals a vector holds (1 on a GPU); ``reals``, and
    ``integers`` as wide as they are, which comparisons give; ``loose_reals`` and ``loose_ints``,
    for vectors that begin at any element of an array; TO_INTEGERS and TO_INTS.
    """

    name: str
    source: str
    host: Callable[..., None]
    arrays: tuple[str, ...]
    scalars: tuple[tuple[str, Literal["int", "real"]], ...] = ()


#: how an array lies in the matrix over which a formula runs
Layout = Literal["full", "row", "column", "single"]


@dataclass(frozen=True)
class Space:
    """The matrix of ``rows`` x ``columns`` over which a formula runs, and each array's layout.

    "full" arrays have an element for each place; a "column" array has one element a row: its
    shape is (rows,) or (rows, 1, ...); a "row" array is one row, used for every row: its shape is
    (1, ...) and the trailing part of the full shape, where the 1 may be left out if two or more
    dimensions remain; a "single" array has one element. So what an array means never depends on
    whether a matrix happens to be square.
    """

    rows: int
    columns: int
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    @staticmethod
    def of(shape: Sequence[int], arrays: Mapping[str, Array], *, matrix: bool = False) -> Space:
        """Lay ``arrays`` out over ``shape``; ``matrix`` keeps (rows, all the rest) as it is.

        Raises:
            ShapeError: an array neither has the shape nor can be broadcast to it.
        """
        shape = tuple(shape)
        size = math.prod(shape)
        rows = shape[0] if shape else 1
        columns = math.prod(shape[1:])
        layouts: dict[str, Layout] = {}
        for name, array in arrays.items():
            if array.shape == shape or (array.size == size and array.shape[:1] == shape[:1]):
                layouts[name] = "full"
            elif array.size == 1:
                layouts[name] = "single"
            elif array.shape in ((rows,), (rows,) + (1,) * (len(shape) - 1)):
                layouts[name] = "column"
            elif array.shape == (1, *shape[1:]) or (len(shape) > 2 and array.shape == shape[1:]):
                layouts[name] = "row"
            else:
                raise ShapeError(
                    f"array {name!r} of shape {array.shape} cannot be broadcast to {shape}: "
                    f"a row has the shape {(1, *shape[1:])}, a column {shape[:1]}"
                )
        if not matrix and all(layout in ("full", "single") for layout in layouts.values()):
            rows, columns = 1, size
        return Space(rows, columns, layouts)


class Device(ABC):
    """A place where arrays live and operations run. Subclass it, one file a kind of device."""

    #: how to ask for this device, such as "numpy" or "opencl:0:0"
    name: str
    #: how much is done against rounding in what is bound from now on; see numpy_precision
    precision_level: int = 0
    #: whether it computes in one thread what is bound from now on, where that is its choice
    has_one_thread: bool = False
    #: bytes from which on an array is worth to lie in memory that others use at other times
    least_shared: int = 0
    #: whether bytes of a data set stay bytes in its memory, and become numbers in each minibatch
    keeps_bytes: bool = False
    #: whether an array that no launch uses any more is read at once, while other launches run
    reads_beside: bool = False
    #: a few letters for choices of this user that change the last bits of results; usually none
    fingerprint: str = ""

    # -- memory -------------------------------------------------------------------------------

    def array(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """Declare an array; it gets its memory from :meth:`allocate`."""
        return Array(self, shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """Declare and allocate an array of zeros."""
        array = self.array(shape, dtype)
        self.allocate(array)
        return array

    def asarray(self, values: ArrayLike, dtype: DTypeLike | None = None) -> Array:
        """Declare and allocate an array with these values."""
        host = np.asarray(values, dtype=dtype)
        array = self.zeros(host.shape, host.dtype)
        self.write(array, host)
        return array

    @abstractmethod
    def allocate(self, array: Array) -> None:
        """Give ``array`` zeroed memory of its own, aligned to 64 bytes; once it has some, no-op."""

    def host(self, array: Array) -> NDArray[np.generic] | None:
        """Wait for pending launches and return the array's own memory, writable.

        None where the memory is not the host's.
        """
        return None

    def adopt(self, memory: NDArray[np.generic]) -> Array:
        """Return an array in this memory of the host, for devices that compute there.

        Raises:
            DeviceError: this device does not.
        """
        raise DeviceError(f"device {self.name!r} does not compute in the host's memory")

    @abstractmethod
    def view(self, array: Array, start: int, shape: Sequence[int]) -> Array:
        """Return an array on the elements from ``start`` on of an allocated flat ``array``.

        ``start`` is a multiple of 128 elements, or 0.
        """

    def place(self, array: Array, parent: Array, start: int) -> None:
        """Put a declared ``array`` onto the memory of an allocated ``parent`` from ``start`` on."""
        array.memory = self.view(parent, start, array.shape).memory

    @abstractmethod
    def read(self, array: Array) -> NDArray[np.generic]:
        """Wait for pending launches and return the values as a read-only host array."""

    @abstractmethod
    def write(self, array: Array, values: ArrayLike) -> None:
        """Wait for pending launches and copy host values, broadcast to the shape, into it."""

    # -- operations, bound once and launched many times ---------------------------------------

    @abstractmethod
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
        """Bind ``out = activation(alpha * op(a) @ op(b) + beta * out + bias)``.

        Matrices are row-major; arrays of more dimensions are seen as (first, all the rest).
        ``bias`` has one element a column. ``activation`` is a formula of ``element("x")``.
        ``stacked`` arrays are (n, rows, columns): n products, each of its own matrices.

        Raises:
            ShapeError: the shapes do not fit.
        """

    @abstractmethod
    def joint_products(
        self, a: Array, factors: Sequence[Array | None], outs: Sequence[Array]
    ) -> Launch:
        """Bind ``out = transposed a @ factor`` for each factor and its ``out``.

        ``a`` and the factors are matrices with as many rows each. Where a factor is None, ``out``
        are the sums of the columns of ``a``.

        Raises:
            ShapeError: the shapes do not fit.
        """

    @abstractmethod
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
        """Bind ``out = activation(weights * x + bias)``, a cross-correlation.

        Shapes: x is (batch, *window.image); weights are (kernels, ky * kx * channels / groups),
        each row in the order height, width, channel; out is (batch, *window.places, kernels);
        bias has one element a kernel. The kernels of group g see the channels of group g alone.

        Raises:
            ShapeError: the shapes do not fit.
        """

    @abstractmethod
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
        """Bind the gradients of a :meth:`convolution`, those that have an array.

        ``err`` is the gradient by ``out``; with ``slope``, a formula of ``element("y")`` and the
        convolution's output ``y``, d = err * slope is the gradient by the sums, else d = err.
        Then dL/dw sums d times what is under the window, dL/db sums d over batch and places, and
        dL/dx adds d times the weights wherever windows overlap.

        Raises:
            ShapeError: the shapes do not fit.
        """

    @abstractmethod
    def elementwise(
        self, formulas: Mapping[str, Expression], arrays: Mapping[str, Array]
    ) -> Launch:
        """Bind ``arrays[name][...] = formula`` for each formula, in one pass over memory.

        All elements of a place are read before any is written, so an array may be both input and
        output. Outputs have one shape; inputs are laid out over it as :class:`Space` says.
        ``index(0)`` and ``index(1)`` are the place's row and column in (first, all the rest).
        """

    @abstractmethod
    def reduce(
        self,
        operation: Literal["sum", "max"],
        formula: Expression,
        arrays: Mapping[str, Array],
        out: Array,
        *,
        axis: Literal[0, 1] | None,
    ) -> Launch:
        """Bind the sum or maximum of a formula over its matrix (first, all the rest).

        ``axis`` 0 sums over rows (``out`` has one element a column), 1 over columns (one a row),
        None over all (one element). Sums are accumulated in float64 and in a fixed order, so that
        equal input gives equal bits. The matrix is that of the largest array in ``arrays``, the
        first of equals. NaN in an element makes its maximum NaN.
        """

    @abstractmethod
    def softmax(self, x: Array, out: Array, winners: Array | None = None) -> Launch:
        """Bind the softmax of each row, and into ``winners`` (int32) the first largest column."""

    @abstractmethod
    def gather(self, source: Array, indices: Array, out: Array, *, fill: float = 0.0) -> Launch:
        """Bind ``out[i] = source[indices[i]]`` (cast to out's dtype), ``fill`` where index < 0.

        Indices are int32 or int64 and must lie below ``len(source)``.
        """

    @abstractmethod
    def uniform(self, out: Array, key: tuple[int, int]) -> Launch:
        """Bind the filling of ``out`` with random numbers in [0, 1), equal on every device.

        Philox 4x64-10 (Salmon et al. 2011) under ``key`` (two unsigned 64-bit words), as in
        :func:`veloflow.devices.random.uniform`. The launch takes the integers ``stream`` (for
        instance the epoch) and ``row`` (the position of out's first row in that stream).
        """

    @abstractmethod
    def program(
        self, program: Program, arrays: Mapping[str, Array], space: Sequence[int]
    ) -> Launch:
        """Bind a unit's own kernel; the launch takes the scalars that the program names."""

    @abstractmethod
    def recurrence(
        self,
        recurrence: Recurrence,
        arrays: Mapping[str, Array],
        weights: Array,
        inputs: Inputs | None = None,
    ) -> Launch:
        """Bind the steps of a recurrent layer, which wait for each other.

        Raises:
            ShapeError: the shapes are not those that the recurrence names.
        """

    def copy(self, source: Array, target: Array) -> Launch:
        """Bind ``target[...] = source``, of one shape."""
        from veloflow.devices.expressions import element

        return self.elementwise({"target": element("source")}, {"source": source, "target": target})

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until every launch so far is done."""

    # -- the device itself --------------------------------------------------------------------

    def observe(self, observer: Observer | None) -> None:  # noqa: B027 - most have nothing to tell
        """Tell ``observer`` of kernels bound from now on, when they run, and of waits.

        None ends it. A device whose launches are done when they return has nothing to tell.
        """

    @abstractmethod
    def info(self) -> DeviceInfo:
        """Describe the device."""

    def close(self) -> None:  # noqa: B027 - most devices hold nothing
        """Release what the device holds; its arrays must not be used any more."""


def space_of(
    formulas: Mapping[str, Expression], arrays: Mapping[str, Array]
) -> tuple[Space, dict[str, Array]]:
    """Return the space of an elementwise operation and the arrays that it reads or writes."""
    used = {name: arrays[name] for name in [*elements_of(*formulas.values()), *formulas]}
    shapes = {arrays[name].shape for name in formulas}
    if len(shapes) != 1:
        raise ShapeError(f"outputs of one operation differ in shape: {sorted(shapes)}")
    indexed = any(isinstance(node, Index) for node in walk(*formulas.values()))
    return Space.of(shapes.pop(), used, matrix=indexed), used


def formula_dtype(arrays: Iterable[Array]) -> np.dtype[np.generic]:
    """Return the dtype in which a formula over these arrays is computed.

    It is the widest floating dtype among the arrays that the formula reads or (elementwise)
    writes; without one, float64, which holds every int32 exactly.
    """
    floating = [array.dtype for array in arrays if array.dtype.kind == "f"]
    return max(floating, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float64))
