"""Steps of time of a recurrent layer: each takes a product with what the one before it made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from veloflow.devices.base import in_turn
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch, Program

__all__ = ["Inputs", "Recurrence", "by_steps", "check_recurrence"]


@dataclass(frozen=True)
class Recurrence:
    """Steps of a program, with a product before each but the first.

    Rows do not see each other: a step of a row needs that row of the step before and no other. So a
    device may take some rows through all steps before it begins with others.

    Attributes:
        program: computes one step. Its space is (rows, vectors of columns), its scalars are whole
            numbers, and where it looks at a row of an array that lies in the space, it is its own.
        space: see :meth:`veloflow.devices.Device.program`.
        shapes: the shapes of its arrays.
        factor, product: which of them is multiplied, and which takes the product: the matrix of
            rows (rows, inner) at some place in ``factor``, times the weights.
        transpose_b: whether the weights are (columns, inner).
        entering: the array (steps, rows, columns) whose step is, before the program runs, the
            product of ``inputs`` (steps, rows, any number) with weights of their own (columns, any
            number) transposed; None where nothing enters. Then work goes from the first step on.
        steps: in the order of work, the place in ``factor`` and the scalars of the program.
        outputs: the arrays that are wanted when all is done, for trials.
        small: returns a recurrence of the same kind that takes no time, for trials.
    """

    program: Program
    space: tuple[int, int]
    shapes: Mapping[str, tuple[int, ...]]
    factor: str
    product: str
    transpose_b: bool
    steps: Sequence[tuple[int, Mapping[str, int]]]
    outputs: tuple[str, ...]
    small: Callable[[], Recurrence]
    entering: str | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The rows and columns of a product, and the length of its sums."""
        rows, columns = self.shapes[self.product]
        return rows, columns, self.shapes[self.factor][-1]

    @property
    def weights_shape(self) -> tuple[int, int]:
        """The shape of the weights."""
        _, columns, inner = self.sizes
        return (columns, inner) if self.transpose_b else (inner, columns)


@dataclass(frozen=True)
class Inputs:
    """What enters the steps: ``values`` (steps, rows, inputs) and ``weights`` (columns, inputs)."""

    values: Array
    weights: Array


def check_recurrence(
    recurrence: Recurrence,
    arrays: Mapping[str, Array],
    weights: Array,
    inputs: Inputs | None,
) -> None:
    """Look whether the arrays are those that a recurrence names.

    Raises:
        ShapeError: they are not.
    """
    given = {name: array.shape for name, array in arrays.items()}
    if given != dict(recurrence.shapes) or weights.shape != recurrence.weights_shape:
        raise ShapeError(
            f"{recurrence.program.name!r} takes the arrays {dict(recurrence.shapes)} and weights "
            f"of {recurrence.weights_shape}, got {given} and {weights.shape}"
        )
    name = recurrence.entering
    found: tuple[int, ...] | None = None
    if inputs is not None:
        found = (*inputs.values.shape[:-1], inputs.weights.shape[0])
    fits = inputs is None or inputs.values.shape[-1:] == inputs.weights.shape[1:]
    if found != (None if name is None else recurrence.shapes[name]) or not fits:
        raise ShapeError(
            f"what enters {recurrence.program.name!r} does not fit {name or 'nothing'}"
        )


def _flat(array: Array) -> Array:
    """Return all steps as one matrix."""
    steps, rows, columns = array.shape
    return array.reshape(steps * rows, columns)


def by_steps(
    device: Device,
    recurrence: Recurrence,
    arrays: Mapping[str, Array],
    weights: Array,
    inputs: Inputs | None,
) -> Launch:
    """Bind a recurrence as two launches a step, and a product for all that enters."""
    rows, _, inner = recurrence.sizes
    program = device.program(recurrence.program, arrays, recurrence.space)
    launches: list[Callable[[], None]] = []
    if inputs is not None and recurrence.entering is not None:
        values, sums = (_flat(one) for one in (inputs.values, arrays[recurrence.entering]))
        launches.append(device.gemm(values, inputs.weights, sums, transpose_b=True))
    for number, (place, scalars) in enumerate(recurrence.steps):
        if number:
            factor = arrays[recurrence.factor]
            matrix = device.view(factor, place * rows * inner, (rows, inner))
            product, turned = arrays[recurrence.product], recurrence.transpose_b
            launches.append(device.gemm(matrix, weights, product, transpose_b=turned))
        launches.append(partial(program, **scalars))
    return in_turn(launches)
