"""The child process that compiles kernels: it may crash or hang without harm to anybody.

``python -P -m veloflow.devices.opencl.compile_worker`` reads one request a line from its standard
input and answers each with a line of JSON. It builds the program, launches its kernels on the small
arrays of the trial (which is when PoCL makes the final machine code), compares the results with
those that NumPy gave, and only then writes the binary. A tuner's request has no path: it asks
how long launches of the program take on larger arrays, or how long the BLAS of the host takes.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from veloflow.devices.benchmark import least_seconds
from veloflow.devices.opencl.cache import write_entry
from veloflow.devices.opencl.launches import bind
from veloflow.devices.opencl.platforms import cl, devices_by_name
from veloflow.devices.opencl.recipes import ArrayArgument, Call, LaunchScalar, Recipe, Trial

__all__ = ["decode_trial", "encode_call", "encode_trial", "main"]

#: bytes after an array that kernels may read
_SPARE = 4096

#: seconds without a request after which the child ends by itself
_IDLE_LIMIT = 20.0


def encode_trial(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON's own types."""
    return {
        "calls": [encode_call(call) for call in trial.calls],
        "arrays": {name: _encode_array(array) for name, array in trial.arrays.items()},
        "scalars": dict(trial.scalars),
        "expected": {name: _encode_array(array) for name, array in trial.expected.items()},
        "tolerance": trial.tolerance,
    }


def decode_trial(record: Mapping[str, Any]) -> Trial:
    """Return the trial that was encoded."""
    return Trial(
        [_decode_call(call) for call in record["calls"]],
        {name: _decode_array(array) for name, array in record["arrays"].items()},
        record["scalars"],
        {name: _decode_array(array) for name, array in record["expected"].items()},
        record["tolerance"],
    )


def _encode_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "data": data}


def _decode_array(record: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(record["data"]), np.dtype(record["dtype"]))


def encode_call(call: Call) -> dict[str, Any]:
    """Return a launch as JSON's own types."""
    arguments: list[dict[str, Any]] = []
    for argument in call.arguments:
        if isinstance(argument, ArrayArgument):
            arguments.append({"array": argument.name})
        elif isinstance(argument, LaunchScalar):
            arguments.append({"scalar": argument.name, "dtype": argument.dtype.str})
        else:
            arguments.append({"value": _encode_array(np.asarray(argument))})
    return {"kernel": call.kernel, "arguments": arguments, "size": call.size, "local": call.local}


def _decode_call(record: Mapping[str, Any]) -> Call:
    arguments: list[Any] = []
    for argument in record["arguments"]:
        if "array" in argument:
            arguments.append(ArrayArgument(argument["array"]))
        elif "scalar" in argument:
            arguments.append(LaunchScalar(argument["scalar"], np.dtype(argument["dtype"])))
        else:
            arguments.append(_decode_array(argument["value"])[0])
    local = None if record["local"] is None else tuple(record["local"])
    return Call(record["kernel"], tuple(arguments), tuple(record["size"]), local)


class Workbench:
    """One device in the child, on which programs are built and tried."""

    def __init__(self, name: str) -> None:
        self._handle = devices_by_name()[name]
        self._context = cl.Context([self._handle])
        self._queue = cl.CommandQueue(self._context)

    def build(self, recipe: Recipe, trial: Trial) -> tuple[Any, str]:
        """Return the program and what is wrong with its results ("" when they are right)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = cl.Program(self._context, recipe.source)
            program.build(list(recipe.options), cache_dir=False)
        memory = {name: _Copy(self._context, array) for name, array in trial.arrays.items()}
        for call in trial.calls:
            self._launch(program, call, memory, trial.scalars)
        self._queue.finish()
        wrong = [
            f"{name} is wrong in {count} of {expected.size} elements"
            for name, expected in trial.expected.items()
            if (count := self._count_wrong(memory[name], expected, trial.tolerance))
        ]
        return program, "; ".join(wrong)

    def seconds(
        self, program: Any, calls: Sequence[Call], sizes: Mapping[str, int], limit: float
    ) -> float:
        """Return the least time of the launches on arrays of so many bytes each."""
        memory = {}
        for name, size in sizes.items():  # numbers near 1, for others may take another time
            whole = size + -size % 4 + _SPARE
            memory[name] = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, whole)
            cl.enqueue_fill_buffer(self._queue, memory[name], np.float32(0.75), 0, whole)
        launch = bind(self._queue, {call.kernel: program for call in calls}, calls, memory)
        return least_seconds(launch, self._queue.finish, limit)

    def _launch(
        self,
        program: Any,
        call: Call,
        memory: Mapping[str, _Copy],
        scalars: Mapping[str, float],
    ) -> None:
        kernel = cl.Kernel(program, call.kernel)
        for place, argument in enumerate(call.arguments):
            if isinstance(argument, ArrayArgument):
                kernel.set_arg(place, memory[argument.name].buffer)
            elif isinstance(argument, LaunchScalar):
                kernel.set_arg(place, argument.dtype.type(scalars.get(argument.name, 0)))
            else:
                kernel.set_arg(place, argument)
        cl.enqueue_nd_range_kernel(self._queue, kernel, call.size, call.local)

    def _count_wrong(self, copy: _Copy, expected: np.ndarray[Any, Any], tolerance: float) -> int:
        got = copy.read(self._queue)[: expected.size].astype(np.float64)
        with np.errstate(invalid="ignore"):
            close = np.abs(got - expected) <= tolerance * (1.0 + np.abs(expected))
        return int(np.count_nonzero(~(close | np.isnan(expected) | (got == expected))))


class _Copy:
    """An array of a trial on the device, aligned and with room to read past its end."""

    def __init__(self, context: Any, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        size = 4096 * math.ceil((array.nbytes + 4096) / 4096)
        raw = np.zeros(size + 4096, np.uint8)
        self._host = raw[-raw.ctypes.data % 4096 :][:size]
        self._host[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        self.buffer = cl.Buffer(context, flags, hostbuf=self._host)

    def read(self, queue: Any) -> np.ndarray[Any, Any]:
        values = np.empty_like(self._array)
        if values.size:
            cl.enqueue_copy(queue, values, self.buffer)
        return values


def answer(request: Mapping[str, Any], benches: dict[str, Workbench]) -> dict[str, str]:
    """Do what one request asks; return {}, {"seconds": number} or {"error": reason}."""
    try:
        if "blas" in request:
            return {"seconds": repr(_seconds_of_blas(request["blas"], request["seconds"]))}
        bench = benches.get(request["device"])
        if bench is None:
            bench = benches[request["device"]] = Workbench(request["device"])
        recipe = Recipe(request["name"], request["source"], tuple(request["options"]))
        program, wrong = bench.build(recipe, decode_trial(request["trial"]))
        if wrong:
            return {"error": f"it gives wrong numbers: {wrong}"}
        if "calls" in request:
            calls = [_decode_call(call) for call in request["calls"]]
            limit = request["seconds"]
            return {"seconds": repr(bench.seconds(program, calls, request["sizes"], limit))}
        binary = bytes(program.get_info(cl.program_info.BINARIES)[0])
        write_entry(Path(request["path"]), binary, name=recipe.name, device=request["identity"])
    except OSError as error:
        return {"storage": f"the compiled kernel cannot be kept: {error}"}
    except Exception as error:  # the answer is the way out: whoever asked raises it
        return {"error": f"{type(error).__name__}: {error}"}
    return {}


def _seconds_of_blas(size: int, limit: float) -> float:
    a, b = (np.full((size, size), 0.75, np.float32) for _ in range(2))
    out = np.empty_like(a)
    return least_seconds(partial(np.matmul, a, b, out=out), lambda: None, limit)


class _Watch:
    """Ends the process when nothing was asked for a while."""

    def __init__(self) -> None:
        self._since: float | None = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def working(self) -> None:
        self._since = None

    def idle(self) -> None:
        self._since = time.monotonic()

    def _run(self) -> None:
        while True:
            time.sleep(1.0)
            since = self._since
            if since is not None and time.monotonic() - since > _IDLE_LIMIT:
                os._exit(0)


def main() -> None:
    """Answer requests until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a driver prints must not get between the answers
    benches: dict[str, Workbench] = {}
    watch = _Watch()
    for line in sys.stdin:
        watch.working()
        channel.write(json.dumps(answer(json.loads(line), benches)) + "\n")
        channel.flush()
        watch.idle()


if __name__ == "__main__":
    main()
