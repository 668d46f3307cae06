"""The steps of a recurrent layer as one launch, on a processor.

Two launches a step, of 10 to 80 us of work each, cost as much again for waking the driver's threads
and waiting for them. A work-item that takes its rows through all steps waits for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.judge import samples, trial_of
from veloflow.devices.opencl.merging import as_function
from veloflow.devices.opencl.program import types_of
from veloflow.devices.opencl.recipes import ArrayArgument, Call, Recipe, Trial, kernel_source
from veloflow.devices.recurrence import Inputs

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch
    from veloflow.devices.opencl.formulas import Numbers
    from veloflow.devices.opencl.recipes import Argument
    from veloflow.devices.recurrence import Recurrence

__all__ = ["recurrence", "steps_table"]

#: vectors of columns in a tile, and the rows that it may have: ten to twelve sums leave registers
#: for the operands
_WIDE, _TALL = 2, (6, 5, 4)
#: work-items for each core: the driver gives another one to whichever core is ready first
_ITEMS = 5
#: numbers in a row that enters, in trials
_FEW = 3
#: names of what is no array of the program
_WEIGHTS, _STEPS, _PANELS = "weights of steps", "steps", "weight_panels"
_INPUTS, _INPUT_WEIGHTS, _INPUT_PANELS = "inputs", "weights of inputs", "input_panels"


def steps_table(steps: Recurrence) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Return the numbers of each step: the place of the factor, and the program's scalars."""
    names = [name for name, _ in steps.program.scalars]
    lines = [[place, *(scalars[name] for name in names)] for place, scalars in steps.steps]
    return np.array(lines, np.int32)


def recurrence(
    engine: Engine,
    steps: Recurrence,
    arrays: Mapping[str, Array],
    weights: Array,
    table: Array,
    inputs: Inputs | None,
) -> Launch | None:
    """Bind all steps as one launch; None where no kernel does it.

    ``table`` holds :func:`steps_table`.
    """
    real = weights.dtype
    tall = _tall(steps.sizes[0], engine.hardware.compute_units)

    def variant() -> Variant:
        numbers = engine.numbers(real)
        recipe = Recipe("recurrence", _source(engine, numbers, steps, tall))

        def trial() -> Trial:
            small = steps.small()
            kinds = {name: array.dtype for name, array in arrays.items()}
            shapes = {name: (shape, kinds[name]) for name, shape in small.shapes.items()}
            wanted = {**shapes, _WEIGHTS: (small.weights_shape, real)}
            if small.entering is not None:
                *rows, columns = small.shapes[small.entering]
                wanted[_INPUTS] = ((*rows, _FEW), real)
                wanted[_INPUT_WEIGHTS] = ((columns, _FEW), real)
            given = samples(wanted)
            calls, scratch = _calls(engine, numbers, small, tall, _FEW)
            spare: dict[str, np.ndarray[Any, Any]] = {_STEPS: steps_table(small)}
            spare |= {name: np.zeros(size, np.uint8) for name, size in scratch.items()}

            def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
                own = {name: twins[name] for name in small.shapes}
                entering = None
                if small.entering is not None:
                    entering = Inputs(twins[_INPUTS], twins[_INPUT_WEIGHTS])
                return host.recurrence(small, own, twins[_WEIGHTS], entering)

            return trial_of(twin, calls, given, small.outputs, scratch=spare)

        width = 0 if inputs is None else inputs.values.shape[-1]
        calls, scratch = _calls(engine, numbers, steps, tall, width)
        return Variant([(recipe, ["pack_weights", "recurrence"], trial)], calls, scratch)

    everything = {**arrays, _WEIGHTS: weights, _STEPS: table}
    if inputs is not None:
        everything |= {_INPUTS: inputs.values, _INPUT_WEIGHTS: inputs.weights}
    return engine.attempt([variant], everything, list(arrays))


def _tall(rows: int, compute_units: int) -> int:
    """Return the rows of a tile: as many as leave the busiest work-item the least rows."""
    return min(_TALL, key=lambda tall: -(-rows // (tall * compute_units)) * tall)


def _calls(
    engine: Engine, numbers: Numbers, steps: Recurrence, tall: int, width: int
) -> tuple[list[Call], dict[str, int]]:
    """Return the launches, and the bytes of the memory that only they use.

    ``width`` is the length of the rows that enter.
    """
    rows, columns, inner = steps.sizes
    scratch: dict[str, int] = {}

    def pack(weights: str, panels: str, columns: int, inner: int, strides: tuple[int, int]) -> Call:
        panel = _WIDE * numbers.lanes
        across = -(-columns // panel)
        scratch[panels] = (across * panel * inner + 64) * numbers.dtype.itemsize
        names = (ArrayArgument(weights), ArrayArgument(panels))
        sizes = tuple(np.int64(number) for number in (columns, inner, *strides))
        return Call("pack_weights", (*names, *sizes), *engine.spread(across, 1))

    strides = (1, inner) if steps.transpose_b else (columns, 1)
    calls = [pack(_WEIGHTS, _PANELS, columns, inner, strides)]
    entering, entering_columns = (_PANELS, _STEPS, steps.product), 0  # none of them is looked at
    if steps.entering is not None:
        entering_columns = steps.shapes[steps.entering][-1]
        calls.append(pack(_INPUT_WEIGHTS, _INPUT_PANELS, entering_columns, width, (1, width)))
        entering = (_INPUT_PANELS, _INPUTS, steps.entering)
    sizes = (len(steps.steps), rows, columns, inner, width, entering_columns)
    arguments: tuple[Argument, ...] = (
        *(ArrayArgument(name) for name in (_PANELS, _STEPS, steps.factor, steps.product)),
        *(ArrayArgument(name) for name in entering),
        *(np.int64(number) for number in sizes),
        np.int32(steps.space[1]),
        *(ArrayArgument(name) for name in steps.program.arrays),
    )
    items = min(_ITEMS * engine.hardware.compute_units, -(-rows // tall))
    calls.append(Call("recurrence", arguments, (items,), (1,), is_alone=True))
    return calls, scratch


def _source(engine: Engine, numbers: Numbers, steps: Recurrence, tall: int) -> str:
    own = steps.program
    text = "#define get_global_id(axis) ((axis) ? column_of_item : row_of_item)\n"
    text += types_of(numbers) + own.source
    ending = ("const long row_of_item", "const long column_of_item")
    function = as_function(text, own.name, 0, ending)
    names = [f"array{number}" for number in range(len(own.arrays))]
    arrays = ", ".join(
        f"{kind} {name}" for kind, name in zip(function.kinds, names, strict=False)
    )  # a program's scalars come after its arrays
    scalars = [f"step[{number + 1}]" for number in range(len(own.scalars))]
    call = f"{function.name}({', '.join([*names, *scalars, 'row', 'column'])})"
    lines = [
        f"#define TALL {tall}", f"#define WIDE {_WIDE}", f"#define NUMBERS {len(own.scalars) + 1}",
        f"#define ARRAYS , {arrays}", f"#define PROGRAM {call}", "",
    ]  # fmt: skip
    files = [kernel_source(name) for name in ("ranges", "common", "panels", "recurrence")]
    parts = [function.text, engine.defines, numbers.defines, "\n".join(lines), *files]
    return "".join(parts)
