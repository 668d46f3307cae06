"""What an engine runs for each slave: a ``veloflow slave`` process, bound to the engine's own.

The slave is a process of its own, so that the engine's worker keeps answering its engine, and
signals reach it. A pipe binds the two: when the worker dies, however it dies, the slave reads the
end of the pipe, hands its work back and leaves.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

__all__ = ["REFUSED", "RefusedError", "command", "serve"]

#: a slave's exit code when something is wrong with what it was given or found on its machine
REFUSED = 2

#: how often a task looks whether it is still wanted, in seconds
_GLANCE = 0.25
#: a slave that is told to leave has so many seconds to end its job
_GRACE = 10.0
_TAIL = 2000


class RefusedError(RuntimeError):
    """A slave cannot start on its machine, and would say the same when started again."""


def command(*arguments: str, python: str = sys.executable) -> list[str]:
    """Return the command line of a slave: words, never a line for a shell."""
    return [python, "-P", "-m", "veloflow", "slave", *arguments]


def serve(
    offer: bytes, name: str, cores: int = 1, is_wanted: Callable[[], bool] = lambda: True
) -> str:
    """Run a slave until its run is over; return the last line that it said.

    Args:
        offer: an encoded :class:`~veloflow.runtime.offer.Offer`.
        name: what to call the slave.
        cores: how many threads it may use.
        is_wanted: asked four times a second; when it says no, the slave is told to leave.

    Raises:
        RefusedError: the slave cannot start there; with the last line that it said.
        RuntimeError: it ended otherwise.
    """
    bounds = {name: str(cores) for name in ("OMP_NUM_THREADS", "POCL_MAX_PTHREAD_COUNT")}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command("--offer", "-", "--name", name),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env={**os.environ, **bounds, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended at once; it said why
                process.stdin.write(offer)
                process.stdin.flush()
            while True:
                try:
                    code = process.wait(_GLANCE)
                    break
                except subprocess.TimeoutExpired:
                    if not is_wanted():
                        code = _dismiss(process)
                        break
        finally:
            _dismiss(process)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        said.seek(0, os.SEEK_END)
        said.seek(max(0, said.tell() - _TAIL))
        lines = said.read().decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    if code:
        kind = RefusedError if code == REFUSED else RuntimeError
        raise kind(f"slave {name} ended with exit code {code}: {last}")
    return last


def _dismiss(process: subprocess.Popen[bytes]) -> int:
    """End a slave: it hands its job in, or is killed; return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
