"""The tuner of a device: children measure what the search asks for; what it found is kept."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from veloflow.devices.cache import cache_folder
from veloflow.devices.opencl.compile import Worker, busyness
from veloflow.devices.opencl.compile_worker import encode_call, encode_trial
from veloflow.devices.opencl.engine import Engine
from veloflow.devices.opencl.products import Problem, variant_of
from veloflow.devices.opencl.search import Attempt, Search
from veloflow.devices.opencl.tiles import Blas
from veloflow.devices.opencl.tuning import Figure, SetAside, Tuning, save_tuning, tuning_file
from veloflow.errors import DeviceError, KernelError

if TYPE_CHECKING:
    from veloflow.devices.base import Array, Device, Launch
    from veloflow.devices.opencl.platforms import Hardware

__all__ = ["tune"]

_log = logging.getLogger(__name__)

#: seconds of each measurement, and those after which a child that does not answer is ended
_MEASURE = 0.15
_LIMIT = 30.0
#: which operand lies transposed in the products of a layer: forward, by weights, by inputs
_LAYOUTS = ((False, False), (True, False), (False, True))


def tune(
    hardware: Hardware,
    *,
    budget: float,
    report: Callable[[int, int, str], None],
    search: Search | None = None,
    limit: float = _LIMIT,
    sources: Mapping[str, str] | None = None,
) -> Tuning:
    """Search the methods of a device for about ``budget`` seconds, keep and return the result.

    KeyboardInterrupt ends the search early; what it found is kept and returned, not complete.

    Args:
        hardware: the device.
        budget: seconds, after which nothing more is begun.
        report: is told after each measurement how many were made, how many there will be, and
            what the last one found.
        search: what to search, where it is not the usual.
        limit: seconds for one child to answer, on a machine that is not busy.
        sources: replaces the source of methods by their names, to test what then happens.

    Raises:
        DeviceError: another tuner is at work on this device, or nothing could be measured.
        StorageError: the result cannot be kept.
    """
    search = search or Search(hardware.facts, budget)
    with _alone(hardware):
        began, load = time.monotonic(), _load()
        builtin = Tuning.builtin(hardware.identity, hardware.facts)
        engine, worker = Engine(hardware, tuning=builtin), Worker()
        child = _Child(engine, worker, limit, dict(sources or {}))
        try:
            _run(search, child, report, began)
        except KeyboardInterrupt:
            _log.warning("the search was interrupted; what it found so far is kept")
        finally:
            worker.close()
            engine.close()
        if not search.figures:
            reasons = "; ".join(f"{one}: {why}" for one, why in search.set_aside.items())
            raise DeviceError(
                f"nothing could be measured on {hardware.name} ({reasons or 'it was stopped'}); "
                "the built-in choice stays"
            )
        tuning = msgspec.structs.replace(
            builtin,
            gemm=search.choices(),
            figures=tuple(
                Figure(str(one.method), one.size, rate) for one, rate in search.figures.items()
            ),
            set_aside=tuple(SetAside(str(one), why) for one, why in search.set_aside.items()),
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - began, 1),
            load=load,
            is_complete=search.is_complete,
        )
        save_tuning(tuning)
        return tuning


def _run(
    search: Search, child: _Child, report: Callable[[int, int, str], None], began: float
) -> None:
    while (attempt := search.next(time.monotonic() - began)) is not None:
        try:
            rate = child.measure(attempt)
        except KernelError as error:
            search.failed(attempt, str(error))
            says = f"{attempt.method} is set aside: {error}"
            _log.warning("%s: %s", child.name, says)
        else:
            search.heard(attempt, rate)
            says = f"{attempt.method} at {attempt.size}: {rate:.0f} GFLOP/s"
        report(search.made, search.expected, says)


class _Child:
    """Asks the child that compiles, tries and measures."""

    def __init__(
        self, engine: Engine, worker: Worker, limit: float, sources: Mapping[str, str]
    ) -> None:
        self._engine, self._worker, self._limit, self._sources = engine, worker, limit, sources
        self.name = engine.hardware.name

    def measure(self, attempt: Attempt) -> float:
        """Return the rate in GFLOP/s.

        Raises:
            KernelError: the method does not compile, crashes, hangs or computes wrong numbers.
        """
        if isinstance(attempt.method, Blas):
            requests: list[dict[str, Any]] = [{"blas": attempt.size}]
        else:
            # a GPU's kernel reads along the lanes or across them, as the operands lie: a step of
            # training has all of these
            layouts = _LAYOUTS[:1] if self._engine.hardware.is_cpu else _LAYOUTS
            requests = [self._request(attempt, *layout) for layout in layouts]
        seconds = 0.0
        for request in requests:
            answer = self._worker.ask({**request, "seconds": _MEASURE}, self._limit * busyness())
            if "seconds" not in answer:
                raise KernelError(answer.get("error") or "the child gave no time")
            seconds += float(answer["seconds"]) / len(requests)
        return 2e-9 * attempt.size**3 / seconds

    def _request(self, attempt: Attempt, transpose_a: bool, transpose_b: bool) -> dict[str, Any]:
        size, hardware = attempt.size, self._engine.hardware
        problem = Problem(size, size, size, transpose_a, transpose_b, np.dtype(np.float32))

        def twin(host: Device, twins: Mapping[str, Array]) -> Launch:
            return host.gemm(
                twins["a"], twins["b"], twins["out"], transpose_a=transpose_a,
                transpose_b=transpose_b,
            )  # fmt: skip

        variant = variant_of(self._engine, hardware.facts, problem, attempt.method, twin)
        recipe, _, trial = variant.parts[0]
        source = self._sources.get(str(attempt.method))
        if source is not None:
            recipe = replace(recipe, source=source)
        edge = size * size * problem.dtype.itemsize
        return {
            "device": hardware.name,
            "name": str(attempt.method),
            "source": recipe.source,
            "options": list(recipe.options),
            "trial": encode_trial(trial()),
            "calls": [encode_call(call) for call in variant.calls],
            "sizes": dict.fromkeys(("a", "b", "out"), edge) | dict(variant.scratch),
        }


def _load() -> float:
    if not hasattr(os, "getloadavg"):
        return 0.0
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)


@contextlib.contextmanager
def _alone(hardware: Hardware) -> Iterator[None]:
    """Keep other tuners off this device: they would disturb each other's figures.

    The lock goes with the process that has it, however that ends.
    """
    path = cache_folder("tuning") / f"{tuning_file(hardware.identity).stem}.lock"
    with Path(path).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise DeviceError(
                f"{hardware.name} is being tuned by another veloflow (process {who}); "
                "wait for it, or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
