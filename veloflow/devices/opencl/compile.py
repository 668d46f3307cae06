"""Compiled programs: from the cache, or from a child process that compiles and tries them.

A driver's compiler may abort the whole process, never return, or make code that computes nonsense.
Each of these costs the child and one kernel: it is reported as :class:`KernelError`, remembered for
a day, and the operation takes another way.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from veloflow.devices.opencl.cache import KernelCache, key_of
from veloflow.devices.opencl.compile_worker import encode_trial
from veloflow.devices.opencl.platforms import Hardware, cl
from veloflow.devices.opencl.recipes import Recipe, Trial
from veloflow.errors import KernelError

__all__ = ["Compiler", "Worker", "busyness"]

_log = logging.getLogger(__name__)

_WORKER_COMMAND = (sys.executable, "-P", "-m", "veloflow.devices.opencl.compile_worker")


class Worker:
    """The child process, started when it is first asked and again after it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._errors: BinaryIO | None = None
        self._finalizer: weakref.finalize[..., Worker] | None = None
        self.starts = 0  #: how often a child was started

    def ask(self, request: Mapping[str, Any], limit: float) -> dict[str, str]:
        """Return the answer to a request.

        Raises:
            KernelError: the child crashed, or did not answer within ``limit`` seconds.
        """
        line = json.dumps(request).encode() + b"\n"
        answer = self._exchange(line, limit)
        if not answer and self._end_of_child() == 0:  # it went home just before we asked
            answer = self._exchange(line, limit)
        if not answer:
            code, said = self._end_of_child(), self._last_words()
            self.close()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise KernelError(f"the compiler's process died ({how}){said}")
        reply: dict[str, str] = json.loads(answer)
        return reply

    def _exchange(self, line: bytes, limit: float) -> bytes:
        """Return the answer, b"" when the child has ended."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:  # the reader's b"" says the same
            _log.debug("the compiler's process ended before it was asked")
        try:
            return self._answers.get(timeout=limit)
        except queue.Empty:
            process.kill()
            self.close()
            raise KernelError(f"the compiler did not answer within {limit:.0f} s") from None

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        self._answers = queue.SimpleQueue()
        process = subprocess.Popen(
            _WORKER_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        reader = threading.Thread(
            target=_pass_on, args=(process.stdout, self._answers), daemon=True
        )
        reader.start()
        self._process = process
        self._finalizer = weakref.finalize(self, _end, process, reader, self._errors)
        self.starts += 1
        return process

    def _end_of_child(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=10.0)

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        lines = self._errors.read().decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip() and not line.startswith(" #")]
        return f": {words[0][:300]}" if words else ""

    def close(self) -> None:
        """End the child, if one runs."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = self._errors = None


def _pass_on(source: BinaryIO, answers: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        answers.put(line)
    answers.put(b"")


def _end(process: subprocess.Popen[bytes], reader: threading.Thread, errors: BinaryIO) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.close()
    except BrokenPipeError:  # it is gone already
        _log.debug("the compiler's process was gone")
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join()
    process.stdout.close()
    errors.close()


class Compiler:
    """Turns recipes into programs of one device."""

    def __init__(
        self,
        hardware: Hardware,
        context: Any,
        cache: KernelCache,
        *,
        limit: float = 60.0,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """``sources`` replaces the source of recipes by name: for tests of what then happens."""
        self._hardware = hardware
        self._context = context
        self._cache = cache
        self._limit = limit
        self._sources = dict(sources or {})
        self._programs: dict[str, Any] = {}
        self._refused: dict[str, str] = {}
        self.worker = Worker()

    def program(self, recipe: Recipe, trial: Callable[[], Trial]) -> Any:
        """Return the program; ``trial`` makes what it must do right before it is trusted.

        Raises:
            KernelError: it cannot be compiled, or it computes wrong numbers.
        """
        if recipe.name in self._sources:
            recipe = Recipe(recipe.name, self._sources[recipe.name], recipe.options)
        key = key_of(recipe, self._hardware.identity)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._obtain(key, recipe, trial)
        return program

    def _obtain(self, key: str, recipe: Recipe, trial: Callable[[], Trial]) -> Any:
        binary = self._cache.load(key)
        if binary is not None:
            try:
                return self._from_binary(binary)
            except cl.Error as error:
                _log.warning("the driver refuses the kept kernel %r: %s", recipe.name, error)
        return self._from_binary(self._compile(key, recipe, trial))

    def _from_binary(self, binary: bytes) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)
            return cl.Program(self._context, [self._hardware.handle], [binary]).build()

    def _compile(self, key: str, recipe: Recipe, trial: Callable[[], Trial]) -> bytes:
        reason = self._refused.get(key) or self._cache.refusal(key)
        if reason is None:
            try:
                return self._ask(key, recipe, trial())
            except KernelError as error:
                reason = str(error)
                self._cache.refuse(key, reason)
        self._refused[key] = reason
        raise KernelError(f"{recipe.name}: {reason}")

    def _ask(self, key: str, recipe: Recipe, trial: Trial) -> bytes:
        request = {
            "device": self._hardware.name,
            "identity": self._hardware.identity,
            "name": recipe.name,
            "source": recipe.source,
            "options": list(recipe.options),
            "path": str(self._cache.path(key)),
            "trial": encode_trial(trial),
        }
        answer = self.worker.ask(request, self._limit * busyness())
        if "storage" in answer:
            with tempfile.TemporaryDirectory(prefix="veloflow-kernels-") as folder:
                elsewhere = KernelCache(Path(folder))
                request["path"] = str(elsewhere.path(key))
                answer = self.worker.ask(request, self._limit * busyness())
                binary = elsewhere.load(key)
        else:
            binary = self._cache.load(key)
        if answer or binary is None:
            reason = answer.get("error") or answer.get("storage") or "the binary was not kept"
            raise KernelError(reason)
        return binary

    def close(self) -> None:
        """End the child and forget the programs."""
        self.worker.close()
        self._programs.clear()
        self._cache.close()


def busyness() -> float:
    """Return how many times slower than alone a process may be on this machine now, 4 at most."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    return min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
