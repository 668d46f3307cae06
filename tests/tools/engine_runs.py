"""Runs on cluster engines that are watched: what happened in them, and when."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import veloflow
from veloflow.core import EpochDone, Message


@dataclass
class Watched:
    """A run, and when what happened in it, in seconds since its start.

    Attributes:
        sha256: of the final parameters.
        messages: time and text.
        slaves: what each did.
    """

    sha256: str = ""
    messages: list[tuple[float, str]] = field(default_factory=list)
    slaves: list[dict[str, object]] = field(default_factory=list)

    def when(self, word: str, after: float = 0.0) -> float:
        """Return when the first message with ``word`` came, not before ``after``."""
        return next(at for at, text in self.messages if word in text and at >= after)


LONG = Path(__file__).with_name("long_digits.py")


def run_on(engine, *, kill=None, epochs=3, workflow="digits_mlp", pause=0.0, **settings):
    """Run a workflow; call ``kill`` when the first slave has joined, and note the time.

    Until ``kill`` is done the master sleeps for ``pause`` seconds after each epoch, so that an
    engine has time.
    """
    seen = Watched()
    began = time.monotonic()
    joined = threading.Event()

    def hear(message):
        seen.messages.append((time.monotonic() - began, message.text))
        if "joined" in message.text:
            joined.set()

    def watch(session):
        session.events.subscribe(Message, hear)
        session.events.subscribe(EpochDone, rest)

    def rest(event):
        if thread is not None and thread.is_alive():
            time.sleep(pause)

    def strike():
        if joined.wait(120):
            time.sleep(0.3)
            kill()
            seen.messages.append((time.monotonic() - began, "KILLED"))

    thread = threading.Thread(target=strike) if kill else None
    if thread is not None:
        thread.start()
    place = {} if engine is None else {"on": engine}
    result = veloflow.run(
        workflow,
        device="numpy",
        epochs=epochs,
        watch=watch,
        **{"slaves": 2, **place, **settings},
    )
    if thread is not None:
        thread.join()
    seen.sha256 = result.parameters_sha256
    seen.slaves = list(result.more.get("slaves", ()))
    return seen


def _commands():
    """Return parent and command line of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found[int(path.name)] = (parent, line)
    return found


def children_running(word):
    """Return the processes below this one whose command line has ``word``."""
    return [pid for pid, (_, line) in _commands().items() if word in line and _is_ours(pid)]


def has_child(pid, word):
    """Whether a process has a child whose command line has ``word``."""
    return any(parent == pid and word in line for parent, line in _commands().values())


def _is_ours(pid):
    """Whether a process descends from this one."""
    commands = _commands()
    while pid in commands:
        if pid == os.getpid():
            return True
        pid = commands[pid][0]
    return False
