"""A slice of the recorded spot market with real processes: what of the time offered is work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from spot_trace import visits

import veloflow
from veloflow.core import Message

pytestmark = [pytest.mark.bench, pytest.mark.cluster]

#: seconds that the slice takes, how many times as quick as recorded, seconds that a piece takes
SLICE = float(os.environ.get("VELOFLOW_SPOT_SECONDS", "60"))
PACE, PIECE = 6.0, 1.0

DEFINITION = """
import time

from veloflow import Workflow
from veloflow.units import FarmMap


def rest(number, seconds):
    time.sleep(seconds)
    return dict(number=number)


def build(wf: Workflow) -> None:
    items = [dict(number=n, seconds={seconds}) for n in range({pieces})]
    wf.start >> FarmMap(wf, rest, items=items) >> wf.end
"""


class Market:
    """Starts a slave when a machine comes, and kills it without a word when it is taken away.

    Attributes:
        offered: seconds that machines were there, the start of their slaves among them.
        killed: how many were taken away before the end.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.offered, self.killed = 0.0, 0
        self._address, self._folder = address, folder

    def play(self, is_over: threading.Event) -> None:
        """Play the slice, whose last machines are there until the work is done."""
        began = time.monotonic()
        steps = []
        for number, one in enumerate(visits(seconds=SLICE * PACE, pace=PACE)):
            steps += [(one.begins, number, True), (one.ends, number, False)]
        running: dict[int, tuple[float, subprocess.Popen[bytes]]] = {}
        for at, number, comes in sorted(steps):
            if at >= SLICE or is_over.wait(max(0.0, began + at - time.monotonic())):
                break
            if comes:
                running[number] = (time.monotonic(), self._start(number))
            else:
                since, slave = running.pop(number)
                slave.kill()
                self.offered += time.monotonic() - since
                self.killed += 1
                slave.wait()
        is_over.wait()
        for since, slave in running.values():
            self.offered += time.monotonic() - since
            slave.wait(30)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        words = ["slave", self._address, "--device", "numpy", "--name", f"spot{number}"]
        with (self._folder / f"slave{number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "veloflow", *words], stdout=log, stderr=log
            )  # fmt: skip


def test_a_slice_of_the_spot_market(tmp_path, capsys):
    offered = sum(one.ends - one.begins for one in visits(seconds=SLICE * PACE, pace=PACE))
    pieces = int(0.98 * offered / PIECE)  # with all time used there is nothing left at the end
    own = tmp_path / "farmed.py"
    own.write_text(DEFINITION.format(pieces=pieces, seconds=PIECE))
    is_over, made = threading.Event(), []

    def hear(message):
        if "slaves join with" in message.text:
            market = Market(message.text.split()[-1], tmp_path)
            thread = threading.Thread(target=market.play, args=(is_over,))
            made.append((market, thread))
            thread.start()

    try:
        began = time.monotonic()
        result = veloflow.run(
            own, slaves=0, listen=["tcp://127.0.0.1:0"], device="numpy",
            watch=lambda session: session.events.subscribe(Message, hear),
        )  # fmt: skip
    finally:
        is_over.set()
        for _, thread in made:
            thread.join()
    ((market, _),) = made
    share = pieces * PIECE / market.offered
    with capsys.disabled():
        print(
            f"\n{time.monotonic() - began:.0f} s of the market at {PACE:g} times its pace: "
            f"{pieces} pieces of {PIECE:g} s, {market.killed} slaves killed, "
            f"{market.offered / 60:.1f} slave minutes offered, {share:.4f} of them useful work; "
            f"slaves that had started waited {result.more['waiting']['share']:.4f} of their time"
        )
    assert result.more["jobs"]["accepted"] == pieces
