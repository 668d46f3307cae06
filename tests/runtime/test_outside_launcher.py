"""A launcher of another package: registered by an entry point, found by name, and conforming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from veloflow.runtime.launcher_conformance import check_declarations, check_launcher
from veloflow.runtime.launchers import known_launchers

_CODE = '''
import subprocess

import msgspec

from veloflow.runtime.launchers import Launcher
from veloflow.runtime.launchers.task import command


class Options(msgspec.Struct, frozen=True):
    """Options of ``--on processes``.

    Attributes:
        prefix: of the names of slaves.
    """

    prefix: str = "process"


class Processes(Launcher[Options]):
    """Starts processes on this machine."""

    name = "processes"
    Options = Options

    def connect(self):
        self.slaves, self.leaving = [], []

    def start(self, count, offer):
        self.offer = offer
        self.resize(count or 1)

    def resize(self, count):
        while len(self.slaves) > count:
            self.leaving.append(self.slaves.pop())
            self.leaving[-1].terminate()
        while len(self.slaves) < count:
            name = f"{self.options.prefix}-{len(self.slaves)}"
            one = subprocess.Popen(
                command("--offer", "-", "--name", name), stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            one.stdin.write(self.offer.encode())
            one.stdin.flush()
            self.slaves.append(one)

    def stop(self, grace):
        for one in (*self.slaves, *self.leaving):
            try:
                one.wait(grace)
            except subprocess.TimeoutExpired:
                one.kill()
            one.stdin.close()
            one.wait()
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package that registers a launcher; give its folder."""
    (tmp_path / "outside_launcher.py").write_text(_CODE)
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    entry = "[veloflow.launchers]\nprocesses = outside_launcher:Processes\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("outside_launcher", None)


def test_it_is_found_by_name_and_declared_well(package):
    assert "processes" in known_launchers()
    check_declarations("processes", {"prefix": "mine"})


@pytest.mark.cluster
@pytest.mark.slow
def test_it_keeps_the_promises_of_launchers(package):
    check_launcher("processes", {"prefix": "mine"}, timeout=60)


@pytest.mark.parametrize(("change", "words"), [
    (("frozen=True", "frozen=False"), "can be changed"),
    (("        prefix: of the names of slaves.\n", ""), r"without a word .*\['prefix'\]"),
    (('name = "processes"', 'name = "other"'), "calls itself other"),
])  # fmt: skip
def test_what_is_declared_badly_is_told(package, change, words):
    (package / "outside_launcher.py").write_text(_CODE.replace(*change))
    with pytest.raises(AssertionError, match=words):
        check_declarations("processes", {})


@pytest.mark.cluster
@pytest.mark.slow
def test_one_that_starts_too_few_is_told(package):
    code = _CODE.replace("self.resize(count or 1)", "self.resize(1)")
    (package / "outside_launcher.py").write_text(code)
    with pytest.raises(AssertionError, match="1 slaves and not 2"):
        check_launcher("processes", timeout=3)


@pytest.mark.slow
def test_the_command_line_shows_and_describes_it(package):
    words = [sys.executable, "-P", "-m", "veloflow", "run", "digits_mlp", "--dry-run", "--on"]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([*words, "processes"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "processes" in done.stdout
    done = subprocess.run([*words, "process"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'processes'" in done.stderr


# -- engines that run already start slaves while the master still loads what it needs --------------

#: what the launcher does besides when its engine is there: it notes what it starts, and when
_NOTES = """
    is_there = True

    def start(self, count, offer):
        self.offer = offer
        self.resize(count or 1)
        import sys
        with open("started", "w") as file:
            loaded = "veloflow.runtime.session" in sys.modules
            file.write(" ".join(str(one) for one in (int(loaded), *(s.pid for s in self.slaves))))
"""

#: a definition that takes long to load; what runs tests in the background has SIGINT ignored
_SLOW = """
import signal
import time
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)
Path("loading").touch()
time.sleep(60)


def build(wf):
    pass
"""


@pytest.fixture
def running_engine(package, monkeypatch):
    """Have the outside launcher say that its engine runs already; give the folder of its notes."""
    (package / "outside_launcher.py").write_text(_CODE + _NOTES)
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.chdir(package)
    return package


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "veloflow", "run", "--on", "processes", "--quiet",
            "--device", "numpy", *words]  # fmt: skip


def started(folder):
    """Return whether the master was loaded when slaves were started, and which processes they are.

    They are started by a thread, so that a moment may pass.
    """
    until = time.monotonic() + 30
    while not ((folder / "started").exists() and (text := (folder / "started").read_text())):
        assert time.monotonic() < until, "nothing was started"
        time.sleep(0.01)
    loaded, *pids = map(int, text.split())
    return bool(loaded), pids


def are_running(pids):
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.mark.cluster
@pytest.mark.slow
def test_slaves_are_started_before_the_master_is_loaded_and_give_the_same_bits(running_engine):
    words = ("digits_mlp", "epochs=2", "--slaves", "2", "--result")
    subprocess.run(command(*words, "early.json"), check=True, timeout=60)
    loaded, pids = started(running_engine)
    assert (loaded, len(pids)) == (False, 2)
    assert are_running(pids) == []
    local = [word for word in command(*words, "local.json") if word not in ("--on", "processes")]
    subprocess.run(local, check=True, timeout=60)
    early, here = (json.loads((running_engine / f"{name}.json").read_text())
                   for name in ("early", "local"))  # fmt: skip
    assert early["parameters_sha256"] == here["parameters_sha256"]


@pytest.mark.cluster
@pytest.mark.slow
def test_what_is_wrong_with_options_takes_slaves_back_that_were_started_early(running_engine):
    done = subprocess.run(
        command("digits_mlp", "hiden=3"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean 'hidden'" in done.stderr
    assert are_running(started(running_engine)[1]) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ("digits_mpl",), ("./nowhere.py",), ("digits_mlp", "--slaves", "none"),
    ("digits_mlp", "--listen", "tcp://127.0.0.1:1", "--listen", "tcp://127.0.0.1:2"),
    ("digits_mlp", "--listen", "nonsense"), ("digits_mlp", "--engine-option", "prefx=x"),
])  # fmt: skip
def test_what_is_seen_to_be_wrong_at_once_starts_nothing(running_engine, words):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (running_engine / "started").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_ctrl_c_while_the_master_loads_takes_the_slaves_back(running_engine):
    (running_engine / "slow.py").write_text(_SLOW)
    with subprocess.Popen(command("./slow.py"), stderr=subprocess.PIPE, text=True) as process:
        _, pids = started(running_engine)
        assert are_running(pids) == pids
        while not (running_engine / "loading").exists():
            assert process.poll() is None, "it ended before it was interrupted"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "veloflow: interrupted\n")
    assert are_running(pids) == []
