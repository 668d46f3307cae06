"""What a killed and a frozen process cost: veloflow beside Dask, Ray, torchrun, Ray Train."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.cluster]

JOB = Path(__file__).with_name("recovery_job.py")
CALLS, SECONDS, RUNS = 120, 0.05, 5
#: a run that has not ended after so many seconds counts as hanging
LIMIT = 30.0


class Farm:
    """A run of the job on an engine, and its log."""

    def __init__(self, engine: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.log = folder / "log"
        self.log.touch()
        self.out = (folder / "out").open("w+")
        command = [sys.executable, str(JOB), engine, str(self.log), str(CALLS), str(SECONDS)]
        path = os.pathsep.join([str(JOB.parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command, stdout=self.out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        self.hit = (0, 0, 0.0)

    def lines(self, word: str) -> list[list[str]]:
        return [
            one.split()[1:] for one in self.log.read_text().splitlines() if one.startswith(word)
        ]

    def calls(self) -> list[tuple[int, int, float]]:
        """Number, process and time of all calls so far."""
        return [(int(n), int(pid), float(at)) for n, pid, at in self.lines("call") if int(n) >= 0]

    def wait_for(self, calls: int) -> None:
        until = time.time() + LIMIT
        while len(self.calls()) < calls and time.time() < until:
            time.sleep(0.002)

    def strike(self, number: int) -> None:
        """Send a signal to the process that has begun its call last."""
        self.wait_for(CALLS // 3)
        call, pid, _ = self.calls()[-1]
        os.kill(pid, number)
        self.hit = (call, pid, time.time())

    def end(self) -> float | None:
        """Return how long the work took, None if it hangs; leave nothing behind."""
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return None
        finally:
            for pid in {pid for _, pid, _ in self.calls()}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.out.seek(0)
            text = self.out.read()
            self.out.close()
        assert self.process.returncode == 0, text[-2000:]
        return float(text.split("done ")[-1].split()[0])

    def delay(self) -> float | None:
        """Seconds from the strike until the call that was struck began elsewhere."""
        call, pid, when = self.hit
        again = [at - when for n, p, at in self.calls() if n == call and p != pid and at > when]
        return min(again, default=None)


def median(values: list[float | None]) -> str:
    known = [one for one in values if one is not None]
    if len(known) < len(values):
        return f"{len(values) - len(known)} of {len(values)} hang"
    return f"{statistics.median(known):.2f} s"


#: engine -> the modules that it needs
ENGINES = {
    "veloflow": (), "dask": ("distributed",), "ray": ("ray",), "torchrun": ("torch",),
    "raytrain": ("ray.train", "torch"),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_killed_and_a_frozen_process_cost(engine, tmp_path, capsys):
    for module in ENGINES[engine]:
        pytest.importorskip(module)
    whole: dict[str, list[float | None]] = {"none": [], "kill": [], "stop": []}
    delays: dict[str, list[float | None]] = {"kill": [], "stop": []}
    for run in range(RUNS):
        whole["none"].append(Farm(engine, tmp_path / f"{run}").end())
        for name, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
            if None in whole[name]:
                continue  # it hung before
            farm = Farm(engine, tmp_path / f"{run}{name}")
            farm.strike(number)
            whole[name].append(farm.end())
            delays[name].append(farm.delay())
    words = [median(whole["none"]), median(delays["kill"]), median(whole["kill"]),
             median(delays["stop"]), median(whole["stop"])]  # fmt: skip
    with capsys.disabled():
        print(
            f"\n{CALLS} calls of {SECONDS} s on 4 processes, median of {RUNS}; limit {LIMIT:.0f} s"
        )
        print(
            "| engine | undisturbed | killed: begun elsewhere | whole | frozen: elsewhere | whole |"
        )
        print(f"| {engine} | " + " | ".join(words) + " |")


def test_a_slave_that_joins_late_gets_work_soon(tmp_path, capsys):
    delays = []
    for run in range(RUNS):
        farm = Farm("veloflow", tmp_path / str(run))
        farm.wait_for(CALLS // 6)
        address = farm.lines("listens")[0][0]
        slave = subprocess.Popen(
            [sys.executable, "-m", "veloflow", "slave", address, "-d", "numpy"]
        )
        farm.end()
        slave.wait(LIMIT)
        joined = max(float(at) for (at,) in farm.lines("joined"))
        delays.append(min(at - joined for _, pid, at in farm.calls() if pid == slave.pid))
    with capsys.disabled():
        print(f"\nlate slave: first call {1e3 * statistics.median(delays):.0f} ms after its hello")
