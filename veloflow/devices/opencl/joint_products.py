"""Products of one matrix, transposed, with several others as one product, on a processor.

Each by itself is packed and summed in turns, two launches for each few hundred of the inner
dimension. Here a work-item packs for itself what only it reads, so there are two launches in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.joint_products import one_by_one
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.judge import samples, trial_of
from veloflow.devices.opencl.recipes import ArrayArgument, Call, Recipe, Trial, kernel_source
from veloflow.devices.opencl.tiles import Direct, direct_candidates

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch
    from veloflow.devices.opencl.formulas import Numbers
    from veloflow.devices.opencl.recipes import Argument

__all__ = ["joint_products"]

#: rows that are packed at a time: a panel of them fits into a core's first cache
_DEPTH = 192
#: work-items for each core, from which the least for the busiest one is taken
_ITEMS = range(3, 7)
#: numbers that a work-item joins at least
_JOINED = 16384

#: the widths of the factors, None for ones
_Widths = tuple[int | None, ...]


def joint_products(
    engine: Engine, a: Array, factors: Sequence[Array | None], outs: Sequence[Array]
) -> Launch | None:
    """Bind ``out = transposed a * factor`` for each; None where no kernel does it."""
    dtype = np.dtype(a.dtype)
    widths = tuple(None if one is None else math.prod(one.shape[1:]) for one in factors)
    results = [f"out{number}" for number in range(len(outs))]

    def variant() -> Variant:
        numbers = engine.numbers(dtype)
        tall, wide = _tile(engine)
        recipe = Recipe("joint products", _source(engine, numbers, widths, tall, wide))
        panel = wide * numbers.lanes

        def trial() -> Trial:
            inner, rows = 5, 2 * tall + 3
            few = (panel + 3, 5, 2 * panel)
            small = tuple(one if one is None else few[n % 3] for n, one in enumerate(widths))
            shapes: dict[str, tuple[int, ...]] = {"a": (inner, rows)}
            for number, width in enumerate(small):
                shapes[f"out{number}"] = (rows,) if width is None else (rows, width)
                if width is not None:
                    shapes[f"factor{number}"] = (inner, width)
            given = samples({name: (shape, dtype) for name, shape in shapes.items()})
            calls, scratch = _calls(engine, numbers, (inner, rows), small, tall, wide, 2)
            spare = {name: np.zeros(size, np.uint8) for name, size in scratch.items()}

            def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
                own = [twins.get(f"factor{number}") for number in range(len(small))]
                return one_by_one(host, twins["a"], own, [twins[name] for name in results])

            return trial_of(twin, calls, given, results, scratch=spare)

        inner, rows = a.shape
        calls, scratch = _calls(engine, numbers, (inner, rows), widths, tall, wide, _DEPTH)
        return Variant([(recipe, ["join_factors", "joint_products"], trial)], calls, scratch)

    arrays = {"a": a, **dict(zip(results, outs, strict=True))}
    arrays |= {f"factor{n}": one for n, one in enumerate(factors) if one is not None}
    return engine.attempt([variant], arrays, results)


def _tile(engine: Engine) -> tuple[int, int]:
    """Return the rows of a tile and its vectors of columns: those of any product."""
    method = direct_candidates(engine.hardware.facts)[0]
    assert isinstance(method, Direct)
    return method.tall, method.wide


def _items(down: int, compute_units: int) -> int:
    """Return how many work-items leave the busiest core the least tiles."""

    def busiest(items: int) -> int:
        turns = math.ceil(math.ceil(down / tiles_of(items)) / compute_units)
        return turns * tiles_of(items)

    def tiles_of(items: int) -> int:
        return math.ceil(down / items)

    items = min((number * compute_units for number in _ITEMS), key=busiest)
    return math.ceil(down / tiles_of(items))


def _calls(
    engine: Engine, numbers: Numbers, shape: tuple[int, int], widths: _Widths, tall: int,
    wide: int, depth: int,
) -> tuple[list[Call], dict[str, int]]:  # fmt: skip
    """Return the launches for a matrix of that shape, and the bytes that only they use."""
    inner, rows = shape
    panel = wide * numbers.lanes
    columns = sum(1 if one is None else one for one in widths)
    down, across = -(-rows // tall), -(-columns // panel)
    counts = {
        "joint_panels": across * panel * inner,
        "joint_tiles": down * tall * depth,
        "joint_sums": down * tall * across * panel,
    }
    scratch = {name: (count + 64) * numbers.dtype.itemsize for name, count in counts.items()}
    panels, tiles, sums = (ArrayArgument(name) for name in scratch)
    factors: list[Argument] = []
    results: list[Argument] = []
    for number, width in enumerate(widths):
        results.append(ArrayArgument(f"out{number}"))
        if width is not None:
            factors += [ArrayArgument(f"factor{number}"), np.int64(width)]
            results.append(np.int64(width))
    joined = (panels, np.int64(inner), *factors)
    sizes = tuple(np.int64(number) for number in (inner, rows, across, depth))
    given = (ArrayArgument("a"), panels, tiles, sums, *sizes, *results)
    items = _items(down, engine.hardware.compute_units)
    calls = [
        Call("join_factors", joined, *engine.spread(inner, max(1, _JOINED // columns))),
        Call("joint_products", given, (items,), (1,), is_alone=True),
    ]
    return calls, scratch


def _source(engine: Engine, numbers: Numbers, widths: _Widths, tall: int, wide: int) -> str:
    factors, results, join, part = "", "", "", ""
    for number, width in enumerate(widths):
        line, count = "0", "1"
        results += f", global real *out{number}"
        if width is not None:
            line, count = f"factor{number} + k * width{number}", f"width{number}"
            factors += f", global const real *factor{number}, const long {count}"
            results += f", const long {count}"
        join += f" column = join({line}, panels, k, inner, column, {count});"
        part += f" column = part(kept, out{number} + row * {count}, n, column, {count});"
    lines = [
        f"#define TALL {tall}", f"#define WIDE {wide}", f"#define FACTORS {factors}",
        f"#define RESULTS {results}", f"#define JOIN_ALL{join}", f"#define PART_ALL{part}", "",
    ]  # fmt: skip
    files = [kernel_source(name) for name in ("ranges", "common", "panels", "joint_products")]
    return "".join([engine.defines, numbers.defines, "\n".join(lines), *files])
