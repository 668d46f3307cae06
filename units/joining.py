"""Where branches of a graph meet: sum, product, concatenation; and where their errors meet.

So graphs with branches are made of the same units as chains. Shapes: the branches of a sum or
product have one shape, (batch, ...); those of a concatenation differ in their last axis, the
channels of images. An output that several units read gets an error from each: :class:`ErrorSum`
adds them up.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (2016): y = x + f(x).
Szegedy et al., "Going deeper with convolutions" (2015): concatenated branches.
"""

from __future__ import annotations

from functools import reduce
from operator import add, mul
from typing import TYPE_CHECKING, ClassVar, Literal, Self, final

from veloflow.core import Inputs
from veloflow.devices import Array
from veloflow.devices.expressions import element
from veloflow.errors import GraphError, ShapeError, nearest
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.forward import Forward
from veloflow.units.gradient import Backward
from veloflow.units.layer import Branches, Layer
from veloflow.units.strips import bind_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from veloflow.core import Unit, Workflow
    from veloflow.devices import Launch

__all__ = [
    "Concat",
    "ErrorSum",
    "GDConcat",
    "GDJoin",
    "GDProduct",
    "GDSum",
    "Join",
    "Product",
    "Sum",
    "parallel",
    "residual",
]


class Join(Forward):
    """One output of several branches. An outline: subclasses say how.

    Its inputs are ``branch0``, ``branch1`` and so on; :meth:`link_branches` links them all.
    """

    input = None  # type: ignore[assignment] # branches are read in its place
    branch = Inputs[Array]("batch *sample")

    def __init__(self, workflow: Workflow, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self._launches: list[Callable[[], None]] = []

    def link_branches(self, *units: Unit, attribute: str = "output") -> Self:
        """Link the outputs of these units, in this order."""
        for number, unit in enumerate(units):
            self.link_data(unit, **{f"branch{number}": attribute})
        return self

    def initialize(self) -> None:
        """Declare the output."""
        self.output = self.declare(*self.branch[0].shape)

    def run(self) -> None:
        """Compute ``output``."""
        for launch in self._launches:
            launch()


@final
class Sum(Join):
    """The sum of branches of one shape: y = x0 + x1 + …, added in this order."""

    def prepare(self) -> None:
        """Bind the sum."""
        self._launches = [_bind_sum(self, self.branch, self.output)]


@final
class Product(Join):
    """The product of branches of one shape, element by element: y = x0 * x1 * …"""

    def prepare(self) -> None:
        """Bind the product."""
        arrays = {f"x{number}": array for number, array in enumerate(self.branch)}
        formula = reduce(mul, map(element, arrays))
        self._launches = [self.device.elementwise({"y": formula}, {**arrays, "y": self.output})]


@final
class Concat(Join):
    """Branches side by side along the last axis: (batch, ..., n0), (batch, ..., n1), …"""

    branch = Inputs[Array]("batch ...")

    def initialize(self) -> None:
        """Declare the output.

        Raises:
            ShapeError: the branches differ in another axis than the last.
        """
        shapes = [array.shape for array in self.branch]
        if len(shapes[0]) < 2 or any(shape[:-1] != shapes[0][:-1] for shape in shapes):
            listed = ", ".join(map(str, shapes))
            raise ShapeError(
                f"unit {self.path!r}: branches of shapes {listed} cannot be put side by side; "
                "they may differ in the last axis only"
            )
        self.output = self.declare(*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def prepare(self) -> None:
        """Bind the copies."""
        self._launches = [
            bind_columns(self.device, array, self.output, array.shape[-1], start=start)
            for array, start in zip(self.branch, self.starts(), strict=True)
        ]

    def starts(self) -> list[int]:
        """Return where each branch begins in the output's last axis."""
        widths = [array.shape[-1] for array in self.branch]
        return [sum(widths[:number]) for number in range(len(widths))]


def _bind_sum(unit: DeviceUnit, arrays: Sequence[Array], out: Array) -> Launch:
    named = {f"x{number}": array for number, array in enumerate(arrays)}
    formula = reduce(add, map(element, named))
    return unit.device.elementwise({"y": formula}, {**named, "y": out})


# -- the way back ----------------------------------------------------------------------------------


class GDJoin(Backward):
    """The gradient of a join. An outline.

    Attributes:
        err_input0, err_input1, …: dL/d(branch), of the branches' shapes; each exists only when a
            unit reads it.
    """

    forward: Join
    forward_kind: ClassVar[type[Forward]] = Join

    def initialize(self) -> None:
        """Give the errors that are read.

        Raises:
            GraphError: a unit reads ``err_input``.
        """
        if self.needs_err_input:
            raise GraphError(
                f"unit {self.path!r}: link to err_input0, err_input1 … for its branches, not to "
                "err_input"
            )
        super().initialize()
        self._launches: list[Callable[[], None]] = []
        self.err_inputs: dict[int, Array] = {}
        for number, array in enumerate(self.forward.branch):
            name = f"err_input{number}"
            if self.is_read(name):
                self.err_inputs[number] = self._error_for(array)
                setattr(self, name, self.err_inputs[number])

    def _error_for(self, branch: Array) -> Array:
        return self.declare(*branch.shape)

    def run(self) -> None:
        """Compute the errors of the branches."""
        for launch in self._launches:
            launch()


@final
class GDSum(GDJoin):
    """The gradient of :class:`Sum`: each branch has the error of the output, as it is."""

    forward_kind = Sum

    def _error_for(self, branch: Array) -> Array:
        return self.err_output  # nobody changes it, so nothing is copied

    def run(self) -> None:
        """Do nothing: the errors are there."""


@final
class GDProduct(GDJoin):
    """The gradient of :class:`Product`: dL/dx_i = dL/dy times all the other branches."""

    forward_kind = Product

    def prepare(self) -> None:
        """Bind a product for each branch."""
        arrays = {f"x{number}": array for number, array in enumerate(self.forward.branch)}
        for number, target in self.err_inputs.items():
            others = [name for name in arrays if name != f"x{number}"]
            formula = reduce(mul, map(element, others), element("err"))
            given = {**{name: arrays[name] for name in others}, "err": self.err_output}
            self._launches.append(
                self.device.elementwise({"target": formula}, {**given, "target": target})
            )


@final
class GDConcat(GDJoin):
    """The gradient of :class:`Concat`: each branch has its own part of the output's error."""

    forward: Concat
    forward_kind = Concat

    def prepare(self) -> None:
        """Bind a copy for each branch."""
        starts = self.forward.starts()
        for number, target in self.err_inputs.items():
            self._launches.append(
                bind_columns(
                    self.device, self.err_output, target, target.shape[-1], first=starts[number]
                )
            )


@final
class ErrorSum(DeviceUnit):
    """The error of an output that several units read: the sum of theirs.

    Its inputs are ``error0``, ``error1`` and so on, and it adds them up in this order::

        errors = ErrorSum(wf).link_errors((gd_left, "err_input"), (gd_join, "err_input1"))
        gd_before.link_data(errors, err_output="total")

    Attributes:
        total: the sum, of the errors' one shape.
    """

    group: ClassVar[str] = "trainer"

    error = Inputs[Array]("batch *sample")

    def __init__(self, workflow: Workflow, *, name: str | None = None) -> None:
        super().__init__(workflow, name=name)
        self.total: Array
        self._launch: Launch

    def link_errors(self, *ends: tuple[Unit, str]) -> Self:
        """Link these attributes of units, in this order."""
        for number, (unit, attribute) in enumerate(ends):
            self.link_data(unit, **{f"error{number}": attribute})
        return self

    def initialize(self) -> None:
        """Declare the sum."""
        self.total = self.declare(*self.error[0].shape)

    def prepare(self) -> None:
        """Bind the sum."""
        self._launch = _bind_sum(self, self.error, self.total)

    def run(self) -> None:
        """Compute ``total``."""
        self._launch()


# -- the short form --------------------------------------------------------------------------------

_JOINS: dict[str, tuple[type[Join], type[GDJoin]]] = {
    "sum": (Sum, GDSum),
    "product": (Product, GDProduct),
    "concat": (Concat, GDConcat),
}


def parallel(
    *branches: Sequence[Layer | Branches],
    join: Literal["sum", "product", "concat"] = "concat",
    name: str | None = None,
) -> Branches:
    """Return branches side by side, which begin with what is before them and meet in a join.

    Args:
        branches: lists of layers; an empty one passes its input on.
        join: how their outputs become one.
        name: of the joining unit.

    Raises:
        GraphError: there is no such join, or no branch.
    """
    if join not in _JOINS:
        raise GraphError(f"parallel has no join {join!r}{nearest(join, _JOINS)}")
    if not branches:
        raise GraphError("parallel has no branches; give lists of layers")
    forward, gradient = _JOINS[join]
    joining = Layer(join, lambda wf: forward(wf, name=name), gradient)
    rows = tuple(tuple(branch) for branch in branches)
    texts = ", ".join("[" + ", ".join(one.text for one in row) + "]" for row in rows)
    return Branches(f"parallel({texts}, join={join!r})", rows, joining)


def residual(
    *layers: Layer | Branches,
    shortcut: Sequence[Layer | Branches] = (),
    name: str | None = None,
) -> Branches:
    """Return y = f(x) + x, f being ``layers``; ``shortcut`` are layers for the other way.

    Args:
        layers: of f; their last output has the shape of the shortcut's.
        shortcut: by default nothing, the identity; such as ``[conv(32, 1, "linear", stride=2)]``.
        name: of the summing unit.
    """
    return parallel(layers, shortcut, join="sum", name=name)
