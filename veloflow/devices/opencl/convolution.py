"""Convolutions and their gradients: which kernels there are for one, and which is chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from veloflow.devices.expressions import Expression, element
from veloflow.devices.numpy_convolution import check_convolution
from veloflow.devices.opencl.direct import ROWS, Plan, Problem, backward, forward, numbers_of
from veloflow.devices.opencl.engine import Engine, Variant
from veloflow.devices.opencl.formulas import Numbers, statements
from veloflow.devices.opencl.judge import Twin, samples, trial_of
from veloflow.devices.opencl.launches import nothing
from veloflow.devices.opencl.patches import Patches
from veloflow.devices.opencl.recipes import Recipe, Trial, kernel_source
from veloflow.devices.opencl.winograd import Tiling, transforms
from veloflow.devices.window import Window
from veloflow.errors import ShapeError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch

__all__ = ["convolution", "convolution_gradient"]


def convolution(
    engine: Engine,
    x: Array,
    weights: Array,
    out: Array,
    window: Window,
    *,
    groups: int,
    bias: Array | None,
    activation: Expression | None,
) -> Launch:
    """Bind a convolution; see the interface."""
    check_convolution(x, weights, out, window, groups, [bias])
    if bias is not None and bias.size != len(weights):
        raise ShapeError(f"a bias of shape {bias.shape} does not fit {len(weights)} kernels")
    if out.size == 0:
        return nothing
    if _has_use_for_patches(engine, groups):
        patches = Patches(engine, x.device, window, len(x), len(weights), np.dtype(x.dtype))
        return patches.forward(x, weights, out, bias, activation)
    has_bias = bias is not None
    problem = Problem(len(x), window, len(weights), groups, x.dtype, has_bias, activation)
    arrays = {"x": x, "weights": weights, "out": out}
    if bias is not None:
        arrays["bias"] = bias

    def twin_of(own: Window) -> Twin:
        def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
            return host.convolution(
                twins["x"], twins["weights"], twins["out"], own, groups=groups,
                bias=twins.get("bias"), activation=activation,
            )  # fmt: skip

        return twin

    def tiles(own: Tiling) -> Plan:
        return own.forward(engine)

    def direct(own: Problem) -> Plan:
        return forward(engine, own)

    kind = _Kind("convolution", twin_of, arrays, ["out"])
    variants = _variants(engine, kind, problem, direct, tiles)
    return engine.operation(kind.name, variants, twin_of(window), arrays, kind.outputs)


def convolution_gradient(
    engine: Engine,
    err: Array,
    x: Array,
    weights: Array,
    window: Window,
    *,
    groups: int,
    y: Array | None,
    slope: Expression | None,
    weights_gradient: Array | None,
    bias_gradient: Array | None,
    input_gradient: Array | None,
) -> Launch:
    """Bind the gradients of a convolution; see the interface."""
    gradients = {"dw": weights_gradient, "db": bias_gradient, "dx": input_gradient}
    outputs = {name: array for name, array in gradients.items() if array is not None}
    check_convolution(x, weights, err, window, groups, [y, *outputs.values()])
    if slope is not None and (y is None or y.size != err.size):
        raise ShapeError("the slope of a convolution is a formula of its output; give y")
    if not outputs or err.size == 0:
        return nothing
    if _has_use_for_patches(engine, groups):
        patches = Patches(engine, x.device, window, len(x), len(weights), np.dtype(x.dtype))
        return patches.backward(err, x, weights, y, slope, outputs)
    has_bias = bias_gradient is not None
    problem = Problem(len(x), window, len(weights), groups, x.dtype, has_bias, slope)
    arrays = {"err": err, "x": x, "weights": weights, **outputs}
    if slope is not None and y is not None:
        arrays["y"] = y

    def twin_of(own: Window) -> Twin:
        def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
            return host.convolution_gradient(
                twins["err"], twins["x"], twins["weights"], own, groups=groups,
                y=twins.get("y"), slope=slope, weights_gradient=twins.get("dw"),
                bias_gradient=twins.get("db"), input_gradient=twins.get("dx"),
            )  # fmt: skip

        return twin

    wanted = frozenset(outputs)

    def tiles(own: Tiling) -> Plan:
        return own.backward(engine, wanted)

    def direct(own: Problem) -> Plan:
        return backward(engine, own, wanted)

    kind = _Kind("convolution gradient", twin_of, arrays, list(outputs))
    is_sum = "db" in wanted and "dw" not in wanted  # tiles have no use for that
    variants = _variants(engine, kind, problem, direct, None if is_sum else tiles)
    return engine.operation(kind.name, variants, twin_of(window), arrays, kind.outputs)


def _has_use_for_patches(engine: Engine, groups: int) -> bool:
    """Whether products of patches are quicker: an image is too much work for one of many items."""
    return not engine.hardware.is_cpu and groups == 1


@dataclass(frozen=True)
class _Kind:
    """What the ways to do one operation have in common."""

    name: str
    twin_of: Callable[[Window], Twin]
    arrays: Collection[str]
    outputs: Sequence[str]


def _variants(
    engine: Engine,
    kind: _Kind,
    problem: Problem,
    direct: Callable[[Problem], Plan],
    tiles: Callable[[Tiling], Plan] | None,
) -> list[Callable[[], Variant]]:
    """Return the ways to do it, the quickest first."""
    numbers = numbers_of(engine, problem.dtype)
    found: list[Callable[[], Variant]] = []
    if tiles is not None and engine.hardware.is_cpu and (tiling := Tiling.of(problem, numbers)):

        def by_tiles() -> Variant:
            text = transforms(tiling.numbers) + kernel_source("winograd")
            recipe = Recipe(f"{kind.name} by tiles", _source(engine, kind, problem) + text)
            small = replace(tiling, problem=_small(problem, tiled=True))
            return _variant(kind, recipe, tiles(tiling), small.problem, tiles(small))

        found.append(by_tiles)

    def by_sums() -> Variant:
        recipe, small = Recipe(kind.name, _source(engine, kind, problem)), _small(problem)
        return _variant(kind, recipe, direct(problem), small, direct(small))

    return [*found, by_sums]


def _variant(kind: _Kind, recipe: Recipe, plan: Plan, small: Problem, small_plan: Plan) -> Variant:
    calls, scratch = plan
    steps, sizes = small_plan

    def trial() -> Trial:
        shapes = _shapes(small)
        given = samples({name: (shapes[name], small.dtype) for name in kind.arrays})
        spare = {key: np.zeros(size, np.uint8) for key, size in sizes.items()}
        return trial_of(kind.twin_of(small.window), steps, given, kind.outputs, scratch=spare)

    return Variant([(recipe, [call.kernel for call in calls], trial)], calls, scratch)


def _small(problem: Problem, *, tiled: bool = False) -> Problem:
    """Return a problem of the same kind that takes no time."""
    groups = min(problem.groups, 2)
    kernel = problem.window.kernel if tiled else (3, 2)
    window = Window((7, 9, 3 * groups), kernel, problem.window.stride, (1, 2, 0, 1))
    return replace(problem, batch=3, window=window, kernels=19 * groups, groups=groups)


def _shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    images = (problem.batch, *problem.window.image)
    weights = (problem.kernels, problem.length)
    sums = (problem.batch, *problem.window.places, problem.kernels)
    return {
        "x": images, "weights": weights, "out": sums, "bias": (problem.kernels,), "err": sums,
        "y": sums, "dw": weights, "db": (problem.kernels,), "dx": images,
    }  # fmt: skip


def _source(engine: Engine, kind: _Kind, problem: Problem) -> str:
    numbers = numbers_of(engine, problem.dtype)
    is_forward = "out" in kind.outputs
    parts = [engine.defines, numbers.defines, f"#define ROWS {ROWS}\n"]
    parts += [kernel_source("ranges"), kernel_source("common")]
    parts.append(_activation(problem.formula if is_forward else None, numbers))
    parts.append(_delta(None if is_forward else problem.formula, numbers))
    return "".join([*parts, kernel_source("convolution")])


def _activation(formula: Expression | None, numbers: Numbers) -> str:
    lines, values = statements([formula or element("x")], {element("x"): "x"}, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    return f"static vec activation(const vec x)\n{{\n{body}\n    return {values[0]};\n}}\n"


def _delta(slope: Expression | None, numbers: Numbers) -> str:
    if slope is None:
        return "#define DELTA(err, y) (err)\n"
    formula = element("err") * slope
    names = {element("err"): "err", element("y"): "y"}
    lines, values = statements([formula], names, numbers)
    body = "\n".join(f"    {line}" for line in lines)
    head = "static vec delta_of(const vec err, const vec y)"
    return (
        f"{head}\n{{\n{body}\n    return {values[0]};\n}}\n#define DELTA(err, y) delta_of(err, y)\n"
    )
