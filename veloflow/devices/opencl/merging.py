"""Several kernels written as one, each of whose work-items does its share of each in turn.

Every kernel comes with definitions of its own (macros, types, functions), so all of these get
other names in each part. Each part is divided among as many work-items as the kernel has alone,
for it may have memory for each of these and no more; those beyond do nothing in that part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.opencl.judge import runs
from veloflow.devices.opencl.launches import Scalar, set_arguments
from veloflow.devices.opencl.platforms import cl
from veloflow.devices.opencl.recipes import ArrayArgument, Call, LaunchScalar, Recipe, Trial
from veloflow.errors import KernelError

if TYPE_CHECKING:
    from veloflow.devices.opencl.pending import Given, Step

__all__ = ["Function", "as_function", "merged_launch", "merged_recipe", "merged_source"]

#: the name of the one kernel
_MERGED = "merged"
#: the parameter of each part that says how many work-items it is divided among
_ITEMS = "items_of_part"

_WORD = re.compile(r"\b[A-Za-z_]\w*\b")
#: what a source defines: macros, types, functions
_DEFINED = re.compile(
    r"^\s*#\s*define\s+(\w+)"
    r"|\btypedef\s[^;]*?(\w+)(?:\s*__attribute__\s*\(\(.*?\)\)\s*\))?\s*;"
    r"|\b(?:kernel|static)\s+(?:inline\s+)?\w+\s+(\w+)\s*\(",
    re.MULTILINE,
)
#: macros paste this to the name of a type, so it has to change in the same way everywhere
_PASTED = "_lanes"
_KERNEL = re.compile(r"\bkernel\s+void\s+(\w+)\s*\(([^)]*)\)")


def merged_source(parts: Sequence[tuple[str, str]]) -> str:
    """Return a program whose kernel ``merged`` does what the kernels do one after another.

    Args:
        parts: the source of a program and the name of its kernel. The parameters of ``merged`` are
            those of the first kernel and the number of its work-items (long), those of the second
            and so on.

    Raises:
        KernelError: a source has no such kernel.
    """
    texts: list[str] = []
    parameters: list[str] = []
    calls: list[str] = []
    for number, (source, kernel) in enumerate(parts):
        text = f"#define WORK_ITEMS {_ITEMS}\n{source}"
        function = as_function(text, kernel, number, (f"const long {_ITEMS}",))
        names = [f"p{number}_{place}" for place in range(len(function.kinds))]
        parameters += [f"{kind} {name}" for kind, name in zip(function.kinds, names, strict=True)]
        texts.append(function.text)
        calls.append(f"    {function.name}({', '.join(names)});")
    body = "\n".join(calls)
    head = f"kernel void {_MERGED}({', '.join(parameters)})"
    return "\n".join([*texts, f"{head}\n{{\n{body}\n}}\n"])


@dataclass(frozen=True)
class Function:
    """A kernel written as a function: its ``name``, the ``kinds`` of its parameters, the text."""

    name: str
    kinds: tuple[str, ...]
    text: str


def as_function(source: str, kernel: str, number: int, more: Sequence[str]) -> Function:
    """Return the kernel of a program as a function with ``more`` parameters at the end.

    Everything that the source defines is marked with ``number``, so that others may define it too.

    Raises:
        KernelError: the source has no such kernel.
    """
    text, name = _renamed(source, number), f"{kernel}_p{number}"
    declared = dict(_KERNEL.findall(text))
    if name not in declared:
        raise KernelError(f"there is no kernel {kernel!r} to be merged")
    parameters = [one.strip() for one in (*declared[name].split(","), *more)]
    kinds = tuple(one.removesuffix(_WORD.findall(one)[-1]).strip() for one in parameters)
    return Function(name, kinds, _KERNEL.sub(rf"static void \1(\2, {', '.join(more)})", text))


def _renamed(source: str, number: int) -> str:
    """Return the source with a mark at all names that it defines."""
    mark = f"_p{number}"
    defined = {name for names in _DEFINED.findall(source) for name in names if name}

    def rename(found: re.Match[str]) -> str:
        word = found.group()
        if word.endswith(_PASTED):
            base = word.removesuffix(_PASTED)
            return f"{base + mark if base in defined else base}{_PASTED}{mark}"
        return word + mark if word in defined else word

    return _WORD.sub(rename, source)


def merged_recipe(parts: Sequence[tuple[str, Call]]) -> tuple[Recipe, Trial]:
    """Return what to compile for these calls of kernels, given with their sources, and a trial.

    The trial only runs it, on single elements. Whether the numbers are right is seen where a plan
    is made, against the launches themselves.
    """
    source = merged_source([(_by_rows(text, call), call.kernel) for text, call in parts])
    arguments = [
        _shrunk(one, number)
        for number, (_, call) in enumerate(parts)
        for one in (*call.arguments, np.int64(1))
    ]
    names = [one.name for one in arguments if isinstance(one, ArrayArgument)]
    arrays = {name: np.zeros(256, np.uint8) for name in names}
    trial = runs([Call(_MERGED, tuple(arguments), (1,), (1,))], arrays)
    return Recipe(_MERGED, source), trial


def _by_rows(source: str, call: Call) -> str:
    return source if call.share is None else f"#define BY_ROWS\n{source}"


def _shrunk(argument: Any, number: int) -> Any:
    if isinstance(argument, (ArrayArgument, LaunchScalar)):
        return replace(argument, name=f"{argument.name} {number}")
    return argument.dtype.type(1)


def merged_launch(
    queue: Any, program: Any, steps: Sequence[Step], compute_units: int
) -> Callable[[Sequence[Given]], Any]:
    """Return what enqueues the one kernel of these steps, given the numbers of each.

    It returns the event of the launch.
    """
    kernel = cl.Kernel(program, _MERGED)
    first, items, keep = 0, 1, []
    scalars: list[tuple[int, dict[str, Scalar]]] = []
    for number, step in enumerate(steps):
        call, share = step.call, step.call.share
        buffers = {name: block.buffer for name, block in step.blocks.items()}
        keep.append(buffers)
        own: dict[str, Scalar] = {}
        arguments = call.arguments
        if share is not None and share.arguments is not None:
            arguments = share.arguments
        part_items = call.size[0] if share is None else share.items(compute_units)
        arguments = (*arguments, np.int64(part_items))
        set_arguments(kernel, arguments, buffers, own, first)
        first += len(arguments)
        items = max(items, part_items)
        if own:
            scalars.append((number, own))
    enqueue = partial(cl.enqueue_nd_range_kernel, queue, kernel, (items,), (1,))
    last: list[Mapping[str, float] | None] = [None] * len(steps)

    def launch(given: Sequence[Given], *, _keep: object = keep) -> Any:
        for number, own in scalars:
            numbers = given[number]
            if numbers is not None and numbers != last[number]:
                for name, scalar in own.items():
                    scalar.set(numbers[name])
                last[number] = numbers
        return enqueue()

    return launch
