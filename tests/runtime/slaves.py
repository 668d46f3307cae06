"""Slaves for tests: in threads of this process, and trouble for those that are processes."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from veloflow.core import Message
from veloflow.errors import InputError
from veloflow.runtime.slaves.slave import join

VELOFLOW = [sys.executable, "-P", "-m", "veloflow"]

_NUMBERS = itertools.count()


def join_when_it_listens(address, device="numpy"):
    """Be a slave of the master at ``address``, as soon as there is one."""
    while True:
        try:
            join(address, device)
        except InputError:  # the master does not listen yet
            continue
        return


def in_threads(count, run):
    """Call ``run`` with an address at which so many threads of this process are slaves."""
    address = f"memory://threads-{next(_NUMBERS)}"
    threads = [threading.Thread(target=join_when_it_listens, args=(address,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    result = run(address)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return result


def resumed_after_a_kill(folder, slaves, words, timeout):
    """Run digits_mlp with slaves that outlive their master, which is killed and resumed.

    Args:
        folder: for the checkpoints and the result.
        slaves: how many there are.
        words: for the command line.
        timeout: seconds that the second master may take.

    Returns:
        dict: the result of the second master.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
    command = [*VELOFLOW, "run", "digits_mlp", *words, "--device", "numpy", "--listen", address,
               "--checkpoint-every", "0.2", "--checkpoint", str(folder / "c"),
               "--result", str(folder / "r.json")]  # fmt: skip
    joined = [
        subprocess.Popen([*VELOFLOW, "slave", address, "-d", "numpy", "-q"]) for _ in range(slaves)
    ]
    master = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
    for line in master.stdout:
        if '"epoch": 10' in line:
            master.kill()
            break
    master.wait()
    master.stdout.close()
    assert (folder / "c" / "last.safetensors").exists()
    again = subprocess.run([*command, "--resume", "-q"], timeout=timeout)
    assert again.returncode == 0
    assert [one.wait(20) for one in joined] == [0] * slaves
    return json.loads((folder / "r.json").read_text())


def children(word):
    """The processes that this one has started with a word in their command, by their order."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                words = (process / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == os.getpid() and word.encode() in words:
                found.append(int(process.name))
    return sorted(found)


class Trouble(threading.Thread):
    """Does something to children of this process again and again, once slaves have joined.

    Args:
        word: in the command of those children; "slave" is for slaves.
        number: the signal that they get, one after the other.
        every: seconds between.
        times: how often.
        slaves: how many join first.
    """

    def __init__(self, word, number, every, times, slaves=3):
        super().__init__(daemon=True)
        self.word, self.number, self.every, self.times = word, number, every, times
        self.missing = threading.Semaphore(0)
        self.slaves = slaves
        self.done = 0
        self.over = threading.Event()

    def watch(self, session):
        """Follow a session."""
        session.events.subscribe(Message, self.hear)

    def hear(self, message):
        """Count who joins."""
        if " joined: " in message.text:
            self.missing.release()

    def run(self):
        """Wait for the slaves, and begin."""
        for _ in range(self.slaves):
            self.missing.acquire(timeout=20)
        while self.done < self.times and not self.over.wait(self.every):
            found = children(self.word)
            if found:
                os.kill(found[self.done % len(found)], self.number)
                self.done += 1
