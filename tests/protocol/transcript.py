"""Writing down what a state machine does, event by event, and holding it against a file."""

from __future__ import annotations

import os
from pathlib import Path

from veloflow.protocol.events import Heard, Said

_FOLDER = Path(__file__).parent / "transcripts"
#: set it, run the tests, and read in the diff what has changed
_WRITE = "VELOFLOW_WRITE_TRANSCRIPTS"


def compare(name: str, lines: list[str]) -> None:
    """Hold what was written down against the transcript of that name."""
    path = _FOLDER / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get(_WRITE):
        path.write_text(text, encoding="utf-8")
    told = path.read_text(encoding="utf-8")
    assert text.splitlines() == told.splitlines(), f"if that is meant, set {_WRITE}=1 and look"


def show(event: object) -> str:
    """Return an event in a line: a hello has many fields that do not matter here."""
    if isinstance(event, Heard):
        return f"{event.client.decode()} says {event.message!r}"
    if isinstance(event, Said):
        return f"the master says {event.message!r}"
    return repr(event)


class MasterLog:
    """A master whose every action, deadline and counter is written down."""

    def __init__(self, master) -> None:
        self.master = master
        self.now = 0.0
        self.is_noted = True
        self.lines: list[str] = []

    def __call__(self, event, at: float | None = None) -> list[object]:
        self.now = self.now if at is None else at
        actions = self.master.handle(event, self.now)
        self.master.validate()
        if not self.is_noted:
            return actions
        self.lines.append(f"{self.now:g} {show(event)}")
        self.lines += [f"    {action!r}" for action in actions]
        self.lines.append(f"    -- {self._state()}")
        return actions

    def _state(self) -> str:
        slaves = [
            f"{one.id} {one.state.value} owes {len(one.owed)} did {one.jobs} in {one.seconds:g}"
            for one in self.master.crowd
        ]
        deadline = self.master.deadline
        until = "for ever" if deadline is None else f"until {deadline:g}"
        return "; ".join([f"waits {until}, room for {self.master.capacity}", *slaves])

    def end(self, name: str, *stories: str | int) -> None:
        """Add the counters and some stories, and compare."""
        ledger = self.master.ledger
        self.lines.append(f"counters: {dict(sorted(self.master.counters.items()))}")
        self.lines.append(
            f"ledger: accepted {ledger.accepted}, late {ledger.late}, "
            f"unknown {ledger.unknown}, returned {ledger.returned}"
        )
        for of in stories:
            self.lines += [f"the story of {of}:", *(f"    {x}" for x in self.master.story(of))]
        compare(name, self.lines)


class SlaveLog:
    """A slave whose every action and deadline is written down."""

    def __init__(self, slave) -> None:
        self.slave = slave
        self.lines = [f"    {action!r}" for action in slave.start(0.0)]
        self.now = 0.0
        self._note()

    def __call__(self, event, at: float | None = None) -> None:
        self.now = self.now if at is None else at
        self.lines.append(f"{self.now:g} {show(event)}")
        self.lines += [f"    {action!r}" for action in self.slave.handle(event, self.now)]
        self.slave.validate()
        self._note()

    def begin(self) -> None:
        """Ask for the next job."""
        job = self.slave.begin()
        self.lines.append(f"{self.now:g} begins with {job.lease if job else None}")

    def _note(self) -> None:
        slave = self.slave
        self.lines.append(
            f"    -- {slave.state.value} as {slave.id!r} in {slave.run!r}, beats every "
            f"{slave.beat_every!r}, waits until {slave.deadline!r}"
        )
